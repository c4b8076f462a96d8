//! What OCI hooks share: the container's state from stdin, its config.json, and how to speak with the
//! user. Start at [`run`].
//!
//! A hook is started by an OCI runtime, as root, with an environment of the site's. It serves any
//! engine: nothing here knows of this one but the names of the annotations. What the container's
//! configuration says is the user's or the image's word, and is checked where it is used. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>.

pub mod confine;
pub mod container_root;
pub mod elf;
pub mod files;
pub mod glibc;
pub mod home;
pub mod ldcache;
pub mod library;
pub mod mpi;
pub mod slurm;
pub mod ssh;
pub mod state;
pub mod timestamp;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::sys::descriptors;
use crate::sys::fs::mount;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::{FileId, resolve};
use crate::sys::process::user_stderr::UserStderr;
use files::Tree;
use library::Library;
use rustix::fs::{Mode, OFlags};
use state::{Spec, State};

/// States hold the annotations, which some engines fill with whole documents.
const MAX_STATE: u64 = 1 << 20;

/// config.json holds the environment, of which the kernel takes 6 MiB at most, and everything that an
/// engine wants to mount.
const MAX_CONFIG: u64 = 8 << 20;

/// How much is shown of what a hook logs: a number, as in the engine's own log.
const LEVEL: &str = "com.hooks.logging.level";

/// Where the engine's stderr is found: `/proc/<runtime>/fd/<number>`.
const STDERR: &str = "com.hooks.logging.stderrfd";

/// The container that a hook is run for.
#[derive(Debug)]
pub struct Container {
    /// What the runtime says on stdin.
    pub state: State,
    /// What the engine asked the runtime for.
    pub spec: Spec,
}

/// Runs a hook: `work` for the container that stdin tells of.
///
/// # Errors
/// Those of `work`, or when the container is not told of properly.
pub fn run(work: impl FnOnce(&Container) -> Result<()>) -> Result<u8> {
    // Whatever the runtime left open.
    descriptors::close_descriptors(None)?;
    let container = Container::receive()?;
    container.set_log_level();
    // Runtimes keep what hooks write to stderr to themselves, but for what they failed of.
    let voice = UserStderr::from_parent(container.annotation(STDERR));
    let result = work(&container);
    if let Err(error) = &result {
        voice.tell_runtime(&format!("sarus: {error}\n"));
    }
    result.map(|()| 0)
}

impl Container {
    fn receive() -> Result<Self> {
        let state = Self::receive_state()?;
        let path = state.bundle.join("config.json");
        let spec =
            read_spec(&path, &state.bundle).context(|| format!("cannot use {}", path.display()))?;
        Ok(Self { state, spec })
    }

    fn receive_state() -> Result<State> {
        let stdin = std::io::stdin();
        let cannot = || "cannot read the container's state from stdin".to_owned();
        let hint = "this is an OCI hook: an OCI runtime runs it, as sarus.json or a hooks \
                    directory says";
        if stdin.is_terminal() {
            return Err(Error::caused_by(cannot(), "it is a terminal").with_hint(hint));
        }
        let text = read_text_at_most(stdin.lock(), MAX_STATE).context(cannot)?;
        State::parse(&text).context(cannot).map_err(|error| error.with_hint(hint))
    }

    /// The value of an annotation; what the state says goes before config.json.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let lists = [&self.state.annotations, &self.spec.annotations];
        lists.into_iter().find_map(|list| list.get(name)).map(String::as_str)
    }

    /// Whether the engine asked for what `annotation` stands for.
    #[must_use]
    pub fn asks_for(&self, annotation: &str) -> bool {
        self.annotation(annotation) == Some("true")
    }

    fn set_log_level(&self) {
        let number = self.annotation(LEVEL).and_then(|number| number.parse().ok());
        log::set_threshold(Level::from_number(number));
    }
}

fn read_spec(path: &Path, bundle: &Path) -> Result<Spec> {
    let file = std::fs::File::from(resolve::regular_file(path)?);
    Spec::parse(&read_text_at_most(file, MAX_CONFIG).context(|| "cannot read it".into())?, bundle)
}

/// Enters the mount namespace of the container of `state`, in which the root is still the host's.
///
/// # Errors
/// When there is no such namespace, or the container's root has changed already.
fn enter_mount_namespace(state: &State) -> Result<()> {
    let cannot = || format!("cannot enter the container {}", state.id);
    let pid = state.pid.ok_or("it has no process").context(cannot)?;
    let root = files::directory(Path::new("/"))?;
    let theirs = rustix::fs::stat(format!("/proc/{}/root/", pid.as_raw_nonzero()));
    let ours = resolve::status(&root).context(cannot)?;
    let theirs = theirs.context(cannot)?;
    if FileId::from_status(&ours) != FileId::from_status(&theirs) {
        return Err(Error::caused_by(cannot(), "it has left the host's root already")
            .with_hint("the hook belongs into the stage prestart or createRuntime"));
    }
    let namespace = format!("/proc/{}/ns/mnt", pid.as_raw_nonzero());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(namespace, flags, Mode::empty()).context(cannot)?;
    mount::enter_namespace(&namespace).context(cannot)
}

/// A variable of the hook's own environment, which the site sets; empty counts as absent.
#[must_use]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The absolute paths of a variable of the site's, separated by colons.
///
/// # Errors
/// When one is not absolute.
pub fn paths(name: &str) -> Result<Vec<PathBuf>> {
    let list = setting(name).unwrap_or_default();
    let path = |text: &str| match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(Error::new(format!("cannot use {name}: '{text}' is no absolute path"))),
    };
    list.split(':').filter(|text| !text.is_empty()).map(path).collect()
}

/// The host's libraries that a variable of the site's lists.
///
/// # Errors
/// When one of them is not there, or no library.
pub fn host_libraries(host: &Tree, name: &str) -> Result<Vec<Library>> {
    let library = |path: PathBuf| {
        let library = host.library(&path).context(|| format!("cannot use {name}"))?;
        library.ok_or_else(|| {
            Error::new(format!("cannot use {name}: {} is not on this host", path.display()))
        })
    };
    paths(name)?.into_iter().map(library).collect()
}

/// Tells developers what is about to be done.
fn log_plan<T: std::fmt::Debug>(subsystem: &str, plan: &[T]) {
    for step in plan {
        log::debug(subsystem, || format!("{step:?}"));
    }
}
