//! What the tests of `sarus pull` say again and again: [`Installation::pull`], and what has to hold
//! of a failure: [`Installation::pull_fails`].

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::oci::digest;
use super::{Installation, Output, User};

/// No pull of a test takes longer, on however slow a machine.
const LIMIT: &str = "120";

/// `command` started by another program, which is given it as arguments; with its environment,
/// directory and all.
pub fn behind(wrapper: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    wrapped.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// `command` in a mount namespace of its own, where `setup`, a shell script, went before.
pub fn in_namespace(setup: &str, command: &Command) -> Command {
    let script = format!("{setup}\nexec \"$@\"");
    behind(&["unshare", "--mount", "--propagation", "private", "sh", "-ec", &script, "sh"], command)
}

/// Runs `command` to its end, which has to come in time, with this text as its stdin.
pub fn finish(command: &Command, input: &str) -> Output {
    use std::io::Write;
    let mut command = behind(&["timeout", "--signal=KILL", LIMIT], command);
    let (stdin, mut writer) = std::io::pipe().unwrap();
    writer.write_all(input.as_bytes()).unwrap();
    drop(writer);
    Output::of(command.stdin(Stdio::from(stdin)))
}

/// The same without stdin, and the most memory that it used, in MiB.
pub fn measure(command: &Command) -> (Output, usize) {
    let file = tempfile();
    let path = file.to_str().unwrap();
    let timed = behind(&["time", "--quiet", "--format=%M", "--output", path], command);
    let output = finish(&timed, "");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let kilobytes: usize = text.trim().parse().unwrap_or_else(|_| panic!("{text}: {output}"));
    (output, kilobytes / 1024)
}

fn tempfile() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("time-{}-{number}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

impl Installation {
    /// A command by which alice pulls `name`.
    pub fn pull_command(&self, name: &str) -> Command {
        self.pull_with(&[name])
    }

    /// The same with options.
    pub fn pull_with(&self, args: &[&str]) -> Command {
        self.sarus_command(&self.alice, &[&["pull"], args].concat())
    }

    /// Alice pulls `name`.
    pub fn pull(&self, name: &str) -> Output {
        finish(&self.pull_command(name), "")
    }

    /// Alice pulls `name`, and runs it: it is an image of this host's /etc/os-release.
    #[track_caller]
    pub fn pull_and_run(&self, name: &str) -> String {
        let shown = self.pull(name).succeeds();
        self.run_release(name);
        shown
    }

    /// Runs an image of this host's /etc/os-release.
    #[track_caller]
    pub fn run_release(&self, name: &str) {
        let release = self.sarus(&self.alice, &["run", name, "cat", "/etc/os-release"]).succeeds();
        assert_eq!(release, fs::read_to_string("/etc/os-release").unwrap(), "{name}");
    }

    /// Alice pulls `name` and cannot: as [`Self::failed`].
    #[track_caller]
    pub fn pull_fails(&self, name: &str, words: &[&str]) -> String {
        self.failed(&self.pull(name), words)
    }

    /// Insists that alice could not pull: as [`Self::refused`], with a line that says all of
    /// `words` (in any case; of `a|b` one is enough), and one with a hint.
    #[track_caller]
    pub fn failed(&self, output: &Output, words: &[&str]) -> String {
        let text = self.refused(output);
        let (line, hint) = text.split_once('\n').unwrap();
        assert!(hint.starts_with("hint: "), "no hint: {output}");
        let line = line.to_lowercase();
        for word in words {
            let has = word.split('|').any(|word| line.contains(&word.to_lowercase()));
            assert!(has, "no word of '{word}': {output}");
        }
        text
    }

    /// Insists that alice could not pull: exit status 1, one line of reasonable length and perhaps
    /// a hint, and nothing left behind.
    #[track_caller]
    pub fn refused(&self, output: &Output) -> String {
        assert_eq!(output.status, 1, "{output}");
        // Warnings may precede: of a file with logins that cannot be read, say.
        let is_warning = |line: &&str| line.starts_with('[') && line.contains("] [WARN] ");
        let lines: Vec<_> = output.stderr.lines().skip_while(is_warning).collect();
        assert!(matches!(lines.len(), 1 | 2), "not one line and a hint: {output}");
        assert!(lines[0].starts_with("sarus: cannot pull "), "{output}");
        assert!(lines[1..].iter().all(|line| line.starts_with("hint: ")), "{output}");
        assert!(lines.iter().all(|line| line.len() < 600), "too long: {output}");
        let is_plain = |c: char| !c.is_control() || c == '\n';
        assert!(output.stderr.chars().all(is_plain), "control characters: {output}");
        self.assert_nothing_is_left();
        lines.join("\n") + "\n"
    }

    /// Insists that alice has no image, nothing temporary, and nothing in the cache but whole blobs
    /// and parts of some.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        let repository = self.repository(&self.alice);
        // Where others may wait for it, a lock may stay; empty.
        let lock = ["(", "-name", "*.lock", "-empty", ")", "-o", "-type", "f", "-print"];
        let found =
            Command::new("find").arg(repository.join("images")).args(lock).output().unwrap();
        assert!(found.stdout.is_empty(), "left: {}", String::from_utf8_lossy(&found.stdout));
        let temporary: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(temporary.is_empty(), "left: {temporary:?}");
        self.cached();
    }

    /// The digests of the blobs in alice's cache, in order. Insists that it holds nothing else but
    /// parts and locks, and that every blob is what its name says.
    #[track_caller]
    pub fn cached(&self) -> Vec<String> {
        let mut blobs = vec![];
        let Ok(entries) = fs::read_dir(self.cache()) else { return blobs };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if let Some(digest_of_name) = name.strip_suffix(".tar") {
                assert_eq!(digest(&fs::read(entry.path()).unwrap()), digest_of_name, "damaged");
                blobs.push(digest_of_name.to_owned());
            } else {
                // Lock files, or what remembers verified blobs.
                let small = entry.metadata().unwrap().len() < 1 << 20;
                assert!(name.ends_with(".tar.part") || small, "left in the cache: {name}");
            }
        }
        blobs.sort();
        blobs
    }

    /// The names of all files in alice's cache.
    pub fn cache_files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.cache()) else { return vec![] };
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }

    /// Where alice's blobs are.
    pub fn cache(&self) -> PathBuf {
        self.repository(&self.alice).join("cache")
    }

    /// Writes a file of alice's, with the directories above it, below her home.
    pub fn write_home(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let home = self.path("home").join(self.alice.name);
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.give_home(&self.alice);
        path
    }

    fn give_home(&self, user: &User) {
        let owner = format!("{}:{}", user.uid, user.gid);
        let mut chown = Command::new("chown");
        chown.args([OsStr::new("-R"), owner.as_ref()]).arg(self.path("home").join(user.name));
        Output::of(&mut chown).succeeds();
    }

    /// The column DIGEST that `sarus images` shows for `repository` and `tag`.
    #[track_caller]
    pub fn digest_of(&self, repository: &str, tag: &str) -> String {
        let shown = self.sarus(&self.alice, &["images"]).succeeds();
        let row = |line: &str| -> Option<String> {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[..2] == [repository, tag]).then(|| words[2].to_owned())
        };
        shown.lines().find_map(row).unwrap_or_else(|| panic!("no {repository} {tag}: {shown}"))
    }
}

/// The first twelve hex digits, as `sarus images` shows them.
pub fn short(digest: &str) -> &str {
    &digest["sha256:".len()..][..12]
}

/// Does all rows of a table at once: hostile servers make clients wait more than work.
pub fn for_each<T: Send>(rows: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        let rows = rows.into_iter().map(|row| scope.spawn(move || test(row)));
        let threads: Vec<_> = rows.collect();
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "{failed} rows failed: see above");
    });
}
