//! The filter of system calls of a container, seccomp(2): a profile, and the compiler of it.
//!
//! The built-in runtime compiles the profile ([`compile()`]) and installs the filter
//! ([`crate::sys::process::seccomp::install`]); an OCI runtime gets it in config.json ([`to_json`]).

mod builtin;
mod calls;
mod compile;
mod oci;
mod parse;
mod profile;

use crate::error::{Context, Result};
use crate::log::{self, Level};
use crate::site::config::{Config, SeccompProfile};
use crate::site::trust;
use std::path::Path;

pub use compile::compile;
pub use oci::to_json;
pub use parse::{Kernel, Parsed, parse};
pub use profile::Profile;

/// Maximum size of a profile in bytes; Docker's has 17 KB.
const MAX_SIZE: u64 = 1 << 20;

/// Loads the profile that the site chose; `None` for "unconfined". Notes go to the log.
///
/// # Errors
/// If the profile of the site can be changed by others, cannot be read, or has faults.
pub fn load(choice: &SeccompProfile) -> Result<Option<Profile>> {
    match choice {
        SeccompProfile::Default => Ok(Some(builtin::profile())),
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::File(path) => {
            let (profile, notes) = read(path)?;
            for (level, note) in notes {
                log::write(level, "seccomp", &note);
            }
            profile.map(Some)
        }
    }
}

/// Reads the profile `path`, which only root may be able to change, whatever `securityChecks` says.
///
/// # Errors
/// If others can change the file, or it cannot be read.
pub fn read(path: &Path) -> Result<Parsed> {
    let text = trust::read(path, MAX_SIZE)?;
    let readable = rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok();
    Ok(parse(&path.display().to_string(), &text, readable, running_kernel()))
}

/// Describes the choice of `config`, and gives the notes on its profile, for `sarus check`.
///
/// # Errors
/// If the profile cannot be used.
pub fn describe(config: &Config) -> Result<(String, Vec<(Level, String)>)> {
    let (name, profile, notes) = match &config.seccomp_profile {
        None => return Ok(("not set: the built-in runtime uses its own profile".into(), vec![])),
        Some(SeccompProfile::Unconfined) => {
            return Ok(("no system call is refused to containers".into(), vec![]));
        }
        Some(SeccompProfile::Default) => {
            ("the built-in profile".into(), builtin::profile(), vec![])
        }
        Some(SeccompProfile::File(path)) => {
            let (profile, notes) = read(path)?;
            (path.display().to_string(), profile?, notes)
        }
    };
    let filter = compile(&profile).context(|| format!("cannot use {name}"))?;
    Ok((format!("{name} becomes a filter of {} instructions", filter.len()), notes))
}

/// Version of the running kernel; of an unknown one no rule with `minKernel` applies.
fn running_kernel() -> Kernel {
    let name = rustix::system::uname();
    name.release().to_str().ok().and_then(parse::version).unwrap_or_default()
}

#[cfg(test)]
mod tests;
