//! Which processes a container sees, and by which numbers: its own, or the host's.
//!
//! Ranks of one job that work on one node find each other by these numbers: MPI libraries copy from
//! process to process (process_vm_readv(2)) and look after their peers in `/proc`. In namespaces of
//! their own, every rank would be somebody else under the same number.

use crate::error::{Error, Result};
use crate::sys::proc::mountinfo::MountInfo;
use std::ffi::OsString;
use std::str::FromStr;

/// The PID namespace of a container. See pid_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidNamespace {
    /// One of its own: the program is process 1 and sees nothing of the host.
    Private,
    /// The host's.
    Host,
}

impl FromStr for PidNamespace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(Error::new(format!("'{text}' is no PID namespace")).with_hint(
                "--pid=private gives the container process numbers of its own, --pid=host \
                       those of the host",
            )),
        }
    }
}

/// What launchers call the number of processes that they start together.
const COUNTS: [&str; 6] = [
    "SLURM_STEP_NUM_TASKS",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PALS_SIZE",
    "FLUX_JOB_SIZE",
];

impl PidNamespace {
    /// The host's, if `environment` tells that a launcher started several processes together.
    #[must_use]
    pub fn for_job(environment: &[(OsString, OsString)]) -> Self {
        let count = |value: &OsString| value.to_str()?.parse::<u64>().ok();
        let is_several = |(name, value): &(OsString, OsString)| {
            COUNTS.iter().any(|known| name == known) && count(value).is_some_and(|count| count > 1)
        };
        if environment.iter().any(is_several) { Self::Host } else { Self::Private }
    }
}

/// What the host hides of its processes, as options of `proc` (proc(5), `hidepid`), from the text of
/// `/proc/self/mountinfo`: a new mount would show everything.
///
/// # Errors
/// When the host has no `/proc` there.
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
