//! Why a container did not start: what OCI runtimes write into their logs, in one line.
//!
//! A runtime's exit status tells its own failure from one of the program no better than a shell's;
//! its log does. runc logs as `time="…" level=error msg="…"`, crun in plain text.

use super::supervise::End;
use crate::container::plan::hooks::StagedHook;
use crate::container::plan::{Bundle, HOOKS_OUTPUT};
use crate::error::Error;
use crate::log;
use crate::sys::fs::read::read_at_most;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

/// The runtime's own log, in the bundle.
pub const LOG: &str = "runtime.log";

/// What the runtime writes to stderr, in the bundle: it says most of it twice.
pub const STDERR: &str = "runtime.err";

/// More than a runtime writes; a hook may write any amount.
const MAX_SIZE: u64 = 1 << 20;

/// How much of what hooks printed is worth showing.
const SHOWN: usize = 500;

/// The error, if the runtime failed and not the program. Exit status 125.
pub fn explain(bundle: &Bundle, place: &OwnedFd, hooks: &[StagedHook]) -> Option<Error> {
    let text = read(place, LOG)?;
    for line in text.lines() {
        log::debug("runtime", || line.to_owned());
    }
    let why = failure(&text)?;
    let program = bundle.args.first().map(String::as_str).unwrap_or_default();
    let error = Error::caused_by(format!("cannot start '{program}' in the container"), why.clone());
    let printed = read(place, HOOKS_OUTPUT).unwrap_or_default();
    let mut hints = vec![hook_named_in(&why, hooks)];
    if why.contains("cgroup") {
        hints.push(Some("'sarus check' tells what the OCI runtime wants of cgroups".to_owned()));
    }
    if why.contains("hook") && !printed.is_empty() {
        hints.push(Some(format!("the hooks printed: {}", in_one_line(&printed))));
    }
    let hint = hints.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Some(
        if hint.is_empty() { error } else { error.with_hint(hint) }
            .with_exit_code(super::execute::FAILED),
    )
}

/// The error, if the program was never reached: runtimes do not log a failed hook of the stage
/// `startContainer`, the last one before it. `launch`, which comes between them, tells its own
/// failure, by exit status 125.
pub fn explain_start(
    bundle: &Bundle,
    place: &OwnedFd,
    hooks: &[StagedHook],
    end: &End,
) -> Option<Error> {
    end.status_before_start().filter(|status| *status != super::execute::FAILED)?;
    let hooks = hooks.iter().filter(|hook| hook.stage == "startContainer");
    let paths = hooks.map(|hook| hook.path.display().to_string()).collect::<Vec<_>>();
    let program = bundle.args.first().filter(|_| !paths.is_empty())?;
    let text = format!("cannot start '{program}' in the container: a startContainer hook failed");
    let printed = in_one_line(&read(place, HOOKS_OUTPUT).unwrap_or_default());
    let printed = if printed.is_empty() { printed } else { format!("; it printed: {printed}") };
    let hint = format!("the image must have a working {}{printed}", paths.join(" and "));
    Some(Error::new(text).with_hint(hint).with_exit_code(super::execute::FAILED))
}

fn read(place: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(place, name, flags, Mode::empty()).ok()?;
    let bytes = read_at_most(std::fs::File::from(file), MAX_SIZE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a log says that kept the runtime from running the container. runc also logs what goes wrong
/// after the program has ended.
fn failure(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains("run failed") || !line.contains("level="))?;
    let quoted = line.split_once(" msg=\"").and_then(|(_, rest)| rest.strip_suffix('"'));
    let text = quoted.map_or_else(|| line.to_owned(), unquoted);
    let text = text.strip_prefix("runc run failed: ").unwrap_or(&text);
    // Where a hook printed nothing, nothing is said of it.
    let text = text.trim_end();
    Some(in_one_line(text.strip_suffix(", stdout: , stderr:").unwrap_or(text)))
}

/// Undoes Go's quoting, as far as one line goes.
fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => plain.push(match letters.next() {
                Some('n' | 't' | 'r') | None => ' ',
                Some(letter) => letter,
            }),
            (letter, false) => plain.push(letter),
        }
    }
    plain
}

fn in_one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// runc calls a hook by its number in its stage, which no user can know.
fn hook_named_in(why: &str, hooks: &[StagedHook]) -> Option<String> {
    let (_, rest) = why.split_once("hook #")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let number: usize = rest.get(..digits)?.parse().ok()?;
    let mut stages: Vec<_> = hooks.iter().map(|hook| hook.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    let found = stages.iter().filter_map(|stage| {
        let hook = hooks.iter().filter(|hook| hook.stage == *stage).nth(number)?;
        // The engine's own say themselves what is wrong.
        (!hook.is_engines).then(|| format!("{} ({stage})", hook.path.display()))
    });
    let found = found.collect::<Vec<_>>().join(" or ");
    (!found.is_empty()).then(|| format!("hook #{number} is {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::plan::hooks::{Confinement, arrange};
    use crate::site::config::Hook;
    use std::path::Path;

    #[test]
    fn the_cause_is_found_in_the_logs_of_both_runtimes() {
        for (log, expected) in [
            ("", None),
            ("time=\"x\" level=warning msg=\"lstat /x\"\n", None),
            (
                "time=\"x\" level=error msg=\"runc run failed: hook: stdout: a \\\"b\\\"\\n, c\\n\"\n",
                Some("hook: stdout: a \"b\" , c"),
            ),
            (
                "time=\"x\" level=error msg=\"runc run failed: hook: exit status 1, stdout: , stderr: \"\n",
                Some("hook: exit status 1"),
            ),
            (
                "error executing hook `/bin/x` (exit code: 7)\n",
                Some("error executing hook `/bin/x` (exit code: 7)"),
            ),
        ] {
            assert_eq!(failure(log).as_deref(), expected, "{log}");
        }
    }

    #[test]
    fn a_number_becomes_the_name_of_a_hook() {
        let hook = |stage, path: &str| Hook { stage, path: path.into(), ..Hook::default() };
        let list = [hook("prestart", "/a"), hook("prestart", "/b"), hook("poststop", "/c")];
        let id = "1:2".parse().unwrap();
        let (program, rootfs) = (Path::new("/p"), Path::new("/r"));
        let limits = ",".repeat(37).parse().unwrap();
        let confinement = Confinement { program, rootfs, root: id, dev: id, limits: &limits };
        let hooks = arrange(&list, |_| false, &[], confinement);
        let name = |why| hook_named_in(why, &hooks);
        assert_eq!(name("error running hook #2: x").unwrap(), "hook #2 is /b (prestart)");
        assert_eq!(name("hook #0").unwrap(), "hook #0 is /c (poststop)");
        assert_eq!(name("hook #3: x"), None);
        assert_eq!(name("no such file"), None);
    }
}
