//! Diagnosis of a container that did not start, from the OCI runtime's log, in one line.
//!
//! The exit status does not tell a failure of the runtime from one of the program; the log does. runc
//! logs as `time="…" level=error msg="…"`, crun in plain text.

use super::HOOKS_OUTPUT;
use super::hooks::StagedHook;
use crate::container::run::FAILED;
use crate::container::run::supervise::End;
use crate::error::Error;
use crate::log;
use crate::sys::fs::read::read_at_most;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

/// File in the bundle that is the runtime's log.
pub const LOG: &str = "runtime.log";

/// File in the bundle that is the runtime's stderr, which mostly repeats the log.
pub const STDERR: &str = "runtime.err";

/// Maximum size of a file that is read, in bytes. A log has less; the output of hooks is unlimited.
const MAX_SIZE: u64 = 1 << 20;

/// Characters of the output of hooks that are shown.
const MAX_SHOWN: usize = 500;

/// Error from the log, if the runtime and not `program` failed. Exit status 125.
pub fn explain_log(program: &str, bundle: &OwnedFd, hooks: &[StagedHook]) -> Option<Error> {
    let text = read(bundle, LOG)?;
    for line in text.lines() {
        log::debug("runtime", || line.to_owned());
    }
    let cause = failure(&text)?;
    let context = format!("cannot start '{program}' in the container");
    let error = Error::caused_by(context, cause.clone()).with_exit_code(FAILED);
    let output = read(bundle, HOOKS_OUTPUT).unwrap_or_default();
    let mut hints = vec![hook_named_in(&cause, hooks)];
    if cause.contains("cgroup") {
        let text = "'sarus check' shows what the OCI runtime requires of cgroups";
        hints.push(Some(text.to_owned()));
    }
    if cause.contains("hook") && !output.is_empty() {
        hints.push(Some(format!("output of the hooks: {}", in_one_line(&output))));
    }
    let hint = hints.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Some(if hint.is_empty() { error } else { error.with_hint(hint) })
}

/// Error of a failed hook of the stage `startContainer`, the last stage before `program`, which
/// runtimes do not log. The exit status 125 is that of `launch`, which explains its own failures.
pub fn explain_start_hook(
    program: &str,
    bundle: &OwnedFd,
    hooks: &[StagedHook],
    end: &End,
) -> Option<Error> {
    end.status_before_start().filter(|status| *status != FAILED)?;
    let hooks = hooks.iter().filter(|hook| hook.stage == "startContainer");
    let paths = hooks.map(|hook| hook.path.display().to_string()).collect::<Vec<_>>();
    if paths.is_empty() {
        return None;
    }
    let text = format!("cannot start '{program}' in the container: a startContainer hook failed");
    let output = in_one_line(&read(bundle, HOOKS_OUTPUT).unwrap_or_default());
    let output = if output.is_empty() { output } else { format!("; its output: {output}") };
    let hint = format!("the image must have a working {}{output}", paths.join(" and "));
    Some(Error::new(text).with_hint(hint).with_exit_code(FAILED))
}

fn read(bundle: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(bundle, name, flags, Mode::empty()).ok()?;
    let bytes = read_at_most(std::fs::File::from(file), MAX_SIZE).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Failure in a log that kept the runtime from starting the container. runc also logs failures after
/// the end of the program.
fn failure(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains("run failed") || !line.contains("level="))?;
    let quoted = line.split_once(" msg=\"").and_then(|(_, rest)| rest.strip_suffix('"'));
    let text = quoted.map_or_else(|| line.to_owned(), unquoted);
    let text = text.strip_prefix("runc run failed: ").unwrap_or(&text);
    // Empty output of a hook is left out.
    let text = text.trim_end();
    Some(in_one_line(text.strip_suffix(", stdout: , stderr:").unwrap_or(text)))
}

/// Undoes Go's quoting (strconv.Quote), as far as needed in one line.
fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n' | 't' | 'r') | None => ' ',
                Some(letter) => letter,
            },
            letter => letter,
        });
    }
    plain
}

fn in_one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Path and stage of a hook that runc names by its number in its stage (`hook #2`).
fn hook_named_in(cause: &str, hooks: &[StagedHook]) -> Option<String> {
    let (_, rest) = cause.split_once("hook #")?;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let number: usize = rest.get(..digits)?.parse().ok()?;
    let mut stages: Vec<_> = hooks.iter().map(|hook| hook.stage).collect();
    stages.sort_unstable();
    stages.dedup();
    let found = stages.iter().filter_map(|stage| {
        let hook = hooks.iter().filter(|hook| hook.stage == *stage).nth(number)?;
        // Hooks of the engine explain their failures themselves.
        (!hook.is_engines).then(|| format!("{} ({stage})", hook.path.display()))
    });
    let found = found.collect::<Vec<_>>().join(" or ");
    (!found.is_empty()).then(|| format!("hook #{number} is {found}"))
}

#[cfg(test)]
mod tests {
    use super::super::hooks::{Confinement, arrange};
    use super::*;
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
        let hooks = arrange(&list.iter().collect::<Vec<_>>(), confinement);
        let name = |why| hook_named_in(why, &hooks);
        assert_eq!(name("error running hook #2: x").unwrap(), "hook #2 is /b (prestart)");
        assert_eq!(name("hook #0").unwrap(), "hook #0 is /c (poststop)");
        assert_eq!(name("hook #3: x"), None);
        assert_eq!(name("no such file"), None);
    }
}
