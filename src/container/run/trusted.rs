//! Files of the installation that root uses in a run: verified, and opened before anything is done.
//! Manual, "Security related features and considerations".

use crate::container::plan::Plan;
use crate::container::seccomp::{self, Profile};
use crate::error::Result;
use crate::site::trust::Verifier;
use rustix::fd::OwnedFd;

/// The verified files, opened with `O_PATH`.
#[derive(Debug)]
pub struct Trusted {
    /// The site's init program, if it has its own.
    pub init: Option<OwnedFd>,
    /// Directory over which bundles are mounted.
    pub bundle_dir: OwnedFd,
    /// Hooks in the order of the plan; `None` for programs of the image.
    pub hooks: Vec<Option<OwnedFd>>,
    /// Seccomp profile of the container; `None` for no filter.
    pub seccomp: Option<Profile>,
}

/// Verifies all files of the plan that root uses. sarus.json itself was verified when it was read.
///
/// # Errors
/// If a file does not exist, or users could change it.
pub fn check(plan: &Plan) -> Result<Trusted> {
    let site = &plan.site;
    let verifier = Verifier::new(site.checks)?;
    verifier.directory(&site.prefix_dir)?;
    let hooks = plan.hooks.iter().map(|planned| &planned.hook);
    let hooks =
        hooks.map(|hook| hook.is_of_host().then(|| verifier.program(&hook.path)).transpose());
    let trusted = Trusted {
        hooks: hooks.collect::<Result<_>>()?,
        init: site.init_path.as_deref().map(|path| verifier.program(path)).transpose()?,
        bundle_dir: verifier.tree(&site.bundle_dir)?,
        seccomp: seccomp::load(&site.seccomp_profile)?,
    };
    for openssh in &site.openssh {
        // Without it, only runs with --ssh fail.
        if verifier.find(openssh)?.is_some() {
            verifier.tree(openssh)?;
        }
    }
    Ok(trusted)
}
