//! The `init` applet beside Debian's tini: the same cases, outside of a container and as the first
//! process of a PID namespace.

use crate::support::hostile::{field, wait_until};
use crate::support::{Installation, Output};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Init {
    Ours,
    Tini,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A process like others.
    Outside,
    /// Process 1.
    First,
}

const EVERYWHERE: [(Init, Place); 4] = [
    (Init::Ours, Place::Outside),
    (Init::Tini, Place::Outside),
    (Init::Ours, Place::First),
    (Init::Tini, Place::First),
];

impl Init {
    /// A command that runs `words`.
    fn command(self, installation: &Installation, place: Place, words: &[&str]) -> Command {
        let mut all: Vec<PathBuf> = Vec::new();
        if place == Place::First {
            // The end of unshare ends its child, and so all of the namespace.
            let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
            all.extend(unshare.map(PathBuf::from));
        }
        match self {
            Self::Ours => all.extend([installation.prefix().join("bin/init"), "--".into()]),
            Self::Tini => all.extend(["tini", "-s", "-g", "--"].map(PathBuf::from)),
        }
        all.extend(words.iter().map(PathBuf::from));
        let (program, args) = all.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(args);
        command
    }

    fn shell(self, installation: &Installation, place: Place, script: &str) -> Command {
        self.command(installation, place, &["sh", "-c", script])
    }
}

#[test]
fn it_ends_as_its_child_ends() {
    let installation = Installation::new();
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
        ("kill -HUP $$", 128 + 1),
        ("kill -37 $$", 128 + 37),
        // It does not wait for others.
        ("sleep 2 >/dev/null 2>&1 & exit 3", 3),
        ("(sleep 0.2; exit 9) & (exit 8) & sleep 0.4; exit 4", 4),
        ("test $(cut -d' ' -f5 /proc/$$/stat) = $$ && exit 6", 6),
    ] {
        for (init, place) in EVERYWHERE {
            let output = Output::of(&mut init.shell(&installation, place, script));
            assert_eq!(output.status, status, "{init:?} {place:?}: {output}");
            assert_eq!(output.stdout, "", "{init:?} {place:?}");
        }
    }
}

#[test]
fn what_cannot_be_executed_has_a_status_of_its_own() {
    let installation = Installation::new();
    let file = installation.path("file");
    fs::write(&file, "no program").unwrap();
    let directory = installation.path("home");
    for (program, status) in [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        (file.to_str().unwrap(), 126),
        (directory.to_str().unwrap(), 126),
    ] {
        for (init, place) in EVERYWHERE {
            let output = Output::of(&mut init.command(&installation, place, &[program]));
            assert_eq!(output.status, status, "{init:?} {place:?}: {output}");
            assert!(output.stderr.contains(program), "{output}");
        }
    }
    let mut ours = Command::new(installation.prefix().join("bin/init"));
    assert!(Output::of(&mut ours).fails(1).contains("no program given"));
}

#[test]
fn stdin_and_the_environment_pass_through() {
    let installation = Installation::new();
    let input = installation.path("input");
    fs::write(&input, "a line\nanother\n").unwrap();
    for (init, place) in EVERYWHERE {
        let mut command = init.shell(&installation, place, "cat; echo \"$A\"; echo $# $0");
        command.stdin(fs::File::open(&input).unwrap()).env("A", "b  c").args(["zero", "--", "-s"]);
        assert_eq!(Output::of(&mut command).succeeds(), "a line\nanother\nb  c\n2 zero\n");
    }
}

/// An init that runs a script, which tells in `output` how far it is.
struct Running {
    /// What was started: init, or unshare.
    child: Child,
    /// Init itself.
    init: u32,
    output: PathBuf,
}

impl Running {
    fn start(installation: &Installation, init: Init, place: Place, script: &str) -> Self {
        let output = installation.path("output");
        let mut command = init.shell(installation, place, script);
        command.stdout(fs::File::create(&output).unwrap()).stdin(Stdio::null());
        command.stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut this = Self { init: child.id(), child, output };
        this.wait_for("ready\n");
        if place == Place::First {
            this.init = this.children(this.init)[0];
        }
        this
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    fn wait_for(&self, text: &str) {
        wait_until(text, || self.said().contains(text));
    }

    fn children(&self, pid: u32) -> Vec<u32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn state_of(&self, pid: u32) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        field(&status, "State")
    }

    fn send(&self, signal: &str) {
        Output::of(Command::new("kill").args([signal, &self.init.to_string()])).succeeds();
    }

    /// Ends the child that init runs, and what it started.
    fn kill_group(&self) {
        let child = self.children(self.init).into_iter().min().unwrap();
        Output::of(Command::new("kill").args(["-KILL", "--", &format!("-{child}")])).succeeds();
    }

    fn end(mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.kill_group();
            self.child.wait().ok();
        }
    }
}

#[test]
fn every_signal_reaches_the_whole_group_of_the_child() {
    let installation = Installation::new();
    let script = "t() { for s in HUP USR1 USR2 TERM WINCH; do trap \"echo $1 $s\" $s; done; }
        t child; (t other; echo ready; while :; do sleep 0.05; done) &
        while :; do sleep 0.05; done";
    for (init, place) in EVERYWHERE {
        let running = Running::start(&installation, init, place, script);
        for signal in ["HUP", "USR1", "USR2", "TERM", "WINCH"] {
            running.send(&format!("-{signal}"));
            running.wait_for(&format!("child {signal}\n"));
            running.wait_for(&format!("other {signal}\n"));
        }
        running.kill_group();
        assert_eq!(running.end(), 128 + 9, "{init:?} {place:?}");
    }
}

#[test]
fn a_child_decides_itself_how_it_ends() {
    let installation = Installation::new();
    for (script, signal, status) in [
        ("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done", "-TERM", 5),
        ("trap 'exit 6' INT; echo ready; while :; do sleep 0.02; done", "-INT", 6),
        ("echo ready; exec sleep 1000", "-TERM", 128 + 15),
        ("echo ready; exec sleep 1000", "-HUP", 128 + 1),
        ("echo ready; exec sleep 1000", "-USR1", 128 + 10),
        ("echo ready; exec sleep 1000", "-40", 128 + 40),
        ("trap '' TERM; echo ready; sleep 0.3; exit 7", "-TERM", 7),
        ("trap '' TERM HUP; echo ready; sleep 0.3; exit 8", "-HUP", 8),
    ] {
        for (init, place) in EVERYWHERE {
            let running = Running::start(&installation, init, place, script);
            running.send(signal);
            assert_eq!(running.end(), status, "{init:?} {place:?} {script}");
        }
    }
}

#[test]
fn the_child_is_stopped_and_continued() {
    let installation = Installation::new();
    let script = "echo ready; while :; do sleep 0.05; done";
    for (init, place) in EVERYWHERE {
        let running = Running::start(&installation, init, place, script);
        let child = running.children(running.init)[0];
        running.send("-TSTP");
        wait_until("it stops", || running.state_of(child).starts_with('T'));
        assert!(!running.state_of(running.init).starts_with('T'), "{init:?} {place:?}");
        running.send("-CONT");
        wait_until("it goes on", || !running.state_of(child).starts_with('T'));
        running.send("-TERM");
        assert_eq!(running.end(), 128 + 15, "{init:?} {place:?}");
    }
}

#[test]
fn orphans_come_to_it_and_none_stays_a_zombie() {
    let installation = Installation::new();
    // A thousand that end soon, and one that lives on and must have a new parent.
    let script = "i=0; while [ $i -lt 1000 ]; do (true &); i=$((i+1)); done; \
        (sleep 1000 & echo $! >&3) 3>orphan; echo ready; read forever";
    for (init, place) in EVERYWHERE {
        let fifo = installation.path("fifo");
        Output::of(Command::new("mkfifo").arg(&fifo));
        let script =
            format!("exec <>{}; cd {}; {script}", fifo.display(), installation.path("").display());
        let running = Running::start(&installation, init, place, &script);
        let orphan = || {
            let children = running.children(running.init);
            children.into_iter().find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default() == "sleep\n"
            })
        };
        wait_until("the orphan has a new parent", || orphan().is_some());
        let zombies = || {
            let children = running.children(running.init);
            children.iter().filter(|pid| running.state_of(**pid).starts_with('Z')).count()
        };
        wait_until("all are reaped", || zombies() == 0);
        assert_eq!(running.children(running.init).len(), 2, "{init:?} {place:?}");
        Output::of(Command::new("kill").arg(orphan().unwrap().to_string())).succeeds();
        wait_until("it is reaped too", || running.children(running.init).len() == 1);
        running.send("-TERM");
        assert_eq!(running.end(), 128 + 15, "{init:?} {place:?}");
    }
}
