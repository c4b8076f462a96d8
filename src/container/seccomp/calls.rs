//! Names and numbers of the system calls of this architecture, up to Linux 6.17.
//!
//! One text for each architecture: a list of pairs would take five times the bytes in a
//! position-independent program, which needs a relocation (24 bytes) for each name.

/// System calls of x86-64 in the order of their numbers (arch/x86/entry/syscalls/syscall_64.tbl). A
/// number in the list is that of the next name. The mark before a name is its [`Standing`] in the
/// built-in profile.
const X86_64: &str = "\
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction \
    rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield \
    mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer \
    getpid sendfile ?socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen \
    getsockname getpeername socketpair setsockopt getsockopt ?clone fork vfork execve exit wait4 kill \
    uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate \
    ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod \
    fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid \
    -syslog getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid \
    getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget \
    capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod -uselib \
    ?personality -ustat statfs fstatfs -sysfs getpriority setpriority sched_setparam sched_getparam \
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min \
    sched_rr_get_interval mlock munlock mlockall munlockall -vhangup modify_ldt -pivot_root -_sysctl \
    prctl arch_prctl adjtimex setrlimit -chroot sync -acct -settimeofday -mount -umount2 -swapon \
    -swapoff -reboot -sethostname -setdomainname -iopl -ioperm -create_module -init_module \
    -delete_module -get_kernel_syms -query_module -quotactl -nfsservctl -getpmsg -putpmsg -afs_syscall \
    -tuxcall -security gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr \
    listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex \
    sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit \
    io_cancel get_thread_area -lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages \
    getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime \
    timer_gettime timer_getoverrun timer_delete -clock_settime clock_gettime clock_getres \
    clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes -vserver mbind set_mempolicy \
    get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr -kexec_load \
    waitid -add_key -request_key -keyctl ioprio_set ioprio_get inotify_init inotify_add_watch \
    inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat \
    renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll -unshare set_robust_list \
    get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd \
    timerfd_create eventfd fallocate timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 \
    epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open recvmmsg \
    -fanotify_init fanotify_mark prlimit64 name_to_handle_at -open_by_handle_at clock_adjtime syncfs \
    sendmmsg -setns getcpu process_vm_readv process_vm_writev kcmp -finit_module sched_setattr \
    sched_getattr renameat2 seccomp getrandom memfd_create -kexec_file_load -bpf execveat -userfaultfd \
    membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx \
    io_pgetevents rseq uretprobe 424 pidfd_send_signal -io_uring_setup -io_uring_enter \
    -io_uring_register -open_tree -move_mount -fsopen -fsconfig -fsmount -fspick pidfd_open ?clone3 \
    close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 -mount_setattr -quotactl_fd \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease \
    futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait \
    futex_requeue statmount listmount -lsm_get_self_attr -lsm_set_self_attr -lsm_list_modules mseal \
    setxattrat getxattrat listxattrat removexattrat -open_tree_attr -file_getattr -file_setattr";

/// System calls of aarch64, in the same form (include/uapi/asm-generic/unistd.h).
const AARCH64: &str = "\
    io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr \
    fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd \
    -lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 \
    inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat \
    symlinkat linkat renameat -umount2 -mount -pivot_root -nfsservctl statfs fstatfs truncate ftruncate \
    fallocate faccessat chdir fchdir -chroot fchmod fchmodat fchownat fchown openat close -vhangup pipe2 \
    -quotactl getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 \
    ppoll signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range \
    timerfd_create timerfd_settime timerfd_gettime utimensat -acct capget capset ?personality exit \
    exit_group waitid set_tid_address -unshare futex set_robust_list get_robust_list nanosleep getitimer \
    setitimer -kexec_load -init_module -delete_module timer_create timer_gettime timer_getoverrun \
    timer_settime timer_delete -clock_settime clock_gettime clock_getres clock_nanosleep -syslog ptrace \
    sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity \
    sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
    restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask \
    rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn setpriority getpriority -reboot setregid \
    setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid setfsgid times setpgid \
    getpgid getsid setsid getgroups setgroups uname -sethostname -setdomainname getrlimit setrlimit \
    getrusage umask prctl getcpu gettimeofday -settimeofday adjtimex getpid getppid getuid geteuid \
    getgid getegid gettid sysinfo mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr \
    msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt ?socket \
    socketpair bind listen accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt \
    shutdown sendmsg recvmsg readahead brk munmap mremap -add_key -request_key -keyctl ?clone execve \
    mmap fadvise64 -swapon -swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise \
    remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo \
    perf_event_open accept4 recvmmsg 260 wait4 prlimit64 -fanotify_init fanotify_mark name_to_handle_at \
    -open_by_handle_at clock_adjtime syncfs -setns sendmmsg process_vm_readv process_vm_writev kcmp \
    -finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create -bpf execveat \
    -userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free \
    statx io_pgetevents rseq -kexec_file_load 424 pidfd_send_signal -io_uring_setup -io_uring_enter \
    -io_uring_register -open_tree -move_mount -fsopen -fsconfig -fsmount -fspick pidfd_open ?clone3 \
    close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 -mount_setattr -quotactl_fd \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease \
    futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait \
    futex_requeue statmount listmount -lsm_get_self_attr -lsm_set_self_attr -lsm_list_modules mseal \
    setxattrat getxattrat listxattrat removexattrat -open_tree_attr -file_getattr -file_setattr";

/// System calls of the architecture that this program is built for.
const NATIVE: &str = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };

/// Decision of the built-in profile over a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No mark.
    Allowed,
    /// Mark `-`.
    Refused,
    /// Mark `?`: decided by a rule of its own.
    Ruled,
}

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Name as in its manual page.
    pub name: &'static str,
    /// Number, the member `nr` of `struct seccomp_data`.
    pub number: u32,
    /// Decision of the built-in profile.
    pub standing: Standing,
}

/// All system calls, in the order of their numbers.
pub fn all() -> impl Iterator<Item = Call> {
    of_table(NATIVE)
}

fn of_table(table: &'static str) -> impl Iterator<Item = Call> {
    let mut next = 0;
    table.split_ascii_whitespace().filter_map(move |word| {
        if word.starts_with(|first: char| first.is_ascii_digit())
            && let Ok(number) = word.parse()
        {
            next = number;
            return None;
        }
        let (standing, name) = match word.split_at_checked(1) {
            Some(("-", name)) => (Standing::Refused, name),
            Some(("?", name)) => (Standing::Ruled, name),
            _ => (Standing::Allowed, word),
        };
        let number = next;
        next += 1;
        Some(Call { name, number, standing })
    })
}

/// Index of the numbers by name.
#[derive(Debug)]
pub struct Numbers(Vec<(&'static str, u32)>);

impl Numbers {
    /// Sorts the names.
    pub fn new() -> Self {
        let mut numbers: Vec<_> = all().map(|call| (call.name, call.number)).collect();
        numbers.sort_unstable();
        Self(numbers)
    }

    /// Number of the system call `name`; `None` for names of other architectures and later kernels.
    pub fn get(&self, name: &str) -> Option<u32> {
        let at = self.0.binary_search_by_key(&name, |(known, _)| known).ok()?;
        self.0.get(at).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Compares the numbers of names with those of libc.
    macro_rules! same_as_libc {
        ($($name:ident $constant:ident),* $(,)?) => {
            [$((stringify!($name), libc::$constant as u32)),*]
        };
    }

    #[test]
    fn numbers_are_those_of_libc() {
        let numbers = Numbers::new();
        for (name, number) in same_as_libc![
            read SYS_read, write SYS_write, close SYS_close, fstat SYS_fstat, lseek SYS_lseek, mmap
            SYS_mmap, mprotect SYS_mprotect, munmap SYS_munmap, brk SYS_brk, rt_sigaction
            SYS_rt_sigaction, rt_sigprocmask SYS_rt_sigprocmask, rt_sigreturn SYS_rt_sigreturn,
            ioctl SYS_ioctl, pread64 SYS_pread64, pwrite64 SYS_pwrite64, readv SYS_readv, writev
            SYS_writev, sched_yield SYS_sched_yield, mremap SYS_mremap, msync SYS_msync, mincore
            SYS_mincore, madvise SYS_madvise, shmget SYS_shmget, shmat SYS_shmat, shmctl SYS_shmctl,
            dup SYS_dup, nanosleep SYS_nanosleep, getitimer SYS_getitimer, setitimer SYS_setitimer,
            getpid SYS_getpid, sendfile SYS_sendfile, socket SYS_socket, connect SYS_connect, accept
            SYS_accept, sendto SYS_sendto, recvfrom SYS_recvfrom, sendmsg SYS_sendmsg, recvmsg
            SYS_recvmsg, shutdown SYS_shutdown, bind SYS_bind, listen SYS_listen, getsockname
            SYS_getsockname, getpeername SYS_getpeername, socketpair SYS_socketpair, setsockopt
            SYS_setsockopt, getsockopt SYS_getsockopt, clone SYS_clone, execve SYS_execve, exit
            SYS_exit, wait4 SYS_wait4, kill SYS_kill, uname SYS_uname, semget SYS_semget, semop
            SYS_semop, semctl SYS_semctl, shmdt SYS_shmdt, msgget SYS_msgget, msgsnd SYS_msgsnd,
            msgrcv SYS_msgrcv, msgctl SYS_msgctl, fcntl SYS_fcntl, flock SYS_flock, fsync SYS_fsync,
            fdatasync SYS_fdatasync, truncate SYS_truncate, ftruncate SYS_ftruncate, getcwd
            SYS_getcwd, chdir SYS_chdir, fchdir SYS_fchdir, fchmod SYS_fchmod, fchown SYS_fchown,
            umask SYS_umask, gettimeofday SYS_gettimeofday, getrlimit SYS_getrlimit, getrusage
            SYS_getrusage, sysinfo SYS_sysinfo, times SYS_times, ptrace SYS_ptrace, getuid
            SYS_getuid, syslog SYS_syslog, getgid SYS_getgid, setuid SYS_setuid, setgid SYS_setgid,
            geteuid SYS_geteuid, getegid SYS_getegid, setpgid SYS_setpgid, getppid SYS_getppid,
            setsid SYS_setsid, setreuid SYS_setreuid, setregid SYS_setregid, getgroups
            SYS_getgroups, setgroups SYS_setgroups, setresuid SYS_setresuid, getresuid
            SYS_getresuid, setresgid SYS_setresgid, getresgid SYS_getresgid, getpgid SYS_getpgid,
            setfsuid SYS_setfsuid, setfsgid SYS_setfsgid, getsid SYS_getsid, capget SYS_capget,
            capset SYS_capset, rt_sigpending SYS_rt_sigpending, rt_sigtimedwait SYS_rt_sigtimedwait,
            rt_sigqueueinfo SYS_rt_sigqueueinfo, rt_sigsuspend SYS_rt_sigsuspend, sigaltstack
            SYS_sigaltstack, personality SYS_personality, statfs SYS_statfs, fstatfs SYS_fstatfs,
            getpriority SYS_getpriority, setpriority SYS_setpriority, sched_setparam
            SYS_sched_setparam, sched_getparam SYS_sched_getparam, sched_setscheduler
            SYS_sched_setscheduler, sched_getscheduler SYS_sched_getscheduler,
            sched_get_priority_max SYS_sched_get_priority_max, sched_get_priority_min
            SYS_sched_get_priority_min, sched_rr_get_interval SYS_sched_rr_get_interval, mlock
            SYS_mlock, munlock SYS_munlock, mlockall SYS_mlockall, munlockall SYS_munlockall,
            vhangup SYS_vhangup, pivot_root SYS_pivot_root, prctl SYS_prctl, adjtimex SYS_adjtimex,
            setrlimit SYS_setrlimit, chroot SYS_chroot, sync SYS_sync, acct SYS_acct, settimeofday
            SYS_settimeofday, mount SYS_mount, umount2 SYS_umount2, swapon SYS_swapon, swapoff
            SYS_swapoff, reboot SYS_reboot, sethostname SYS_sethostname, setdomainname
            SYS_setdomainname, init_module SYS_init_module, delete_module SYS_delete_module,
            quotactl SYS_quotactl, nfsservctl SYS_nfsservctl, gettid SYS_gettid, readahead
            SYS_readahead, setxattr SYS_setxattr, lsetxattr SYS_lsetxattr, fsetxattr SYS_fsetxattr,
            getxattr SYS_getxattr, lgetxattr SYS_lgetxattr, fgetxattr SYS_fgetxattr, listxattr
            SYS_listxattr, llistxattr SYS_llistxattr, flistxattr SYS_flistxattr, removexattr
            SYS_removexattr, lremovexattr SYS_lremovexattr, fremovexattr SYS_fremovexattr, tkill
            SYS_tkill, futex SYS_futex, sched_setaffinity SYS_sched_setaffinity, sched_getaffinity
            SYS_sched_getaffinity, io_setup SYS_io_setup, io_destroy SYS_io_destroy, io_getevents
            SYS_io_getevents, io_submit SYS_io_submit, io_cancel SYS_io_cancel, lookup_dcookie
            SYS_lookup_dcookie, remap_file_pages SYS_remap_file_pages, getdents64 SYS_getdents64,
            set_tid_address SYS_set_tid_address, restart_syscall SYS_restart_syscall, semtimedop
            SYS_semtimedop, fadvise64 SYS_fadvise64, timer_create SYS_timer_create, timer_settime
            SYS_timer_settime, timer_gettime SYS_timer_gettime, timer_getoverrun
            SYS_timer_getoverrun, timer_delete SYS_timer_delete, clock_settime SYS_clock_settime,
            clock_gettime SYS_clock_gettime, clock_getres SYS_clock_getres, clock_nanosleep
            SYS_clock_nanosleep, exit_group SYS_exit_group, epoll_ctl SYS_epoll_ctl, tgkill
            SYS_tgkill, mbind SYS_mbind, set_mempolicy SYS_set_mempolicy, get_mempolicy
            SYS_get_mempolicy, mq_open SYS_mq_open, mq_unlink SYS_mq_unlink, mq_timedsend
            SYS_mq_timedsend, mq_timedreceive SYS_mq_timedreceive, mq_notify SYS_mq_notify,
            mq_getsetattr SYS_mq_getsetattr, kexec_load SYS_kexec_load, waitid SYS_waitid, add_key
            SYS_add_key, request_key SYS_request_key, keyctl SYS_keyctl, ioprio_set SYS_ioprio_set,
            ioprio_get SYS_ioprio_get, inotify_add_watch SYS_inotify_add_watch, inotify_rm_watch
            SYS_inotify_rm_watch, migrate_pages SYS_migrate_pages, openat SYS_openat, mkdirat
            SYS_mkdirat, mknodat SYS_mknodat, fchownat SYS_fchownat, newfstatat SYS_newfstatat,
            unlinkat SYS_unlinkat, renameat SYS_renameat, linkat SYS_linkat, symlinkat
            SYS_symlinkat, readlinkat SYS_readlinkat, fchmodat SYS_fchmodat, faccessat
            SYS_faccessat, pselect6 SYS_pselect6, ppoll SYS_ppoll, unshare SYS_unshare,
            set_robust_list SYS_set_robust_list, get_robust_list SYS_get_robust_list, splice
            SYS_splice, tee SYS_tee, sync_file_range SYS_sync_file_range, vmsplice SYS_vmsplice,
            move_pages SYS_move_pages, utimensat SYS_utimensat, epoll_pwait SYS_epoll_pwait,
            timerfd_create SYS_timerfd_create, fallocate SYS_fallocate, timerfd_settime
            SYS_timerfd_settime, timerfd_gettime SYS_timerfd_gettime, accept4 SYS_accept4, signalfd4
            SYS_signalfd4, eventfd2 SYS_eventfd2, epoll_create1 SYS_epoll_create1, dup3 SYS_dup3,
            pipe2 SYS_pipe2, inotify_init1 SYS_inotify_init1, preadv SYS_preadv, pwritev
            SYS_pwritev, rt_tgsigqueueinfo SYS_rt_tgsigqueueinfo, perf_event_open
            SYS_perf_event_open, recvmmsg SYS_recvmmsg, fanotify_init SYS_fanotify_init,
            fanotify_mark SYS_fanotify_mark, prlimit64 SYS_prlimit64, name_to_handle_at
            SYS_name_to_handle_at, open_by_handle_at SYS_open_by_handle_at, clock_adjtime
            SYS_clock_adjtime, syncfs SYS_syncfs, sendmmsg SYS_sendmmsg, setns SYS_setns, getcpu
            SYS_getcpu, process_vm_readv SYS_process_vm_readv, process_vm_writev
            SYS_process_vm_writev, kcmp SYS_kcmp, finit_module SYS_finit_module, sched_setattr
            SYS_sched_setattr, sched_getattr SYS_sched_getattr, renameat2 SYS_renameat2, seccomp
            SYS_seccomp, getrandom SYS_getrandom, memfd_create SYS_memfd_create, bpf SYS_bpf,
            execveat SYS_execveat, userfaultfd SYS_userfaultfd, membarrier SYS_membarrier, mlock2
            SYS_mlock2, copy_file_range SYS_copy_file_range, preadv2 SYS_preadv2, pwritev2
            SYS_pwritev2, pkey_mprotect SYS_pkey_mprotect, pkey_alloc SYS_pkey_alloc, pkey_free
            SYS_pkey_free, statx SYS_statx, rseq SYS_rseq, pidfd_send_signal SYS_pidfd_send_signal,
            io_uring_setup SYS_io_uring_setup, io_uring_enter SYS_io_uring_enter, io_uring_register
            SYS_io_uring_register, open_tree SYS_open_tree, move_mount SYS_move_mount, fsopen
            SYS_fsopen, fsconfig SYS_fsconfig, fsmount SYS_fsmount, fspick SYS_fspick, pidfd_open
            SYS_pidfd_open, clone3 SYS_clone3, close_range SYS_close_range, openat2 SYS_openat2,
            pidfd_getfd SYS_pidfd_getfd, faccessat2 SYS_faccessat2, process_madvise
            SYS_process_madvise, epoll_pwait2 SYS_epoll_pwait2, mount_setattr SYS_mount_setattr,
            quotactl_fd SYS_quotactl_fd, landlock_create_ruleset SYS_landlock_create_ruleset,
            landlock_add_rule SYS_landlock_add_rule, landlock_restrict_self
            SYS_landlock_restrict_self, memfd_secret SYS_memfd_secret, process_mrelease
            SYS_process_mrelease, futex_waitv SYS_futex_waitv, set_mempolicy_home_node
            SYS_set_mempolicy_home_node, mseal SYS_mseal
        ] {
            assert_eq!(numbers.get(name), Some(number), "{name}");
        }
        assert_eq!(numbers.get("open_the_door"), None);
        assert_eq!(numbers.get(""), None);
    }

    #[test]
    fn numbers_after_a_gap_are_right_on_both_architectures() {
        for (table, name, number) in [
            (X86_64, "pidfd_send_signal", 424),
            (X86_64, "uretprobe", 335),
            (X86_64, "rseq", 334),
            (X86_64, "file_setattr", 469),
            (AARCH64, "io_setup", 0),
            (AARCH64, "wait4", 260),
            (AARCH64, "rseq", 293),
            (AARCH64, "pidfd_send_signal", 424),
            (AARCH64, "file_setattr", 469),
        ] {
            let call = of_table(table).find(|call| call.name == name).unwrap();
            assert_eq!(call.number, number, "{name}");
        }
    }

    #[test]
    fn a_call_has_the_same_standing_on_both_architectures() {
        let other: BTreeMap<_, _> =
            of_table(AARCH64).map(|call| (call.name, call.standing)).collect();
        let mut common = 0;
        for call in of_table(X86_64) {
            if let Some(standing) = other.get(call.name) {
                assert_eq!(*standing, call.standing, "{}", call.name);
                common += 1;
            }
        }
        assert!(common > 250, "{common}");
    }
}
