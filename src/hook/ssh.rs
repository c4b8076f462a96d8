//! The hook that lets the containers of a user reach each other by SSH, on all nodes. Manual, "SSH
//! hook". Start at [`prepare`].
//!
//! All files are mounted in the container at `HOME`: the site's OpenSSH, read-only, and on one of its
//! directories a tmpfs with the keys. No other user can reach the keys: the tmpfs is mounted in the
//! container alone, and its mode is 0700.
//!
//! The hook mounts and writes, and starts no process: through a process of their own in the container,
//! users could interfere while root still works there. `launch` starts sshd ([`daemon`]) when root has
//! finished, with the rights of the container's program and in its PID namespace: both end together.

pub mod daemon;
mod key_format;
pub mod keygen;
pub mod keys;
mod port;
mod session;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::container_root::ContainerRoot;
use super::libraries::elf;
use super::{Container, home, path_setting};
use crate::error::{Context, Error, Result};
use crate::log;
use crate::rootfs::root_dir::{RootDir, file_type};
use crate::site;
use crate::sys::fs::mount::{self, Restrictions};
use crate::sys::fs::read::read_at_most;
use crate::sys::fs::{FileId, resolve};
use crate::sys::ids;
use crate::user::User;
use keys::{KeyFiles, UserKeys};
use session::LoginShell;

/// Annotation that asks for this hook: `--ssh`.
pub const ENABLED: &str = "com.hooks.ssh.enabled";

const SUBSYSTEM: &str = "SSH hook";

/// The directory of the site's OpenSSH in every container. Its programs are built to read their
/// configuration there.
const HOME: &str = "/opt/sarus/openssh";

const HINT: &str = "'make openssh' builds OpenSSH, and 'make install' installs it";

/// The directory in `etc` of OpenSSH for keys and other files of the user.
const KEYS: &str = "userkeys";

/// Prepares the container for sshd: programs, keys, a login shell, and the client in the search path.
///
/// # Errors
/// If the user is root, or a step fails.
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
    let home = home::directory(user)?;
    let keys = ids::as_other_user(user, || UserKeys::in_home(&home).read())?;
    let port = port::for_key(&keys.host)?;
    check_sshd(&openssh)?;
    let root = ContainerRoot::enter(container)?;
    let key_dir = KeyDir { directory: mount_openssh(&root, &openssh, user)?, user };
    key_dir.write_keys(&keys)?;
    let environment = session::environment(&container.spec.env).unwrap_or_else(|| {
        log::warn(SUBSYSTEM, "the environment is too large: logins do not get it");
        String::new()
    });
    key_dir.write("sshd_config", 0o600, &format!("Port {port}\n{environment}"))?;
    key_dir.write("ssh_config", 0o600, &format!("Port {port}\n"))?;
    provide_shell(&root, &key_dir)?;
    root.replace_program(&openssh.join("bin/ssh"), Path::new("/usr/bin"), "ssh")
}

/// The site's OpenSSH: `OPENSSH_DIR`.
fn openssh() -> Result<PathBuf> {
    path_setting("OPENSSH_DIR").context(|| "cannot start sshd".into())
}

/// Checks that sshd is a static program: a dynamically linked one would load libraries of the image.
fn check_sshd(openssh: &Path) -> Result<()> {
    let path = openssh.join("sbin/sshd");
    let context = || format!("cannot use {}", path.display());
    let program = RootDir::host()?.open_file(&path)?.ok_or("No such file").context(context);
    let program = program.map_err(|error| error.with_hint(HINT))?;
    if elf::read(&program).context(context)?.interpreter.is_some() {
        return Err(Error::caused_by(context(), "not statically linked").with_hint(HINT));
    }
    Ok(())
}

/// Mounts OpenSSH in the container, and a new tmpfs for keys, whose directory is returned.
fn mount_openssh(root: &ContainerRoot, openssh: &Path, user: &User) -> Result<OwnedFd> {
    let readonly = Restrictions { readonly: true, nodev: true, noexec: false };
    root.mount(openssh, Path::new(HOME), readonly)?;
    let context = || format!("cannot prepare {HOME}/etc/{KEYS}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let etc = root.container.find(&Path::new(HOME).join("etc"), flags)?;
    let site = resolve::find_in_root(&root.host.directory, &openssh.join("etc"), flags)?;
    let (Some(etc), Some(site)) = (etc, site) else {
        return Err(format!("{} has no etc", openssh.display())).context(context);
    };
    // In the site's own directory, nobody else can change files.
    if FileId::from_fd(&etc).context(context)? != FileId::from_fd(&site).context(context)? {
        return Err("it was moved meanwhile").context(context);
    }
    let keys = || {
        let keys = rustix::fs::openat(&etc, KEYS, flags | OFlags::CLOEXEC, Mode::empty());
        keys.context(context).map_err(|error| error.with_hint(HINT))
    };
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    // With space for a copy of the largest user database.
    let options = format!("mode=700,uid={uid},gid={gid},size=80m,nr_inodes=64");
    let restrictions = Restrictions { readonly: false, nodev: true, noexec: true };
    mount::filesystem("tmpfs", "tmpfs", keys()?, restrictions, &options).context(context)?;
    // Opened again, the directory is the root of the new tmpfs.
    keys()
}

/// The directory of keys in the container.
struct KeyDir<'a> {
    directory: OwnedFd,
    user: &'a User,
}

impl KeyDir<'_> {
    fn write_keys(&self, keys: &KeyFiles) -> Result<()> {
        for (name, mode, text) in [
            (keys::HOST, 0o600, &keys.host),
            (keys::USER, 0o600, &keys.user),
            ("id_ed25519.pub", 0o644, &keys.user_public),
            ("authorized_keys", 0o600, &keys.user_public),
            // All containers of the user have this host key, and no other machine has it.
            ("known_hosts", 0o644, &format!("* {}", keys.host_public)),
        ] {
            self.write(name, mode, text)?;
        }
        Ok(())
    }

    /// Writes a new file with the rights of the user.
    fn write(&self, name: &str, mode: u32, text: &str) -> Result<()> {
        use std::io::Write;
        let context = || format!("cannot write {HOME}/etc/{KEYS}/{name}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        ids::as_other_user(self.user, || {
            let mode = Mode::from_raw_mode(mode);
            let file = rustix::fs::openat(&self.directory, name, flags, mode).context(context)?;
            std::fs::File::from(file).write_all(text.as_bytes()).context(context)
        })
    }
}

/// Provides a login shell for the user, without which sshd refuses logins. If the shell of `/etc/passwd`
/// is missing, a copy with `/bin/sh` is mounted over that file, which may be one of the host.
fn provide_shell(root: &ContainerRoot, key_dir: &KeyDir<'_>) -> Result<()> {
    let path = Path::new("/etc/passwd");
    let text = match root.container.open_file(path)? {
        Some(file) => read_at_most(std::fs::File::from(file), site::passwd::MAX_SIZE)
            .context(|| "cannot use the container's /etc/passwd".into())?,
        None => vec![],
    };
    let text = String::from_utf8_lossy(&text);
    match session::shell(&text, key_dir.user, |shell| is_program(root, shell)) {
        LoginShell::Found => Ok(()),
        LoginShell::Unavailable(why) => {
            log::warn(SUBSYSTEM, &format!("nobody can log in to this container: {why}"));
            Ok(())
        }
        LoginShell::Replaced(text) => {
            let context = || "cannot provide a shell".to_owned();
            key_dir.write("passwd", 0o644, &text)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let new = rustix::fs::openat(&key_dir.directory, "passwd", flags, Mode::empty());
            let restrictions = Restrictions { readonly: false, nodev: true, noexec: true };
            root.cover(&new.context(context)?, path, restrictions).context(context)
        }
    }
}

/// True if `path` is a program in the container that its user can see.
fn is_program(root: &ContainerRoot, path: &str) -> bool {
    let found = root.container.find(Path::new(path), OFlags::PATH).ok().flatten();
    let is = |file: &OwnedFd| {
        file_type(file).is_ok_and(|kind| kind == rustix::fs::FileType::RegularFile)
            && resolve::status(file).is_ok_and(|status| status.st_mode & 0o111 != 0)
    };
    found.as_ref().is_some_and(is)
}
