//! Shell and environment of a login into a container. Pure functions.

use std::fmt::Write;

use crate::site;
use crate::user::User;

/// Variables that logins do not get: those that sshd sets itself.
const LEFT_OUT: [&str; 10] =
    ["HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "TERM", "MAIL", "_"];
/// Prefixes of variables that logins do not get: those that describe the task of a job, which a login is
/// not.
const LEFT_OUT_PREFIXES: [&str; 5] = ["SSH_", "SLURM_", "PMI_", "PMIX_", "PALS_"];

/// Maximum size of the line in bytes. sshd passes its configuration on to each login in a message of at
/// most 256 KiB.
const MAX_ENVIRONMENT: usize = 128 << 10;

/// Maximum number of variables. sshd ends a login with a thousand, and adds some of its own.
const MAX_VARIABLES: usize = 960;

/// The `SetEnv` line of sshd_config(5) with `environment`; `None` if it would be too large. Values with a
/// line break, which the format does not allow, are left out.
#[must_use]
pub fn environment(environment: &[(String, String)]) -> Option<String> {
    let mut line = String::from("SetEnv");
    let mut count = 0;
    for (name, value) in environment {
        let task = LEFT_OUT_PREFIXES.iter().any(|start| name.starts_with(start));
        if task
            || LEFT_OUT.contains(&name.as_str())
            || !is_name(name)
            || value.contains(['\n', '\r'])
        {
            continue;
        }
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        write!(line, " \"{name}={value}\"").ok();
        count += 1;
    }
    match line.as_str() {
        "SetEnv" => Some(String::new()),
        _ if line.len() > MAX_ENVIRONMENT || count > MAX_VARIABLES => None,
        _ => Some(line + "\n"),
    }
}

fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The login shell of a user in a container.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginShell {
    /// The shell of the user database exists.
    Found,
    /// It does not: the text of the user database with `/bin/sh` instead.
    Replaced(String),
    /// Logins are not possible, for this reason.
    Unavailable(&'static str),
}

/// Finds the shell of `user` in `passwd`, the text of the container's user database. `exists` returns
/// true for the path of a program.
#[must_use]
pub fn shell(passwd: &str, user: &User, exists: impl Fn(&str) -> bool) -> LoginShell {
    const DEFAULT: &str = "/bin/sh";
    let Some(name) = site::passwd::user_name(passwd, user.uid) else {
        return LoginShell::Unavailable("the user is not in its /etc/passwd");
    };
    let is_users = |line: &str| line.split(':').next() == Some(name);
    let line = passwd.lines().find(|line| is_users(line)).unwrap_or_default();
    let Some((rest, shell)) =
        line.rsplit_once(':').filter(|(rest, _)| rest.split(':').count() == 6)
    else {
        return LoginShell::Unavailable("malformed line of the user in its /etc/passwd");
    };
    if exists(if shell.is_empty() { DEFAULT } else { shell }) {
        return LoginShell::Found;
    }
    if !exists(DEFAULT) {
        return LoginShell::Unavailable("the image has no shell");
    }
    let changed = |line: &str| {
        if is_users(line) { format!("{rest}:{DEFAULT}\n") } else { format!("{line}\n") }
    };
    LoginShell::Replaced(passwd.lines().map(changed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Gid, Uid};

    #[test]
    fn logins_get_the_containers_environment_but_for_the_task() {
        let variables = [
            ("PATH", "/opt/mpi/bin:/bin"),
            ("QUOTES", r#"a "b" 'c' \d #e"#),
            ("EMPTY", ""),
            ("HOME", "/root"),
            ("SLURM_PROCID", "3"),
            ("PMI_FD", "3"),
            ("PMIX_RANK", "0"),
            ("SSH_CONNECTION", "x"),
            ("LINES", "a\nPermitRootLogin yes"),
            ("RETURN", "a\rb"),
            ("BAD NAME", "x"),
            ("BASH_FUNC_x%%", "() { :; }"),
        ];
        let variables: Vec<_> = variables.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let expected =
            r#"SetEnv "PATH=/opt/mpi/bin:/bin" "QUOTES=a \"b\" 'c' \\d #e" "EMPTY=""#.to_owned();
        assert_eq!(environment(&variables), Some(expected + "\n"));
        assert_eq!(environment(&[]), Some(String::new()));
        let long = ("LONG".to_owned(), "x".repeat(MAX_ENVIRONMENT));
        assert_eq!(environment(&[long]), None);
        let many = |count| (0..count).map(|n| (format!("V{n}"), String::new())).collect::<Vec<_>>();
        assert!(environment(&many(MAX_VARIABLES)).is_some());
        assert_eq!(environment(&many(MAX_VARIABLES + 1)), None);
    }

    #[test]
    fn a_shell_that_is_not_there_gives_way_to_bin_sh() {
        let user = User { uid: Uid::from_raw(7), gid: Gid::from_raw(7), groups: vec![] };
        let passwd = "aa:x:7:7::/a:/bin/zsh\na:x:7:7::/a:/bin/zsh\nb:x:8:8::/b:/bin/zsh\n";
        let other = "aa:x:7:7::/a:/bin/sh\na:x:7:7::/a:/bin/zsh\nb:x:8:8::/b:/bin/zsh\n";
        let unknown = LoginShell::Unavailable("the user is not in its /etc/passwd");
        let none = || LoginShell::Unavailable("the image has no shell");
        for (text, there, expected) in [
            (passwd, &["/bin/sh", "/bin/zsh"][..], LoginShell::Found),
            (passwd, &["/bin/sh"], LoginShell::Replaced(other.into())),
            (passwd, &[], none()),
            ("a:x:7:7::/a:\n", &["/bin/sh"], LoginShell::Found),
            ("a:x:7:7::/a:", &[], none()),
            (
                "a:x:7:7",
                &["/bin/sh"],
                LoginShell::Unavailable("malformed line of the user in its /etc/passwd"),
            ),
            ("", &["/bin/sh"], unknown),
        ] {
            assert_eq!(shell(text, &user, |path| there.contains(&path)), expected, "{text}");
        }
    }
}
