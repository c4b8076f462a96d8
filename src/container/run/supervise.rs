//! Watches over a container that is being started or runs: passes signals on, stops and continues
//! it, and waits for its end. Start at [`Watch::wait`].

use super::cgroups::{self, Janitor};
use super::execute::FAILED;
use crate::error::{Error, Result};
use crate::log;
use crate::sys::process::runtime_child::RuntimeChild;
use crate::sys::process::signals::{ReceivedSignal, Signals};
use crate::sys::process::start_notify::{Listener, Started};
use crate::sys::process::{self, WaitStatus};
use crate::sys::terminal::Terminal;
use rustix::process::Uid;
use std::time::Duration;

/// What a terminal sends to every process of the foreground group, so to the runtime too.
const FROM_TERMINAL: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU];

/// What asks a program to end.
const TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How often the end of a program is looked for where the kernel (before 5.3) does not tell of it.
const GLANCE: Duration = Duration::from_secs(1);

/// How often it is looked whether the end of a program in a PID namespace is held up.
const LOOK: Duration = Duration::from_secs(10);

/// How soon what a program left behind is looked for again; each time twice as long.
const MOMENT: Duration = Duration::from_millis(5);

/// How long a program may prepare for being stopped, if it handles SIGTSTP.
const NOTICE: Duration = Duration::from_millis(20);

/// A container, and what its watch needs to know of it.
pub struct Watch<'a> {
    /// The OCI runtime.
    runtime: &'a RuntimeChild,
    /// The caller's terminal, if the container has one of its own.
    terminal: Option<&'a Terminal>,
    /// What puts the terminal right should this process be killed.
    janitor: Option<&'a Janitor>,
    /// What tells of the start.
    listener: &'a Listener,
    /// Judges a program that is about to start: an error ends the run.
    accept: &'a dyn Fn(&Started) -> Result<()>,
    /// Whose container it is.
    user: Uid,
    /// The program, from its start on.
    started: Option<Started>,
    /// How long what it left behind gets before it is looked for again.
    moment: Duration,
    /// Whether all was stopped for want of a terminal, and stays so.
    held: bool,
    /// Whether the runtime was killed by us, and for which of these reasons.
    killed: bool,
    /// A signal that asked to end before the start.
    given_up: Option<i32>,
    /// What is wrong with a program that has started.
    refused: Option<Error>,
    /// The end of the program, which the runtime is not told.
    untold: Option<WaitStatus>,
}

impl<'a> Watch<'a> {
    /// Nothing has been heard of the program yet.
    pub fn new(
        runtime: &'a RuntimeChild,
        terminal: Option<&'a Terminal>,
        janitor: Option<&'a Janitor>,
        listener: &'a Listener,
        accept: &'a dyn Fn(&Started) -> Result<()>,
        user: Uid,
    ) -> Self {
        Self {
            runtime,
            terminal,
            janitor,
            listener,
            accept,
            user,
            started: None,
            moment: MOMENT,
            held: false,
            killed: false,
            given_up: None,
            refused: None,
            untold: None,
        }
    }

    /// Passes signals on until the runtime ends; how it did.
    pub fn wait(mut self, signals: &Signals) -> Result<End> {
        loop {
            let arrived = self.next(signals)?;
            self.hear();
            let Some(arrived) = arrived else {
                match self.is_held_up() {
                    true => return self.end(WaitStatus::Killed(libc::SIGKILL)),
                    false => continue,
                }
            };
            match arrived.number {
                libc::SIGCHLD => {
                    while let Some((pid, change)) = process::reap() {
                        if pid == self.runtime.child {
                            return self.end(change);
                        }
                    }
                }
                // A runtime that starts a container, or waits for a hook, does not listen; nor does one
                // that is stopped.
                number if TO_END.contains(&number) && (self.started.is_none() || self.held) => {
                    self.given_up = Some(number);
                    self.kill();
                }
                _ => self.pass_on(arrived),
            }
        }
    }

    fn end(self, change: WaitStatus) -> Result<End> {
        let (has_started, given_up) = (self.started.is_some(), self.given_up);
        let end = End { change: self.untold.unwrap_or(change), given_up, has_started };
        self.refused.map_or(Ok(end), Err)
    }

    fn kill(&mut self) {
        self.killed = true;
        self.runtime.send(libc::SIGKILL);
    }

    /// Takes notice of the start of the program, and ends it if it must not be, or is not confined as
    /// the caller is.
    fn hear(&mut self) {
        if self.started.is_some() {
            return;
        }
        self.started = self.listener.receive(self.user, |pid| self.runtime.contains(pid));
        let Some(started) = &self.started else { return };
        // Nothing is known of the cgroups of one that has ended.
        let confined = cgroups::verify(started.program.pid());
        let confined = confined.or_else(|error| match started.program.is_ending() {
            true => Ok(()),
            false => Err(error),
        });
        self.refused = (self.accept)(started).and(confined).err();
        if self.refused.is_some() {
            self.kill();
        }
    }

    /// The next signal, or none when there may be something else to do.
    fn next(&mut self, signals: &Signals) -> Result<Option<ReceivedSignal>> {
        match &self.started {
            _ if self.killed => signals.next(Some(GLANCE)),
            None => signals.next_unless(self.listener, None),
            Some(Started { program, .. }) if !program.has_ended() => {
                // Among the host's processes, only its own end can be held up.
                let patience = (!self.runtime.is_supervised()).then_some(LOOK);
                match program.handle() {
                    Some(handle) => signals.next_unless(handle, patience),
                    None => signals.next(Some(GLANCE)),
                }
            }
            Some(_) => {
                self.runtime.kill_remaining();
                // Each look is one at all processes of the node, and a hook at the end may take long.
                self.moment = (self.moment * 2).min(GLANCE);
                signals.next(Some(self.moment))
            }
        }
    }

    /// Whether the end of the runtime is held up by a process that traces one of its own and does not
    /// wait for it. If it is the program's end of which the runtime is not told, kills the runtime.
    fn is_held_up(&mut self) -> bool {
        if self.killed {
            return !self.runtime.is_supervised() && self.runtime.unreported_status().is_some();
        }
        let program = self.started.as_ref().map(|started| &started.program);
        let end = program.and_then(|program| {
            // crun waits for all that the program left behind.
            let told = || program.reported_status().filter(|_| self.runtime.is_held());
            program.unreported_status().or_else(told)
        });
        // Not at the first look: most tracers wait for what they trace.
        if end.is_some() && self.moment >= GLANCE {
            self.untold = end;
            self.kill();
        } else if end.is_some() && program.is_some_and(|program| !program.has_ended()) {
            self.moment = GLANCE;
        }
        false
    }

    fn pass_on(&mut self, arrived: ReceivedSignal) {
        match arrived {
            ReceivedSignal { number: libc::SIGTSTP, from_kernel } => {
                // A terminal asks the whole group.
                if !from_kernel || self.runtime.is_supervised() {
                    self.runtime.send(libc::SIGTSTP);
                }
                self.suspend(if from_kernel { libc::SIGTSTP } else { libc::SIGSTOP });
            }
            ReceivedSignal { number: libc::SIGCONT, .. } if self.is_in_background() => {
                self.suspend(libc::SIGSTOP);
            }
            ReceivedSignal { number: libc::SIGWINCH, .. } if self.terminal.is_some() => {
                self.resize()
            }
            // runc keeps these two to itself.
            ReceivedSignal { number: number @ (libc::SIGWINCH | libc::SIGURG), .. } => {
                self.started.iter().for_each(|started| started.program.send(number));
            }
            ReceivedSignal { number, from_kernel: true }
                if FROM_TERMINAL.contains(&number) && !self.runtime.is_supervised() => {}
            ReceivedSignal { number, .. } => self.runtime.send(number),
        }
    }

    /// Stops the container and, by `signal`, this process, as Ctrl-Z does to a program without a
    /// container, until this process is continued, and has its terminal back. The kernel itself would
    /// not stop the first process of a container.
    fn suspend(&mut self, signal: i32) {
        self.hold();
        // The shell shall find its terminal as it was, if it does not have it already.
        let terminal = self.terminal.filter(|_| !self.is_in_background());
        let raw = terminal.and_then(|terminal| terminal.now().ok());
        terminal.inspect(|terminal| terminal.restore());
        // From now on its modes are those of others.
        self.janitor.inspect(|janitor| janitor.leave_terminal(true));
        stop(signal);
        while self.is_in_background() {
            if Signals::is_pending(&TO_END) {
                self.held = true;
                return;
            }
            // A shell continues the whole process group, and runc passes it on to the program.
            self.hold();
            stop(libc::SIGSTOP);
        }
        self.janitor.inspect(|janitor| janitor.leave_terminal(false));
        self.runtime.send(libc::SIGCONT);
        if let Some(raw) = raw {
            raw.restore();
            // Its size may be another by now.
            self.resize();
        }
        self.runtime.signal_all(libc::SIGCONT);
    }

    /// Whether the container has a terminal that is somebody else's now: what is typed there is not
    /// for it.
    fn is_in_background(&self) -> bool {
        self.terminal.is_some_and(Terminal::is_in_background)
    }

    /// Stops runtime and container, after a moment for what they do of a signal that has just come.
    fn hold(&self) {
        std::thread::sleep(NOTICE);
        // The runtime first: else it would start more, and read what is typed for others.
        self.runtime.send(libc::SIGSTOP);
        self.runtime.signal_all(libc::SIGSTOP);
    }

    /// Has the container's terminal follow the caller's: runc does it when it is told, for crun it
    /// must be done.
    fn resize(&self) {
        self.runtime.send(libc::SIGWINCH);
        if let (Some(started), Some(terminal)) = (&self.started, self.terminal) {
            started.resize(terminal.size());
        }
    }
}

/// Stops this process by `signal` until someone continues it, who may have done so already: a stop
/// would undo that.
fn stop(signal: i32) {
    if !Signals::is_pending(&[libc::SIGCONT]) {
        process::stop(signal);
    }
    Signals::forget(libc::SIGCONT);
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    change: WaitStatus,
    /// The signal for which it was given up: then it ended by our own hand.
    given_up: Option<i32>,
    /// Whether the applet `launch` announced the program.
    has_started: bool,
}

impl End {
    /// What to say of a runtime that failed before the program started: its exit status is not one of
    /// the program's.
    pub fn failure(&self) -> Option<Error> {
        match self.change {
            WaitStatus::Exited(status) if !self.has_started && ![0, FAILED].contains(&status) => {
                let about = "the OCI runtime failed before the program started";
                Some(
                    Error::caused_by(about, format!("exit status {status}")).with_exit_code(FAILED),
                )
            }
            _ => None,
        }
    }

    /// Whether the runtime was killed, be it by us.
    pub fn is_violent(&self) -> bool {
        matches!(self.change, WaitStatus::Killed(_))
    }

    /// The exit status of a runtime that ended by itself before the program was announced.
    pub fn status_before_start(&self) -> Option<u8> {
        match self.change {
            WaitStatus::Exited(status) if !self.has_started => Some(status),
            _ => None,
        }
    }

    /// The exit status of the run. The user is told of a runtime that someone else killed.
    pub fn exit_status(&self) -> u8 {
        match (self.change, self.given_up) {
            (WaitStatus::Exited(status), _) => status,
            (WaitStatus::Killed(_), Some(signal)) => process::signal_exit_code(signal),
            (WaitStatus::Killed(signal), None) => {
                let message = format!("the OCI runtime was ended by signal {signal}");
                log::write(log::Level::Error, "runtime", &message);
                process::signal_exit_code(signal)
            }
        }
    }
}
