//! Cgroup of the container: the caller's, or one below it, in which the limits of the job hold.

use super::cgroups::{self, MOUNT_POINT, hierarchy, membership};
use crate::container::run::FAILED;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::process::pidfd::Process;
use rustix::fs::{Mode, OFlags};

/// Prepares for a runtime that will make a cgroup `id`, and returns its `linux.cgroupsPath`: `None`
/// in version 1, where runc makes one below the caller's in each hierarchy, and one path would not
/// do for all. In version 2 it would make one beside the caller's, whose limits do not hold there.
///
/// # Errors
/// If the mount of the hierarchy does not show the cgroup of this process.
pub fn prepare(id: &str) -> Result<Option<String>> {
    if !cgroups::is_unified() {
        return Ok(None);
    }
    let (mounts, own) = (cgroups::mountinfo(), cgroups::memberships(None));
    let path = |name| {
        path_below_own(&mounts, &own, name).ok_or_else(|| {
            let cause = format!("{MOUNT_POINT} does not show that");
            Error::caused_by("cannot keep the container in the caller's cgroup", cause)
        })
    };
    if let Err(error) = hide_subtree_control(&path("cgroup.subtree_control")?) {
        // The limits hold all the same.
        log::warn("runtime", &format!("cannot keep the type of the caller's cgroup: {error}"));
    }
    path(id).map(Some)
}

/// Hides `control` of the own cgroup in this mount namespace. A runtime enables all controllers in
/// it; and a cgroup of version 2 with processes and with controllers for those below it becomes a
/// threaded domain, in which the workload manager can make no cgroups.
fn hide_subtree_control(control: &str) -> Result<()> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("cannot open {path}"))
    };
    let (null, control) = (open("/dev/null")?, open(&format!("{MOUNT_POINT}{control}"))?);
    mount::bind(null, control, Restrictions::default())
}

/// Path of a cgroup `id` below the one in the text `own`, relative to the mount point.
fn path_below_own(mounts: &str, own: &str, id: &str) -> Option<String> {
    let mut mounts = mounts.lines().rev().filter_map(hierarchy);
    let (_, root, _) =
        mounts.find(|(point, _, options)| *point == MOUNT_POINT && options.is_none())?;
    let (_, own) = own.lines().filter_map(membership).find(|(names, _)| names.is_empty())?;
    let below = own.strip_prefix(root.trim_end_matches('/'))?;
    // Not a sibling whose name starts with that of the root, nor a place above the root of this
    // cgroup namespace (`/..`).
    let is_inside = (below.is_empty() || below.starts_with('/')) && !below.starts_with("/..");
    is_inside.then(|| format!("{}/{id}", below.trim_end_matches('/')))
}

/// Insists that `program` is in the cgroups of this process, or below them. One that has ended, whose
/// cgroups nobody knows, is accepted.
///
/// # Errors
/// If the program is elsewhere, or its cgroups cannot be read.
pub fn verify(program: &Process) -> Result<()> {
    let theirs = cgroups::memberships(Some(program.pid()));
    let own = cgroups::memberships(None);
    match outside(&theirs, &own) {
        Some((name, path)) if !program.is_ending() => Err(Error::new(format!(
            "cannot run outside of the caller's cgroup: the OCI runtime left {path} of hierarchy \
             '{name}'"
        ))
        .with_hint("limits of the job would not hold: use another OCI runtime")
        .with_exit_code(FAILED)),
        _ => Ok(()),
    }
}

/// First hierarchy of `own` in which `theirs` is neither the same cgroup nor one below it.
fn outside<'a>(theirs: &str, own: &'a str) -> Option<(&'a str, &'a str)> {
    let is_inside = |(names, own): &(&str, &str)| {
        let path = theirs.lines().filter_map(membership).find(|(name, _)| name == names);
        let rest = path.and_then(|(_, path)| path.strip_prefix(own.trim_end_matches('/')));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    own.lines().filter_map(membership).find(|membership| !is_inside(membership))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_outside_of_the_callers_is_found() {
        for (theirs, expected) in [
            ("3:cpu:/a\n0::/job/task", None),
            ("3:cpu:/a/container-x\n0::/job/task/container-x", None),
            ("3:cpu:/a\n0::/job/container-x", Some(("", "/job/task"))),
            ("3:cpu:/a\n0::/job/tasks", Some(("", "/job/task"))),
            ("3:cpu:/\n0::/job/task", Some(("cpu", "/a"))),
            ("0::/job/task", Some(("cpu", "/a"))),
            ("", Some(("cpu", "/a"))),
        ] {
            assert_eq!(outside(theirs, "3:cpu:/a\n0::/job/task\n"), expected, "{theirs}");
        }
        assert_eq!(outside("0::/x", "0::/"), None);
    }

    #[test]
    fn the_path_is_below_the_callers_cgroup() {
        let v2 = "36 25 0:31 /job /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        for (root, own, expected) in [
            ("/", "/job/task", Some("/job/task/x")),
            ("/", "/", Some("/x")),
            ("/job", "/job/task", Some("/task/x")),
            ("/job", "/job", Some("/x")),
            ("/job", "/jobs/task", None),
            ("/", "/../task", None),
        ] {
            let mounts = v2.replace("/job", root);
            let found = path_below_own(&mounts, &format!("0::{own}\n"), "x");
            assert_eq!(found.as_deref(), expected, "{root} {own}");
        }
    }
}
