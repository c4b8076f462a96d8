//! A seccomp profile: system calls, conditions on their arguments, and actions.

/// Action of a filter: a return value of linux/seccomp.h, with its data in the lower 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(pub u32);

impl Action {
    /// Executes the system call.
    pub const ALLOW: Self = Self(libc::SECCOMP_RET_ALLOW);
    /// Executes the system call and logs it.
    pub const LOG: Self = Self(libc::SECCOMP_RET_LOG);
    /// Ends the thread.
    pub const KILL_THREAD: Self = Self(libc::SECCOMP_RET_KILL_THREAD);
    /// Ends the process; kernels before 4.14 end the thread.
    pub const KILL_PROCESS: Self = Self(libc::SECCOMP_RET_KILL_PROCESS);
    /// Sends SIGSYS.
    pub const TRAP: Self = Self(libc::SECCOMP_RET_TRAP);

    /// Fails the system call with `errno`.
    pub const fn errno(errno: u16) -> Self {
        Self(libc::SECCOMP_RET_ERRNO | errno as u32)
    }

    /// Notifies a tracer with `data`; without one the system call fails with ENOSYS.
    pub const fn trace(data: u16) -> Self {
        Self(libc::SECCOMP_RET_TRACE | data as u32)
    }

    /// Kind of the action, without data.
    pub const fn kind(self) -> u32 {
        self.0 & libc::SECCOMP_RET_ACTION_FULL
    }

    /// Data of the action: an errno, or the message for a tracer.
    pub const fn data(self) -> u16 {
        (self.0 & libc::SECCOMP_RET_DATA) as u16
    }
}

/// Comparison of an argument as an unsigned number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Comparison {
    /// `argument == value`
    #[default]
    Equal,
    /// `argument != value`
    NotEqual,
    /// `argument < value`
    Less,
    /// `argument <= value`
    LessOrEqual,
    /// `argument > value`
    Greater,
    /// `argument >= value`
    GreaterOrEqual,
    /// `argument & value == second`
    MaskedEqual,
}

/// Condition on one argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Condition {
    /// Index of the argument, 0 to 5.
    pub index: u8,
    /// Comparison of the argument with `value`.
    pub comparison: Comparison,
    /// Value, or the mask of [`Comparison::MaskedEqual`].
    pub value: u64,
    /// Value of [`Comparison::MaskedEqual`].
    pub second: u64,
}

/// Action for some system calls, under conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Numbers of the system calls.
    pub calls: Vec<u32>,
    /// Action if the conditions hold.
    pub action: Action,
    /// Conditions on the arguments; without any, the rule always holds.
    pub conditions: Vec<Condition>,
}

impl Rule {
    /// Reports whether one condition is enough. libseccomp takes one condition for each argument, so
    /// the OCI runtimes make a rule of each condition if two of them have the same argument.
    pub fn needs_one_condition(&self) -> bool {
        let mut seen = [false; 6];
        self.conditions.iter().any(|condition| match seen.get_mut(usize::from(condition.index)) {
            Some(seen) => std::mem::replace(seen, true),
            None => false,
        })
    }
}

/// A seccomp profile for this architecture, without capabilities, on this kernel.
///
/// For a system call, the first rule without conditions decides; without such a rule the first one
/// whose conditions hold; without any the default action. libseccomp decides so, too, unless conditions
/// of several rules hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Action for system calls without a rule.
    pub default: Action,
    /// Highest number that the profile names, in rules that do not apply as well.
    pub newest: Option<u32>,
    /// Rules in the order of the profile.
    pub rules: Vec<Rule>,
}

impl Profile {
    /// Action for system calls that are newer than the profile. Programs try new system calls and
    /// fall back on ENOSYS only, so a profile that refuses what it does not name answers with that.
    pub fn for_newer_calls(&self) -> Action {
        match self.default.kind() {
            _ if self.newest.is_none() => self.default,
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE => {
                self.default
            }
            _ => Action::errno(libc::ENOSYS as u16),
        }
    }

    /// Action for the system calls of other architectures and ABIs (32-bit x86, x32, arm). No rule
    /// covers them, and a profile that allows by default must not be bypassed by them.
    pub fn for_foreign_calls(&self) -> Action {
        match self.default {
            Action::ALLOW | Action::LOG => Action::KILL_PROCESS,
            refused => refused,
        }
    }
}
