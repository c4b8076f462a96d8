//! Resource limits, priority, scheduling policy, timer slack, CPU affinity and ignored signals of the
//! caller. Processes of root's (the engine, the OCI runtime, hooks) run without them: they would fail
//! half-way, dump core, or starve. The first process of the container gets hard limits and priority back
//! while it is still root's, by [`CallerLimits::apply_to`] in the last hook, and the rest by
//! [`CallerLimits::restore`] in `launch`. See getrlimit(2), sched(7), ioprio_set(2), prctl(2).

use crate::error::{Context, Error, Result};
use crate::sys::process::{ProcessId, signals};
use rustix::process::{Resource, getuid};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

/// RLIM_NLIMITS: the number of resources that have limits.
const RLIM_NLIMITS: usize = 16;

/// RLIM_INFINITY: no limit.
const NONE: u64 = libc::RLIM_INFINITY;

/// Soft limit of the stack, in bytes, to which the kernel lowers that of set-user-ID programs.
const STACK: u64 = 8 << 20;

/// Minimum soft limits of processes of root's.
const MINIMUM: [(u32, u64); 9] = [
    (Resource::Cpu as u32, NONE),
    (Resource::Fsize as u32, NONE),
    (Resource::Data as u32, NONE),
    (Resource::Stack as u32, STACK),
    (Resource::Nproc as u32, NONE),
    (Resource::Nofile as u32, 1024),
    (Resource::Memlock as u32, 8 << 20),
    (Resource::As as u32, NONE),
    (Resource::Rttime as u32, NONE),
];

/// Classes of ioprio_set(2), in the upper bits of the number: no class, real time.
const CLASS_NONE: i64 = 0;
const CLASS_REAL_TIME: i64 = 1;
const CLASS_SHIFT: u32 = 13;

/// Limits and scheduling of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerLimits {
    /// Soft and hard limit of each resource.
    resources: [(u64, u64); RLIM_NLIMITS],
    /// Scheduling policy, nice value and I/O priority, if [`take`](Self::take) changed them.
    policy: Option<i64>,
    nice: Option<i64>,
    io: Option<i64>,
    /// Timer slack in nanoseconds.
    slack: Option<i64>,
    /// Ignored signals, as bits from signal 1 on.
    ignored: Option<i64>,
    /// CPU affinity, as bits: some OCI runtimes reset it to the CPUs of a cgroup.
    processors: Vec<u64>,
}

impl CallerLimits {
    /// Records the limits and the priority of the caller, and lifts them from this process as far as it
    /// may: to raise hard limits takes CAP_SYS_RESOURCE. Leaves alone what could not be restored without
    /// privileges.
    ///
    /// # Errors
    /// If a limit cannot be read.
    pub fn take() -> Result<Self> {
        let mut resources = [(NONE, NONE); RLIM_NLIMITS];
        for (number, limit) in (0..).zip(&mut resources) {
            *limit = resource(number, 0).context(|| "cannot read the resource limits".into())?;
        }
        let (policy, nice, io) = (None, None, None);
        let (slack, ignored) = (reset_slack(), Some(ignored()));
        let processors = processors();
        let mut taken = Self { resources, policy, nice, io, slack, ignored, processors };
        taken.restore_stack();
        for (number, least) in MINIMUM {
            raise(number, least);
        }
        let (_, hard) = taken.resources.get(Resource::Core as usize).copied().unwrap_or_default();
        set_resource(Resource::Core as u32, 0, (0, hard)).ok();
        taken.reset_priority();
        Ok(taken)
    }

    /// Records the soft limit of the stack that the kernel lowered at the start of this set-user-ID
    /// program: that of the parent, if it is a process of the same user without privileges.
    fn restore_stack(&mut self) {
        let Some((soft, hard)) = self.resources.get_mut(Resource::Stack as usize) else {
            return;
        };
        let parent = ProcessId::parent().map_or(0, ProcessId::number);
        // A process with more rights than its user belongs to root in /proc.
        let owner = std::fs::metadata(format!("/proc/{parent}")).map(|status| status.uid());
        if *soft != STACK || parent == 0 || owner.ok() != Some(getuid().as_raw()) {
            return;
        }
        if let Ok((theirs, _)) = resource(Resource::Stack as u32, parent) {
            *soft = theirs.clamp(*soft, (*soft).max(*hard));
        }
    }

    /// Records and resets the priority. The out-of-memory score stays: writing it as root would also lower
    /// the bound down to which the caller may set it.
    fn reset_priority(&mut self) {
        let policy = policy();
        if [libc::SCHED_BATCH, libc::SCHED_IDLE].map(i64::from).contains(&policy)
            && set_policy(0, libc::SCHED_OTHER.into())
        {
            self.policy = Some(policy);
        }
        let nice = nice();
        if nice > 0 && set_nice(0, 0) {
            self.nice = Some(nice);
        }
        let io = io_priority();
        if ![CLASS_NONE, CLASS_REAL_TIME].contains(&(io >> CLASS_SHIFT)) && set_io_priority(0, 0) {
            self.io = Some(io);
        }
    }

    /// Sets all of it in this process again. Needs no privilege.
    ///
    /// # Errors
    /// If this process would be left with more than the caller had.
    pub fn restore(&self) -> Result<()> {
        let context = || "cannot restore the limits of the caller".to_owned();
        self.set_priority(0).context(context)?;
        self.slack.map_or(Ok(()), set_slack).context(context)?;
        self.ignored.into_iter().for_each(ignore);
        if self.processors != processors() {
            // If the CPUs of the cgroup have changed meanwhile, these take precedence.
            set_processors(&self.processors);
        }
        for (number, (soft, hard)) in (0..).zip(self.resources) {
            let (_, most) = resource(number, 0).context(context)?;
            // An OCI runtime may have lowered it, which cannot be undone.
            set_resource(number, 0, (soft.min(most), hard.min(most))).context(context)?;
        }
        Ok(())
    }
}

impl CallerLimits {
    /// Sets hard limits and priority of `pid`, the first process of the container, while it is still
    /// root's: later, its user could trace it and keep it from lowering anything itself. `used` is its
    /// address space and its data, in bytes.
    ///
    /// # Errors
    /// If the kernel refuses, or the process has more memory than the limits of the caller allow.
    pub fn apply_to(&self, pid: ProcessId, used: (u64, u64)) -> Result<()> {
        let context = || "cannot set the limits of the caller in the container".to_owned();
        let pid = pid.number();
        self.set_priority(pid).context(context)?;
        for (number, (_, hard)) in (0..).zip(self.resources) {
            let (soft, most) = resource(number, pid).context(context)?;
            let needed = match number {
                AS => used.0 + SPARE,
                DATA => used.1 + SPARE,
                // The process still needs files and stack of its own.
                NOFILE | STACK_SIZE => continue,
                _ => 0,
            };
            if hard < needed && hard < most {
                let text = format!("the OCI runtime needs {} MiB of memory", needed >> 20);
                return Err(Error::caused_by(context(), text)
                    .with_hint("raise the limit with ulimit -v or -d; crun needs less than runc"));
            }
            // A soft limit confines nobody: the process itself may raise it.
            set_resource(number, pid, (soft.min(hard), hard.min(most))).context(context)?;
        }
        Ok(())
    }

    /// Sets the priority of the process `pid`; 0 is this one.
    fn set_priority(&self, pid: i32) -> std::io::Result<()> {
        let is_done = self.nice.is_none_or(|nice| set_nice(pid, nice))
            && self.policy.is_none_or(|policy| set_policy(pid, policy))
            && self.io.is_none_or(|io| set_io_priority(pid, io));
        if is_done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

const AS: u32 = Resource::As as u32;
const DATA: u32 = Resource::Data as u32;
const NOFILE: u32 = Resource::Nofile as u32;
const STACK_SIZE: u32 = Resource::Stack as u32;

/// Memory, in bytes, that an OCI runtime may still allocate between the last hook and the program.
const SPARE: u64 = 64 << 20;

/// Raises a soft limit to `least`, and with it the hard one if that is lower.
fn raise(number: u32, least: u64) {
    let Ok((soft, hard)) = resource(number, 0) else { return };
    if soft < least && set_resource(number, 0, (least, least.max(hard))).is_err() {
        // Without CAP_SYS_RESOURCE, the hard limit is all that there is.
        set_resource(number, 0, (hard.min(least), hard)).ok();
    }
}

/// Reads soft and hard limit of the process `pid`; 0 is this one.
fn resource(number: u32, pid: i32) -> std::io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads nothing and writes one `rlimit64`.
    let answer = unsafe {
        let none = std::ptr::null::<libc::rlimit64>();
        libc::syscall(libc::SYS_prlimit64, pid, number, none, &raw mut limit)
    };
    if answer == 0 {
        Ok((limit.rlim_cur, limit.rlim_max))
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn set_resource(number: u32, pid: i32, (soft, hard): (u64, u64)) -> std::io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit64` and writes nothing.
    let answer = unsafe {
        let none = std::ptr::null_mut::<libc::rlimit64>();
        libc::syscall(libc::SYS_prlimit64, pid, number, &raw const limit, none)
    };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Reads the scheduling policy of this process, without SCHED_RESET_ON_FORK.
fn policy() -> i64 {
    // SAFETY: passes a number. musl's function of that name is a stub.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy & !i64::from(libc::SCHED_RESET_ON_FORK)
}

/// Default timer slack, in nanoseconds.
const SLACK: i64 = 50_000;

/// Records and resets the timer slack, by which each wait of this process and of its children may be
/// longer: by minutes, if the caller likes.
fn reset_slack() -> Option<i64> {
    // SAFETY: passes numbers.
    let slack = unsafe { libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) };
    // A negative result is a slack that does not fit.
    let slack = if slack > 0 { slack.into() } else { i64::from(i32::MAX) };
    set_slack(SLACK).ok().map(|()| slack)
}

fn set_slack(slack: i64) -> std::io::Result<()> {
    // SAFETY: passes numbers.
    match unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack as libc::c_ulong, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Signals that fit into 64 bits.
const SIGNALS: std::ops::Range<i32> = 1..64;

/// Finds the signals that the caller ignores; not SIGPIPE, which the standard library ignores itself.
fn ignored() -> i64 {
    let ignored = SIGNALS.filter(|number| *number != libc::SIGPIPE && signals::is_ignored(*number));
    ignored.fold(0, |bits, number| bits | 1 << (number - 1))
}

fn ignore(bits: i64) {
    for number in SIGNALS.filter(|number| bits >> (number - 1) & 1 == 1) {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Sets a policy without priorities.
fn set_policy(pid: i32, policy: i64) -> bool {
    // SAFETY: all-zero is a valid `sched_param`, which the kernel reads.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::syscall(libc::SYS_sched_setscheduler, pid, policy, &raw const none) == 0
    }
}

fn nice() -> i64 {
    // SAFETY: passes numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0).into() }
}

fn set_nice(pid: i32, nice: i64) -> bool {
    let nice = i32::try_from(nice).unwrap_or_default();
    // SAFETY: passes numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, pid.unsigned_abs(), nice) == 0 }
}

/// Reads the CPU affinity of this process, as bits. See sched_setaffinity(2).
fn processors() -> Vec<u64> {
    let mut bits = vec![0u64; MAX_CPUS / 64];
    // SAFETY: the kernel writes no more than the given size, and tells how much it wrote.
    let size = unsafe {
        let size = size_of_val(bits.as_slice());
        libc::syscall(libc::SYS_sched_getaffinity, 0, size, bits.as_mut_ptr())
    };
    bits.truncate(usize::try_from(size).unwrap_or_default() / 8);
    bits
}

/// Maximum of CONFIG_NR_CPUS.
const MAX_CPUS: usize = 8192;

fn set_processors(bits: &[u64]) {
    // SAFETY: the kernel reads the given size.
    unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(bits), bits.as_ptr()) };
}

/// Reads the I/O priority of this process; 0 without CONFIG_BLOCK.
fn io_priority() -> i64 {
    // SAFETY: passes numbers; 1 is IOPRIO_WHO_PROCESS.
    unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0).max(0) }
}

fn set_io_priority(pid: i32, priority: i64) -> bool {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_ioprio_set, 1, pid, priority) == 0 }
}

impl std::fmt::Display for CallerLimits {
    /// Writes pairs of limits, five numbers, and the CPUs in words of 64 bits, separated by commas. No
    /// limit, and a value that was not changed, is empty.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (soft, hard) in self.resources {
            for limit in [soft, hard] {
                if limit != NONE {
                    write!(f, "{limit}")?;
                }
                f.write_str(",")?;
            }
        }
        for value in [self.policy, self.nice, self.io, self.slack, self.ignored] {
            if let Some(value) = value {
                write!(f, "{value}")?;
            }
            f.write_str(",")?;
        }
        self.processors.iter().try_for_each(|word| write!(f, "{word:x},"))
    }
}

impl FromStr for CallerLimits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let context = || Error::new(format!("invalid limits '{text}'"));
        let mut words = text.strip_suffix(',').ok_or_else(context)?.split(',');
        let mut next = || -> Result<Option<u64>> {
            let word = words.next().ok_or_else(context)?;
            if word.is_empty() { Ok(None) } else { word.parse().map(Some).map_err(|_| context()) }
        };
        let mut resources = [(NONE, NONE); RLIM_NLIMITS];
        for limit in &mut resources {
            *limit = (next()?.unwrap_or(NONE), next()?.unwrap_or(NONE));
        }
        let mut value = || Ok(next()?.and_then(|value| i64::try_from(value).ok()));
        let (policy, nice, io) = (value()?, value()?, value()?);
        let (slack, ignored) = (value()?, value()?);
        let word = |word| u64::from_str_radix(word, 16).map_err(|_| context());
        let processors = words.take(MAX_CPUS / 64).map(word).collect::<Result<_>>()?;
        Ok(Self { resources, policy, nice, io, slack, ignored, processors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_as_it_was_written() {
        let mut resources = [(NONE, NONE); RLIM_NLIMITS];
        resources[7] = (1024, 4096);
        resources[4] = (0, NONE);
        let (policy, nice, io, slack, ignored) = (None, None, None, None, None);
        let processors = vec![];
        let none = CallerLimits { resources, policy, nice, io, slack, ignored, processors };
        let all = CallerLimits {
            policy: Some(5),
            nice: Some(19),
            io: Some(3 << 13),
            slack: Some(50_000),
            ignored: Some(i64::MAX),
            processors: vec![u64::MAX, 0, 3],
            ..none.clone()
        };
        for limits in [none, all] {
            assert_eq!(limits.to_string().parse::<CallerLimits>().unwrap(), limits, "{limits}");
        }
        let text = ",".repeat(37);
        assert!(text.parse::<CallerLimits>().is_ok());
        for wrong in ["", "1,2,", &text[1..], &(text.clone() + "x,"), &text.replacen(',', "x,", 1)]
        {
            assert!(wrong.parse::<CallerLimits>().is_err(), "{wrong}");
        }
    }
}
