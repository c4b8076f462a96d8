//! Seccomp filter for the OCI runtime: it cannot change the owner of stdin, stdout and stderr.
//!
//! crun gives the three to the user of the container, whatever they are: with
//! `sarus run ... </etc/passwd` that would be a file of root's, which the user may only read. crun
//! continues when it is refused. runc hands on pipes of its own. See seccomp(2).

use rustix::fd::RawFd;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("AUDIT_ARCH of this architecture is missing here");

/// `arch` of `struct seccomp_data`, AUDIT_ARCH_*: the numbers of system calls depend on it.
const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// Offset of the lower half of the first argument in `struct seccomp_data`.
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const STDERR: RawFd = 2;

/// Makes fchown(2) of descriptors 0, 1 and 2 fail with EPERM, in this process and its descendants. Allows
/// everything else.
///
/// # Errors
/// If the kernel has no such filters (before Linux 3.5), or this process is not root.
pub fn deny_stdio_fchown() -> std::io::Result<()> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let jump = |test, value, yes, no| step(libc::BPF_JMP | test | libc::BPF_K, value, yes, no);
    let answer = |action| step(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    let mut steps = [
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, NATIVE, 0, 5),
        load(NUMBER),
        jump(libc::BPF_JEQ, libc::SYS_fchown as u32, 0, 3),
        load(FIRST_ARGUMENT),
        jump(libc::BPF_JGT, STDERR as u32, 1, 0),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // Without the flag (Linux 4.17), kernels before 5.16 slow down all that runs under a filter.
    for flags in [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0] {
        // SAFETY: the kernel copies the program, which lives until the call is over.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if answer == 0 {
            return Ok(());
        }
    }
    // SAFETY: as above; this is how it was called before Linux 3.17.
    let answer =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn step(code: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
}
