//! `confine_hook STEP ROOTFS ROOT DEV LIMITS`: an OCI hook that `sarus run` adds before and behind those of
//! the site. See [`sarus::hook::confine`].

use sarus::error::{Error, Result};
use sarus::hook::confine::{self, Expected};
use std::ffi::OsString;
use std::path::Path;

pub fn main(args: &[OsString]) -> Result<u8> {
    let [step, rootfs, root, dev, limits] = args else {
        return Err(Error::new("confine_hook needs five arguments")
            .with_hint("'sarus run' calls this applet: confine_hook STEP ROOTFS ROOT DEV LIMITS"));
    };
    let [step, root, dev, limits] = [step, root, dev, limits].map(|word| word.to_string_lossy());
    let (step, root, dev) = (step.parse()?, root.parse()?, dev.parse()?);
    let limits = limits.parse()?;
    let state = confine::receive()?;
    confine::run(step, &state, &Expected { rootfs: Path::new(rootfs), root, dev, limits })?;
    Ok(0)
}
