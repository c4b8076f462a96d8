//! The hook that lets the containers of a user reach each other by SSH, on all nodes. Manual, "SSH
//! hook". Start at [`start_sshd`].
//!
//! Everything is shown in the container at [`HOME`]: the site's OpenSSH, read-only, and on one of its
//! directories a file system in memory with the keys, which no other user can reach: it is mounted in
//! the container alone, and is closed to all but its owner.
//!
//! The hook only mounts and writes: a process of the user's in the container, while root still works
//! there, would be a door for the user. `launch` starts sshd ([`daemon`]) when root has finished, with
//! the rights of the container's program and in its PID namespace: they end together.

pub mod daemon;
mod format;
pub mod keygen;
pub mod keys;
mod port;
mod session;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::container_root::Inside;
use super::files::{Tree, directory, kind_of};
use super::{Container, elf, home, setting};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::resolve;
use crate::sys::ids;
use crate::user::User;
use keys::{Keys, Texts};
use session::Shell;

/// Set by the engine for `--ssh`.
const ENABLED: &str = "com.hooks.ssh.enabled";

/// Who speaks, in the log.
const SUBSYSTEM: &str = "SSH hook";

/// Where the site's OpenSSH is in every container: its programs were built to look for their
/// configuration there.
const HOME: &str = "/opt/sarus/openssh";

/// Where all of it comes from.
const HINT: &str = "'make openssh' builds it, and 'make install' puts it there";

/// What of it holds keys and all else that is the user's.
const KEYS: &str = "userkeys";

/// Prepares the container for sshd: programs, keys, a login shell, and the client in the search path.
///
/// # Errors
/// When a step fails.
pub fn prepare(container: &Container) -> Result<()> {
    if !container.asks_for(ENABLED) {
        return Ok(());
    }
    let user = &container.spec.user;
    if user.uid.is_root() {
        return Err(Error::new("cannot start sshd for root: it would need root's capabilities")
            .with_hint("run the container as an ordinary user"));
    }
    let openssh = openssh()?;
    let home = home::of(user)?;
    let keys = ids::as_other(user, || Keys::of(&home).read())?;
    let port = port::of_user(&keys.host)?;
    check_sshd(&openssh)?;
    let inside = Inside::enter(container)?;
    let place = Place { directory: show(&inside, &openssh, user)?, user };
    place.write_keys(&keys)?;
    let environment = session::environment(&container.spec.env).unwrap_or_else(|| {
        log::warn(SUBSYSTEM, "the environment is too large: logins do not get it");
        String::new()
    });
    place.write("sshd_config", 0o600, &format!("Port {port}\n{environment}"))?;
    place.write("ssh_config", 0o600, &format!("Port {port}\n"))?;
    provide_shell(&inside, &place)?;
    inside.cover(&openssh.join("bin/ssh"), Path::new("/usr/bin"), "ssh")
}

/// `OPENSSH_DIR`
fn openssh() -> Result<PathBuf> {
    let path = setting("OPENSSH_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| {
        Error::new("cannot start sshd: OPENSSH_DIR is no absolute path")
            .with_hint("the site sets it in the environment of the hook, in sarus.json")
    })
}

/// Makes sure that the daemon is a static program: in the container, another one would load what the
/// image has.
fn check_sshd(openssh: &Path) -> Result<()> {
    let path = openssh.join("sbin/sshd");
    let cannot = || format!("cannot use {}", path.display());
    let host = Tree { root: directory(Path::new("/"))?, user: None };
    let program = host.open_file(&path)?.ok_or("it is not there").context(cannot);
    let program = program.map_err(|error| error.with_hint(HINT))?;
    if elf::read(&program).context(cannot)?.interpreter.is_some() {
        return Err(Error::caused_by(cannot(), "it is not statically linked").with_hint(HINT));
    }
    Ok(())
}

/// Shows OpenSSH in the container, with a new file system for keys; its directory.
fn show(inside: &Inside, openssh: &Path, user: &User) -> Result<OwnedFd> {
    let readonly = Restrictions { readonly: true, nodev: true, noexec: false };
    inside.show(openssh, Path::new(HOME), readonly)?;
    let cannot = || format!("cannot prepare {HOME}/etc/{KEYS}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let etc = inside.container.find(&Path::new(HOME).join("etc"), flags)?;
    let site = resolve::find_beneath(&inside.host.root, &openssh.join("etc"), flags)?;
    let (Some(etc), Some(site)) = (etc, site) else {
        return Err(format!("{} has no etc", openssh.display())).context(cannot);
    };
    // Then nobody but the site can change what is in it.
    let identity =
        |file: &OwnedFd| resolve::status(file).map(|status| (status.st_dev, status.st_ino));
    if identity(&etc).context(cannot)? != identity(&site).context(cannot)? {
        return Err("it moved meanwhile").context(cannot);
    }
    let keys = || {
        let keys = rustix::fs::openat(&etc, KEYS, flags | OFlags::CLOEXEC, Mode::empty());
        keys.context(cannot).map_err(|error| error.with_hint(HINT))
    };
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    // Room for the largest user database too.
    let options = format!("mode=700,uid={uid},gid={gid},size=80m,nr_inodes=64");
    let restrictions = Restrictions { readonly: false, nodev: true, noexec: true };
    mount::filesystem("tmpfs", "tmpfs", keys()?, restrictions, &options).context(cannot)?;
    // Opened anew, it is what was mounted.
    keys()
}

/// The directory that is the user's alone.
struct Place<'a> {
    directory: OwnedFd,
    user: &'a User,
}

impl Place<'_> {
    fn write_keys(&self, keys: &Texts) -> Result<()> {
        for (name, mode, text) in [
            (keys::HOST, 0o600, &keys.host),
            (keys::USER, 0o600, &keys.user),
            ("id_ed25519.pub", 0o644, &keys.user_public),
            ("authorized_keys", 0o600, &keys.user_public),
            // All containers of the user have the same key, and no other machine has it.
            ("known_hosts", 0o644, &format!("* {}", keys.host_public)),
        ] {
            self.write(name, mode, text)?;
        }
        Ok(())
    }

    /// Writes a new file, as the user.
    fn write(&self, name: &str, mode: u32, text: &str) -> Result<()> {
        use std::io::Write;
        let cannot = || format!("cannot write {HOME}/etc/{KEYS}/{name}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        ids::as_other(self.user, || {
            let mode = Mode::from_raw_mode(mode);
            let file = rustix::fs::openat(&self.directory, name, flags, mode).context(cannot)?;
            std::fs::File::from(file).write_all(text.as_bytes()).context(cannot)
        })
    }
}

/// Makes sure that sshd finds a shell for the user, if the container has any: it refuses logins
/// otherwise. The changed `/etc/passwd` covers what is there, which may be a file of the host.
fn provide_shell(inside: &Inside, place: &Place<'_>) -> Result<()> {
    let path = Path::new("/etc/passwd");
    let text = match inside.container.open_file(path)? {
        Some(file) => super::read_bytes(std::fs::File::from(file), home::MAX_PASSWD)
            .context(|| "cannot use the container's /etc/passwd".into())?,
        None => vec![],
    };
    let text = String::from_utf8_lossy(&text);
    match session::shell(&text, place.user, |shell| is_program(inside, shell)) {
        Shell::Good => Ok(()),
        Shell::None(why) => {
            log::warn(SUBSYSTEM, &format!("nobody can log in to this container: {why}"));
            Ok(())
        }
        Shell::Other(text) => {
            let cannot = || "cannot provide a shell".to_owned();
            place.write("passwd", 0o644, &text)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = rustix::fs::openat(&place.directory, "passwd", flags, Mode::empty());
            let restrictions = Restrictions { readonly: false, nodev: true, noexec: true };
            inside.cover_file(&new.context(cannot)?, path, restrictions).context(cannot)
        }
    }
}

/// Whether `path` is a program in the container, as far as its user can see.
fn is_program(inside: &Inside, path: &str) -> bool {
    let found = inside.container.find(Path::new(path), OFlags::PATH).ok().flatten();
    let is = |file: &OwnedFd| {
        kind_of(file).is_ok_and(|kind| kind == rustix::fs::FileType::RegularFile)
            && resolve::status(file).is_ok_and(|status| status.st_mode & 0o111 != 0)
    };
    found.as_ref().is_some_and(is)
}
