//! Checks of the program, of its configuration with all that it names, and of directories for images.

use super::{Report, Status};
use crate::bytes;
use crate::container::plan::oci_runtime::{OciRuntime, RuntimeKind};
use crate::container::run::external;
use crate::container::seccomp;
use crate::error::Result;
use crate::image::reference::Reference;
use crate::import::temp::TempDir;
use crate::log::Level;
use crate::registry::{Login, Registry, Settings};
use crate::site::config::{Config, Installation};
use crate::site::trust::{self, Checks};
use crate::store::Repository;
use crate::sys::fs::space;
use crate::sys::ids;
use crate::user::User;
use rustix::fs::{Access, Mode, Stat, StatVfsMountFlags};
use std::path::Path;

/// Free space, in bytes, below which imports will soon fail.
const LITTLE_SPACE: u64 = 1 << 30;

/// Checks that the program can become root for `run`.
pub(super) fn program(report: &mut Report<'_>, installation: &Installation) {
    let path = &installation.program;
    let shown = path.display();
    let (status, system) = match (rustix::fs::stat(path), rustix::fs::statvfs(path)) {
        (Ok(status), Ok(system)) => (status, system),
        _ => return report.unknown("program", &format!("what {shown} is"), "ask root to check"),
    };
    let configure = "run configure_installation.sh as root";
    let user = !rustix::process::getuid().is_root();
    if !is_setuid_root(&status) {
        report.error(
            "program",
            format!("{shown} is not setuid root: nobody can run containers"),
            configure,
        );
    } else if system.f_flag.contains(StatVfsMountFlags::NOSUID) {
        report.error(
            "program",
            format!("{shown} is on a file system that is mounted nosuid"),
            "mount it without nosuid, or install elsewhere",
        );
    } else if user && !ids::were_raised() {
        report.error(
            "program",
            "the kernel ignores the setuid bit for this process",
            "no_new_privs is set, or this is a user namespace: start from another shell or service",
        );
    } else if Mode::from_raw_mode(status.st_mode).contains(Mode::SGID) {
        report.warning("program", format!("{shown} is setgid, too"), configure);
    } else {
        report.ok("program", format!("{shown} is setuid root"));
    }
}

fn is_setuid_root(status: &Stat) -> bool {
    status.st_uid == 0 && Mode::from_raw_mode(status.st_mode).contains(Mode::SUID)
}

/// Reads sarus.json, and reports all of its faults.
pub(super) fn configuration(
    report: &mut Report<'_>,
    installation: &Installation,
) -> Option<Config> {
    const SUBJECT: &str = "configuration";
    let parsed = match Config::read(installation) {
        Ok(parsed) => parsed,
        Err(error) => {
            report.failure(SUBJECT, &error);
            return None;
        }
    };
    for (level, note) in parsed.notes {
        let status = if level >= Level::Warn { Status::Warning } else { Status::Ok };
        report.tell(SUBJECT, status, note, None);
    }
    let config = match parsed.config {
        Ok(config) => config,
        Err(error) => {
            report.failure(SUBJECT, &error);
            return None;
        }
    };
    report.ok(
        SUBJECT,
        format!("{} can be read, and by root alone changed", installation.config().display()),
    );
    if config.checks == Checks::Off {
        report.warning(
            SUBJECT,
            "securityChecks is false: users may become root by what sarus.json names",
            "set it to true, but on machines for tests",
        );
    }
    Some(config)
}

/// Checks that root may execute the OCI runtime, and that its release has no known vulnerability.
pub(super) fn runtime(report: &mut Report<'_>, config: &Config) -> Option<OciRuntime> {
    const SUBJECT: &str = "runcPath";
    let runtime = match external::identify(config) {
        Ok(Some(runtime)) => runtime,
        Ok(None) => {
            report.ok(SUBJECT, "not set: the built-in runtime executes containers");
            return None;
        }
        Err(error) => {
            report.failure(SUBJECT, &error);
            return None;
        }
    };
    let (path, version) = (runtime.path.display(), &runtime.version);
    match (runtime.kind, runtime.has_known_holes()) {
        (RuntimeKind::Other, _) => report.warning(
            SUBJECT,
            format!("{path} is neither runc nor crun, as it says itself"),
            "containers run only if it takes the command line of runc and runs all hooks",
        ),
        (_, true) => report.warning(
            SUBJECT,
            format!(
                "{path} says that it is runc {version}, older than the fixes of CVE-2025-31133, \
                 CVE-2025-52565 and CVE-2025-52881"
            ),
            FIXED,
        ),
        (RuntimeKind::Runc, false) => report.ok(SUBJECT, format!("{path} is runc {version}")),
        (RuntimeKind::Crun, false) => report.ok(SUBJECT, format!("{path} is crun {version}")),
    }
    Some(runtime)
}

/// Advice for runc without the fixes. A package of an older release may have them.
const FIXED: &str = "install runc 1.2.8, 1.3.3 or later (Ubuntu: 1.3.3, by USN-7851-1), or crun; a \
    package of an older release has the fixes if its changelog names these numbers (apt changelog \
    runc, rpm -q --changelog runc): Debian 12's 1.1.5+ds1-1+deb12u1 has not";

/// Checks all that sarus.json names and root uses.
pub(super) fn named(report: &mut Report<'_>, config: &Config, runtime: Option<&OciRuntime>) {
    let checks = config.checks;
    let judged = if checks == Checks::On { ", and safe from others" } else { "" };
    let safe = |path: &Path, opened: Result<_>| {
        opened.map(|_| format!("{} is there{judged}", path.display()))
    };
    let prefix = &config.prefix_dir;
    report.result("prefixDir", safe(prefix, trust::directory(prefix, checks)));
    let bundles = &config.bundle_dir;
    report.result("OCIBundleDir", safe(bundles, trust::tree(bundles, checks)));
    if let Some(init) = &config.init_path {
        report.result("initPath", safe(init, trust::program(init, checks)));
    }
    for hook in &config.hooks.list {
        let path = &hook.path;
        if hook.is_of_host() {
            report.result(hook.stage, safe(path, trust::program(path, checks)));
        } else if let Some(Err(error)) =
            runtime.map(|one| one.check_start_hooks(config.hooks.list.iter()))
        {
            report.failure(hook.stage, &error);
        } else {
            let text = format!("{} is each image's own, and runs as the user", path.display());
            report.ok(hook.stage, text);
        }
    }
    for openssh in config.hooks.list.iter().filter_map(|hook| hook.openssh(prefix)) {
        if openssh.exists() {
            report.result("openssh", safe(&openssh, trust::tree(&openssh, checks)));
        } else {
            report.warning(
                "openssh",
                format!("{} does not exist, which ssh_hook needs", openssh.display()),
                "install it, or remove the hook from sarus.json",
            );
        }
    }
}

/// Checks the seccomp profile of containers.
pub(super) fn seccomp(report: &mut Report<'_>, config: &Config) {
    const SUBJECT: &str = "seccompProfile";
    match seccomp::describe(config) {
        Ok((text, notes)) => {
            for (_, note) in notes {
                report.warning(SUBJECT, note, "remove it from the profile");
            }
            report.ok(SUBJECT, text);
        }
        Err(error) => report.failure(SUBJECT, &error),
    }
}

/// Checks the directories of images and temporary files.
pub(super) fn storage(report: &mut Report<'_>, config: &Config) {
    let local = User::caller().and_then(|user| Repository::local(config, &user));
    match local {
        Ok(local) => place(report, "images", local.path()),
        Err(error) => report.failure("images", &error),
    }
    // A repository is made where there is none; this is not.
    match TempDir::new(&config.temp_dir) {
        Ok(space) => place(report, "tempDir", space.path()),
        Err(error) => report.failure("tempDir", &error),
    }
    let Some(shared) = config.centralized_repository_dir.as_deref() else { return };
    const SUBJECT: &str = "centralizedRepositoryDir";
    match trust::directory(shared, Checks::On) {
        Ok(_) => report.ok(SUBJECT, format!("{} can be changed by root alone", shared.display())),
        Err(_) if !shared.exists() => {
            report.ok(SUBJECT, format!("{} will be made by the first image", shared.display()));
        }
        Err(error) => report.tell(SUBJECT, Status::Warning, error.to_string(), error.hint()),
    }
}

/// Checks that the caller can write in `path`, or create it, and that there is free space.
fn place(report: &mut Report<'_>, subject: &'static str, path: &Path) {
    let found = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    if rustix::fs::access(found, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let text = format!("{} is not writable for this user", found.display());
        return report.error(
            subject,
            text,
            "change its owner or mode, or name another directory in sarus.json",
        );
    }
    let Ok(free) = space::free(found) else {
        return report.unknown(subject, &format!("what is free at {}", path.display()), "use df");
    };
    let text = format!("{} has {} free", path.display(), bytes::format_size(free));
    if free < LITTLE_SPACE {
        report.warning(subject, text, "free some space, or imports of large images will fail");
    } else {
        report.ok(subject, text);
    }
}

/// Checks that a registry answers.
pub(super) fn registry(report: &mut Report<'_>, server: &str, insecure: &[String]) {
    // Any name will do: no image is requested.
    let ping = format!("{server}/check/check").parse::<Reference>().and_then(|reference| {
        let settings = Settings::from_environment(insecure);
        Registry::new(&reference, settings, Login::Stored).ping()
    });
    report.result("registry", ping.map(|()| format!("{server} answers")));
}
