//! PID namespace of a container: a new one, or the host's.
//!
//! MPI libraries find the other ranks of a node by their PIDs: they copy from process to process by
//! process_vm_readv(2) and look for peers in `/proc`. With a PID namespace for each rank, the same
//! number would stand for different processes.

use crate::error::{Error, Result};
use crate::sys::proc::mountinfo::MountInfo;
use std::ffi::OsString;
use std::str::FromStr;

/// The PID namespace of a container. See pid_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidNamespace {
    /// A new one: the program is process 1 and sees no process of the host.
    Private,
    /// That of the host.
    Host,
}

impl FromStr for PidNamespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(Error::new(format!("invalid PID namespace '{text}'")).with_hint(
                "use --pid=private for process numbers of the container's own, --pid=host for \
                       those of the host",
            )),
        }
    }
}

/// Variables in which launchers pass the number of processes that they start together.
const COUNTS: [&str; 6] = [
    "SLURM_STEP_NUM_TASKS",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PALS_SIZE",
    "FLUX_JOB_SIZE",
];

const NO_SUBREAPER: &str = "this kernel has no child subreapers, so each rank has process numbers of \
    its own, which some MPI libraries do not support (--pid=private confirms that)";

impl PidNamespace {
    /// Namespace that suits the job: the host's if `environment` shows that a launcher started several
    /// processes together.
    #[must_use]
    pub fn for_job(environment: &[(OsString, OsString)]) -> Self {
        let count = |value: &OsString| value.to_str()?.parse::<u64>().ok();
        let is_several = |(name, value): &(OsString, OsString)| {
            COUNTS.iter().any(|known| name == known) && count(value).is_some_and(|count| count > 1)
        };
        if environment.iter().any(is_several) { Self::Host } else { Self::Private }
    }

    /// Namespace for a container: as `requested`, else a new one with `ssh`, else as suits the job.
    /// The warning tells of a kernel that cannot do so. `can_adopt_orphans` is called only if the
    /// answer counts.
    #[must_use]
    pub fn choose(
        requested: Option<Self>,
        ssh: bool,
        environment: &[(OsString, OsString)],
        can_adopt_orphans: impl FnOnce() -> bool,
    ) -> (Self, Option<&'static str>) {
        // sshd and its sessions must end with the container; sessions are not ranks.
        if ssh {
            return (Self::Private, None);
        }
        match requested.unwrap_or_else(|| Self::for_job(environment)) {
            Self::Host if requested.is_none() && !can_adopt_orphans() => {
                (Self::Private, Some(NO_SUBREAPER))
            }
            chosen => (chosen, None),
        }
    }
}

/// Mount options of the host's `/proc` that hide processes (proc(5), `hidepid`), from the text of
/// `/proc/self/mountinfo`: a new mount without them would show all.
///
/// # Errors
/// If no `proc` is mounted on `/proc`.
pub fn restrictions_of_proc(mountinfo: &str) -> Result<Vec<String>> {
    let options = mountinfo.lines().rev().find_map(|line| {
        let mount = MountInfo::parse(line.as_bytes())?;
        let is_proc = mount.mount_point == b"/proc" && mount.fs_type == b"proc";
        is_proc.then_some(mount.super_options)
    });
    let options = options.and_then(|options| std::str::from_utf8(options).ok());
    let options =
        options.ok_or_else(|| Error::new("cannot find how the host's /proc is mounted"))?;
    let hides =
        |option: &&str| ["hidepid=", "gid=", "subset="].iter().any(|o| option.starts_with(o));
    Ok(options.split(',').filter(hides).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_of_a_launcher_share_the_hosts_numbers() {
        for (name, value, expected) in [
            ("PMI_SIZE", "4", PidNamespace::Host),
            ("SLURM_STEP_NUM_TASKS", "2", PidNamespace::Host),
            ("PMI_SIZE", "1", PidNamespace::Private),
            ("PMI_SIZE", "", PidNamespace::Private),
            ("PMI_SIZE", "-2", PidNamespace::Private),
            // The shell of an allocation is alone, however large that is.
            ("SLURM_NTASKS", "64", PidNamespace::Private),
            ("MY_PMI_SIZE", "4", PidNamespace::Private),
        ] {
            assert_eq!(PidNamespace::for_job(&[(name.into(), value.into())]), expected, "{name}");
        }
    }

    #[test]
    fn a_request_counts_before_the_job_and_ssh_before_both() {
        use PidNamespace::{Host, Private};
        let job = [("PMI_SIZE".into(), "4".into())];
        for (requested, ssh, environment, can_adopt, expected) in [
            (None, false, &[][..], true, Private),
            (None, false, &job, true, Host),
            (None, true, &job, true, Private),
            (Some(Private), false, &job, true, Private),
            (Some(Host), false, &[], true, Host),
            // spawn_supervised tells why not.
            (Some(Host), false, &[], false, Host),
        ] {
            let chosen = PidNamespace::choose(requested, ssh, environment, || can_adopt);
            assert_eq!(chosen, (expected, None), "{requested:?} {ssh}");
        }
        let (chosen, warning) = PidNamespace::choose(None, false, &job, || false);
        assert!(chosen == Private && warning.is_some());
    }

    #[test]
    fn what_the_host_hides_stays_hidden() {
        let mounts = |options: &str| {
            format!(
                "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                 22 20 0:5 / /proc rw,nosuid shared:5 - proc proc {options}\n\
                 23 22 0:6 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw,gid=7\n"
            )
        };
        let of = |options| restrictions_of_proc(&mounts(options)).unwrap();
        assert_eq!(of("rw"), [""; 0]);
        assert_eq!(of("rw,gid=42,hidepid=invisible"), ["gid=42", "hidepid=invisible"]);
        assert_eq!(of("rw,hidepid=2,subset=pid"), ["hidepid=2", "subset=pid"]);
        assert!(restrictions_of_proc("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n").is_err());
    }
}
