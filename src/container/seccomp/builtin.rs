//! The built-in profile: that of Docker and Podman for a process without capabilities, and beside
//! it the system calls by which programs of HPC systems work on their own processes.
//!
//! [`super::calls`] marks the system calls that are refused. The differences to Docker:
//!
//! * NUMA (`mbind`, `set_mempolicy`, `move_pages` and others), performance counters
//!   (`perf_event_open`), debuggers and shared memory of MPI (`ptrace`, `process_vm_readv`, `kcmp`,
//!   `pidfd_getfd`, `process_madvise`) are allowed. The kernel checks their permissions.
//! * `personality` takes ADDR_NO_RANDOMIZE, which debuggers and sanitizers set.

use super::calls::{self, Standing};
use super::profile::{Action, Comparison, Condition, Profile, Rule};

/// Flags of clone(2) that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID
/// and NEWNET. A user namespace would give capabilities, and with them most of the kernel's code.
const NAMESPACES: u64 = 0x7e02_0000;

/// Personalities that are allowed: PER_LINUX32, UNAME26 and ADDR_NO_RANDOMIZE, in any combination.
const PERSONALITIES: u64 = 0x0006_0008;

/// Argument of personality(2) that changes nothing and returns the current value.
const QUERY: u64 = 0xffff_ffff;

/// Address families of socket(2) that are allowed, a bit for each number: all with names but
/// AF_DECnet, AF_ECONET, AF_ATMSVC, AF_IRDA, AF_WANPIPE, AF_ISDN, AF_CAIF, AF_ALG and AF_VSOCK, whose
/// code is seldom used, or leads out of a virtual machine.
const FAMILIES: u64 = 0x3e9b_fd67_efff;

/// Makes the built-in profile.
pub fn profile() -> Profile {
    let calls: Vec<_> = calls::all().collect();
    let numbers = |fits: &dyn Fn(&&calls::Call) -> bool| -> Vec<u32> {
        calls.iter().filter(fits).map(|call| call.number).collect()
    };
    let named = |name| numbers(&|call| call.standing == Standing::Ruled && call.name == name);
    let allowed = numbers(&|call| call.standing == Standing::Allowed);
    let allow = |calls, conditions| Rule { calls, action: Action::ALLOW, conditions };
    Profile {
        default: Action::errno(libc::EPERM as u16),
        newest: allowed.last().copied(),
        rules: vec![
            allow(allowed, Vec::new()),
            allow(named("socket"), families()),
            allow(named("personality"), vec![equal(QUERY), without(!PERSONALITIES)]),
            allow(named("clone"), vec![without(NAMESPACES)]),
            // Its flags are in memory, which a filter cannot read. The C library falls back to clone.
            Rule {
                calls: named("clone3"),
                action: Action::errno(libc::ENOSYS as u16),
                conditions: Vec::new(),
            },
        ],
    }
}

fn equal(value: u64) -> Condition {
    Condition { value, ..Condition::default() }
}

/// The first argument has none of the bits of `mask`.
fn without(mask: u64) -> Condition {
    Condition { comparison: Comparison::MaskedEqual, value: mask, ..Condition::default() }
}

fn families() -> Vec<Condition> {
    let is_allowed = |family: &u64| FAMILIES >> family & 1 == 1;
    (0..u64::from(u64::BITS)).filter(is_allowed).map(equal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_those_of_docker() {
        let allowed: Vec<u64> = families().iter().map(|family| family.value).collect();
        let expected: Vec<u64> = (0..12)
            .chain(13..19)
            .chain([21, 22, 24])
            .chain(26..34)
            .chain([35, 36, 39])
            .chain(41..46)
            .collect();
        assert_eq!(allowed, expected);
    }
}
