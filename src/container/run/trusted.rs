//! The files that root uses in a run: opened and checked before anything is done
//! (manual, "Security related features and considerations").

use rustix::fd::OwnedFd;

use crate::error::Result;
use crate::site::config::{Config, Hook};
use crate::site::trust::Verifier;

/// The files of an installation that root uses: checked, and open by `O_PATH`.
#[derive(Debug)]
pub struct Trusted {
    /// The site's process 1, where it has its own.
    pub init: Option<OwnedFd>,
    /// The directory over which bundles are mounted.
    pub bundle_dir: OwnedFd,
    /// The hooks, in the order of the configuration; none for those that are the image's programs.
    pub hooks: Vec<Option<OwnedFd>>,
}

/// Checks all that the configuration names and root uses; sarus.json itself was checked when it
/// was opened.
///
/// # Errors
/// When something is missing, or can be tampered with.
pub fn check(config: &Config) -> Result<Trusted> {
    let verifier = Verifier::new(config.checks)?;
    verifier.directory(&config.prefix_dir)?;
    let program = |hook: &Hook| hook.is_of_host().then(|| verifier.program(&hook.path)).transpose();
    let trusted = Trusted {
        hooks: config.hooks.list.iter().map(program).collect::<Result<_>>()?,
        init: config.init_path.as_deref().map(|path| verifier.program(path)).transpose()?,
        bundle_dir: verifier.tree(&config.bundle_dir)?,
    };
    for openssh in config.hooks.list.iter().filter_map(|hook| hook.openssh(&config.prefix_dir)) {
        // Without it, only runs with --ssh fail.
        if verifier.find(&openssh)?.is_some() {
            verifier.tree(&openssh)?;
        }
    }
    Ok(trusted)
}
