//! Seccomp filters, seccomp(2): [`install`], and the filter for the OCI runtime: it cannot change the
//! owner of stdin, stdout and stderr.
//!
//! crun gives the three to the user of the container, whatever they are: with
//! `sarus run ... </etc/passwd` that would be a file of root's, which the user may only read. crun
//! continues when it is refused ([`deny_stdio_fchown`]). runc hands on pipes of its own.

use rustix::fd::RawFd;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("AUDIT_ARCH of this architecture is missing here");

/// Native value of the member `arch` of `struct seccomp_data` (AUDIT_ARCH_X86_64,
/// AUDIT_ARCH_AARCH64): with another value, numbers of system calls have other meanings.
pub const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

/// Offset of the member `nr` in `struct seccomp_data`.
pub const NUMBER: u32 = 0;
/// Offset of the member `arch`.
pub const ARCHITECTURE: u32 = 4;
/// Offset of the member `args`, six values of 64 bits.
pub const ARGUMENTS: u32 = 16;

/// Maximum number of instructions of a filter: BPF_MAXINSNS of linux/bpf_common.h.
pub const MAX_INSTRUCTIONS: usize = 4096;

const STDERR: RawFd = 2;

/// An instruction of classic BPF: `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation.
    pub code: u16,
    /// Number of instructions to skip if a test is true.
    pub jt: u8,
    /// Number of instructions to skip if a test is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const SockFilter,
}

/// Makes fchown(2) of descriptors 0, 1 and 2 fail with EPERM, in this process and its descendants. Allows
/// everything else.
///
/// # Errors
/// If the kernel has no such filters (before Linux 3.5), or this process is not root.
pub fn deny_stdio_fchown() -> std::io::Result<()> {
    let first_argument = ARGUMENTS + if cfg!(target_endian = "little") { 0 } else { 4 };
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let jump = |test, value, yes, no| step(libc::BPF_JMP | test | libc::BPF_K, value, yes, no);
    let answer = |action| step(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    install(&[
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, NATIVE, 0, 5),
        load(NUMBER),
        jump(libc::BPF_JEQ, libc::SYS_fchown as u32, 0, 3),
        load(first_argument),
        jump(libc::BPF_JGT, STDERR as u32, 1, 0),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Installs `filter` for this thread and all processes that come from it, for good. The thread has
/// set `no_new_privs`, or has CAP_SYS_ADMIN. Allocates nothing, so it can be called after fork(2).
///
/// # Errors
/// If the kernel refuses: EINVAL for an invalid or too long filter, and before Linux 3.5; EACCES
/// without `no_new_privs`.
pub fn install(filter: &[SockFilter]) -> std::io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let program = Program { len, filter: filter.as_ptr() };
    // Without the flag (Linux 4.17), kernels before 5.16 slow down all that runs under a filter.
    for flags in [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0] {
        // SAFETY: `Program` and `SockFilter` have the layout of sock_fprog and sock_filter. The
        // kernel reads `len` instructions at `filter`, a slice of that length that lives until the
        // call is over, and copies them.
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
    // SAFETY: as above; this is the call of kernels before 3.17.
    let answer =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn step(code: u32, value: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter { code: code as u16, jt: yes, jf: no, k: value }
}
