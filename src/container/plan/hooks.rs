//! Hooks of the site.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>

use crate::hook::{glibc, mpi, slurm, ssh};
use crate::site::config::Hook;
use std::path::Path;

/// A hook of the site, and whether it has anything to do.
#[derive(Debug, Clone)]
pub struct PlannedHook {
    /// Stage, program, arguments, environment and time-out.
    pub hook: Hook,
    /// True if a hook of this engine with that name would do nothing. Another program may
    /// have the same name, so the executor compares the files.
    pub is_idle: bool,
}

/// Hooks of this engine that do nothing unless an annotation asks for them.
const IDLE_UNLESS_REQUESTED: [(&str, &str); 4] = [
    ("glibc_hook", glibc::ENABLED),
    ("mpi_hook", mpi::ENABLED),
    ("slurm_global_sync_hook", slurm::ENABLED),
    ("ssh_hook", ssh::ENABLED),
];

/// Plans the hooks of `site` for a container with the annotations `requests`.
#[must_use]
pub fn plan(site: &[Hook], requests: &[&str]) -> Vec<PlannedHook> {
    let planned =
        |hook: &Hook| PlannedHook { hook: hook.clone(), is_idle: is_idle(hook, requests) };
    site.iter().map(planned).collect()
}

fn is_idle(hook: &Hook, requests: &[&str]) -> bool {
    // The first argument, if there is one, is the name of the applet.
    let name = hook.args.first().map_or(hook.path.as_path(), Path::new).file_name();
    IDLE_UNLESS_REQUESTED.iter().any(|(known, annotation)| {
        name.is_some_and(|name| name == *known) && !requests.contains(annotation)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_of_the_engine_are_idle_unless_requested() {
        let hook = |path: &str, args: &[&str]| Hook {
            path: path.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Hook::default()
        };
        let hooks = [
            hook("/x/ssh_hook", &[]),
            hook("/x/timestamp_hook", &[]),
            // The name that it is called by decides.
            hook("/x/ssh_hook", &["timestamp_hook"]),
            hook("/x/sarusbox", &["ssh_hook"]),
        ];
        let idle =
            |requests| plan(&hooks, requests).iter().map(|one| one.is_idle).collect::<Vec<_>>();
        assert_eq!(idle(&[]), [true, false, false, true]);
        assert_eq!(idle(&["com.hooks.ssh.enabled"]), [false; 4]);
    }
}
