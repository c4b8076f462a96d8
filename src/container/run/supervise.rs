//! Supervision of a container from its start to its end: forwards signals, stops and continues it
//! (job control), and waits for the end. Start at [`Monitor::wait`].

use super::FAILED;
use crate::error::{Error, Result};
use crate::log;
use crate::sys::process::runtime_child::RuntimeChild;
use crate::sys::process::signals::{ReceivedSignal, Signals};
use crate::sys::process::start_notify::{Listener, Started};
use crate::sys::process::{self, WaitStatus};
use crate::sys::terminal::Terminal;
use rustix::process::Uid;
use std::time::Duration;

/// Signals that a terminal sends to all processes of the foreground group, the runtime included.
const FROM_TERMINAL: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU];

/// Signals that ask a program to end.
const TO_END: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Interval at which the end of a program is looked for on kernels without pidfd_open(2) (before
/// 5.3).
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of the checks if the end of a program in a PID namespace is held up by a tracer.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// First delay before the next scan for orphaned processes; it doubles each time.
const FIRST_DELAY: Duration = Duration::from_millis(5);

/// Time that a program which handles SIGTSTP gets before it is stopped.
const STOP_DELAY: Duration = Duration::from_millis(20);

/// Functions by which an executor takes part in the supervision.
pub struct Callbacks<'a> {
    /// Checks a program that is about to start; an error ends the run.
    pub accept: &'a dyn Fn(&Started) -> Result<()>,
    /// Called with `true` when the caller's terminal is left to another process group, and with
    /// `false` when it is the container's again.
    pub terminal_left: &'a dyn Fn(bool),
}

/// The supervision of one container.
pub struct Monitor<'a> {
    /// The child that runs the container.
    runtime: &'a RuntimeChild,
    /// The caller's terminal, if the container has one of its own.
    terminal: Option<&'a Terminal>,
    /// Receives the message of the start.
    listener: &'a Listener,
    callbacks: Callbacks<'a>,
    /// The user of the container.
    user: Uid,
    /// The program, from its start on.
    started: Option<Started>,
    /// Delay before the next scan for orphaned processes.
    delay: Duration,
    /// True if the container was stopped for want of a terminal and asked to end meanwhile.
    held: bool,
    /// True if this process killed the runtime.
    killed: bool,
    /// Signal that asked to end before the start.
    given_up: Option<i32>,
    /// Reason why the program was refused.
    refused: Option<Error>,
    /// End of the program, if the runtime is not told of it.
    untold: Option<WaitStatus>,
}

impl<'a> Monitor<'a> {
    /// Supervision of a container whose program has not started.
    pub fn new(
        runtime: &'a RuntimeChild,
        terminal: Option<&'a Terminal>,
        listener: &'a Listener,
        callbacks: Callbacks<'a>,
        user: Uid,
    ) -> Self {
        Self {
            runtime,
            terminal,
            listener,
            callbacks,
            user,
            started: None,
            delay: FIRST_DELAY,
            held: false,
            killed: false,
            given_up: None,
            refused: None,
            untold: None,
        }
    }

    /// Forwards signals until the runtime ends, and returns the end.
    ///
    /// # Errors
    /// If the program was refused, or signals cannot be read.
    pub fn wait(mut self, signals: &Signals) -> Result<End> {
        loop {
            let arrived = self.next(signals)?;
            self.receive_start();
            let Some(arrived) = arrived else {
                if self.is_held_up() {
                    return self.end(WaitStatus::Killed(libc::SIGKILL));
                }
                continue;
            };
            match arrived.number {
                libc::SIGCHLD => {
                    while let Some((pid, change)) = process::reap() {
                        if pid == self.runtime.child {
                            return self.end(change);
                        }
                    }
                }
                // A runtime that starts a container or waits for a hook does not handle signals, nor
                // does a stopped one.
                number if TO_END.contains(&number) && (self.started.is_none() || self.held) => {
                    self.given_up = Some(number);
                    self.kill();
                }
                _ => self.forward(arrived),
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

    /// Receives the message of the start, if it has come, and kills a program that is not accepted.
    fn receive_start(&mut self) {
        if self.started.is_some() {
            return;
        }
        self.started = self.listener.receive(self.user, |pid| self.runtime.contains(pid));
        let Some(started) = &self.started else { return };
        self.refused = (self.callbacks.accept)(started).err();
        if self.refused.is_some() {
            self.kill();
        }
    }

    /// Waits for the next signal; `None` after a time-out or another event.
    fn next(&mut self, signals: &Signals) -> Result<Option<ReceivedSignal>> {
        match &self.started {
            _ if self.killed => signals.next(Some(POLL_INTERVAL)),
            None => signals.next_unless(self.listener, None),
            Some(Started { program, .. }) if !program.has_ended() => {
                // Without PID namespace, a tracer can hold up no more than the program's own end.
                let patience = (!self.runtime.is_supervised()).then_some(CHECK_INTERVAL);
                match program.handle() {
                    Some(handle) => signals.next_unless(handle, patience),
                    None => signals.next(Some(POLL_INTERVAL)),
                }
            }
            Some(_) => {
                self.runtime.kill_remaining();
                // Each scan reads all processes of the node, and a poststop hook may take long.
                self.delay = (self.delay * 2).min(POLL_INTERVAL);
                signals.next(Some(self.delay))
            }
        }
    }

    /// True if the end of the runtime is held up by a tracer from outside that does not wait for its
    /// tracee. If the tracer keeps the program's end from the runtime, kills the runtime.
    fn is_held_up(&mut self) -> bool {
        if self.killed {
            return !self.runtime.is_supervised() && self.runtime.unreported_status().is_some();
        }
        let program = self.started.as_ref().map(|started| &started.program);
        let end = program.and_then(|program| {
            // crun waits for all processes that the program left behind.
            let told = || program.reported_status().filter(|_| self.runtime.is_held());
            program.unreported_status().or_else(told)
        });
        // Not at the first scan: most tracers wait for their tracees.
        if end.is_some() && self.delay >= POLL_INTERVAL {
            self.untold = end;
            self.kill();
        } else if end.is_some() && program.is_some_and(|program| !program.has_ended()) {
            self.delay = POLL_INTERVAL;
        }
        false
    }

    /// Does what a signal asks for, or sends it to the program.
    fn forward(&mut self, arrived: ReceivedSignal) {
        match arrived {
            ReceivedSignal { number: libc::SIGTSTP, from_kernel } => {
                // A terminal has sent it to the whole process group.
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
            // runc does not forward these two.
            ReceivedSignal { number: number @ (libc::SIGWINCH | libc::SIGURG), .. } => {
                self.started.iter().for_each(|started| started.program.send(number));
            }
            ReceivedSignal { number, from_kernel: true }
                if FROM_TERMINAL.contains(&number) && !self.runtime.is_supervised() => {}
            ReceivedSignal { number, .. } => self.runtime.send(number),
        }
    }

    /// Stops the container and, by `signal`, this process, as Ctrl-Z does to other programs, until
    /// this process is continued and in the foreground. The kernel does not stop the first process of
    /// a PID namespace by itself.
    fn suspend(&mut self, signal: i32) {
        self.hold();
        // For the shell, unless that has taken the terminal already.
        let terminal = self.terminal.filter(|_| !self.is_in_background());
        let raw = terminal.and_then(|terminal| terminal.now().ok());
        terminal.inspect(|terminal| terminal.restore());
        (self.callbacks.terminal_left)(true);
        stop(signal);
        while self.is_in_background() {
            if Signals::is_pending(&TO_END) {
                self.held = true;
                return;
            }
            // A shell continues the whole process group, and runc forwards SIGCONT to the program.
            self.hold();
            stop(libc::SIGSTOP);
        }
        (self.callbacks.terminal_left)(false);
        self.runtime.send(libc::SIGCONT);
        if let Some(raw) = raw {
            raw.restore();
            // The size may have changed.
            self.resize();
        }
        self.runtime.signal_all(libc::SIGCONT);
    }

    /// True if another process group is in the foreground of the container's terminal: input there is
    /// not for the container.
    fn is_in_background(&self) -> bool {
        self.terminal.is_some_and(Terminal::is_in_background)
    }

    /// Stops runtime and container, after a moment in which they can handle a signal that has just
    /// come.
    fn hold(&self) {
        std::thread::sleep(STOP_DELAY);
        // The runtime first: it could start processes, and read input that is not for it.
        self.runtime.send(libc::SIGSTOP);
        self.runtime.signal_all(libc::SIGSTOP);
    }

    /// Gives the container's terminal the size of the caller's: runc does it on SIGWINCH, crun does
    /// not.
    fn resize(&self) {
        self.runtime.send(libc::SIGWINCH);
        if let (Some(started), Some(terminal)) = (&self.started, self.terminal) {
            started.resize(terminal.size());
        }
    }
}

/// Stops this process by `signal` until it is continued; not if SIGCONT has come already.
fn stop(signal: i32) {
    if !Signals::is_pending(&[libc::SIGCONT]) {
        process::stop(signal);
    }
    Signals::forget(libc::SIGCONT);
}

/// End of a run.
#[derive(Debug)]
pub struct End {
    change: WaitStatus,
    /// Signal for which the engine killed the runtime before the start.
    given_up: Option<i32>,
    /// True if the applet `launch` announced the program.
    has_started: bool,
}

impl End {
    /// Error of a runtime that failed before the program started: its exit status is not the
    /// program's.
    pub fn failure(&self) -> Option<Error> {
        match self.change {
            WaitStatus::Exited(status) if !self.has_started && ![0, FAILED].contains(&status) => {
                let context = "the OCI runtime failed before the program started";
                let cause = format!("exit status {status}");
                Some(Error::caused_by(context, cause).with_exit_code(FAILED))
            }
            _ => None,
        }
    }

    /// True if a signal killed the runtime, be it by this process.
    pub fn is_violent(&self) -> bool {
        matches!(self.change, WaitStatus::Killed(_))
    }

    /// Exit status of a runtime that ended by itself before the program was announced.
    pub fn status_before_start(&self) -> Option<u8> {
        match self.change {
            WaitStatus::Exited(status) if !self.has_started => Some(status),
            _ => None,
        }
    }

    /// Exit status of the run. Logs an error if another process killed the runtime.
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
