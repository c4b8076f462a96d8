//! Identification of the OCI runtime of the site, by its answer to `--version`.
//!
//! An answer costs a start of the runtime, some 10 ms for runc. So answers are kept in `CACHE`, a
//! directory of root's in memory, by inode, size and times of the program.

use crate::container::plan::oci_runtime::OciRuntime;
use crate::error::{Context, Error, Result};
use crate::log;
use crate::site::config::Config;
use crate::site::trust;
use crate::sys::fs::{FileId, resolve};
use crate::sys::ids;
use crate::sys::process::output;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::path::Path;

/// Directory of the cache, which root alone can change. A restart of the node empties it.
const CACHE: &str = "/run/sarus";

/// Maximum length of an answer, in bytes.
const MAX_ANSWER: usize = 4096;

/// Identifies the runtime that `config` names, after verifying that root alone can change it.
///
/// # Errors
/// If users could change the program, or it does not answer.
pub fn identify(config: &Config) -> Result<OciRuntime> {
    let path = &config.runc_path;
    let program = trust::program(path, config.checks)?;
    let (name, stamp) = (cache_name(&program)?, stamp(&program)?);
    if let Some(answer) = recall(&name, &stamp) {
        return Ok(OciRuntime::parse(path, &answer));
    }
    let answer = output::output(path, &["--version"], MAX_ANSWER)
        .map_err(|error| error.with_hint("runcPath of sarus.json must name an OCI runtime"))?;
    if ids::is_effective_root() {
        keep(&name, &format!("{stamp}\n{answer}")).unwrap_or_else(|error| {
            log::info("runtime", || format!("{error}: the next start asks it again"));
        });
    }
    Ok(OciRuntime::parse(path, &answer))
}

fn cache_name(program: &OwnedFd) -> Result<String> {
    Ok(format!("runtime-{}", FileId::from_fd(program)?))
}

/// Size, modification time and status change time of a program: every change of it changes these.
fn stamp(program: &OwnedFd) -> Result<String> {
    let status = resolve::status(program).context(|| "cannot stat the OCI runtime".into())?;
    let rustix::fs::Stat { st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = status;
    Ok(format!("{st_size} {st_mtime}.{st_mtime_nsec} {st_ctime}.{st_ctime_nsec}"))
}

/// Answer in the cache, if there is one for this `stamp`.
fn recall(name: &str, stamp: &str) -> Option<String> {
    let text = trust::read(&Path::new(CACHE).join(name), 2 * MAX_ANSWER as u64).ok()?;
    text.strip_prefix(stamp)?.strip_prefix('\n').map(str::to_owned)
}

/// Writes `text` as the file `name` of the cache, by rename.
fn keep(name: &str, text: &str) -> Result<()> {
    let context = || format!("cannot keep the version of the OCI runtime in {CACHE}");
    match rustix::fs::mkdir(CACHE, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(errno) => return Err(errno).context(context),
    }
    let directory = trust::find(Path::new(CACHE))?.ok_or_else(|| Error::new(context()))?;
    let new = format!(".{name}.{}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::unlinkat(&directory, &new, rustix::fs::AtFlags::empty()).ok();
    let file = rustix::fs::openat(&directory, &new, flags, Mode::from_raw_mode(0o644));
    let mut file = std::fs::File::from(file.context(context)?);
    file.write_all(text.as_bytes()).context(context)?;
    rustix::fs::renameat(&directory, &new, &directory, name).context(context)
}
