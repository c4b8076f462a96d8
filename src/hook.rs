//! OCI hooks, and the parts that they share: the container's state from stdin, config.json, settings
//! of the site, messages to the user. Start at [`run`].
//!
//! An OCI runtime starts a hook as root, with an environment of the site's. The hooks serve any engine:
//! nothing here depends on this one, which asks hooks for their work by annotations. The container's
//! configuration contains data of the user and of the image, and is checked where it is used. See
//! <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>.

pub mod confine;
pub mod container_root;
pub mod glibc;
pub mod home;
pub mod libraries;
pub mod mpi;
mod placement;
pub mod slurm;
pub mod ssh;
pub mod state;
pub mod timestamp;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::log::{self, Level};
use crate::rootfs::root_dir::RootDir;
use crate::sys::descriptors;
use crate::sys::fs::read::read_text_at_most;
use crate::sys::fs::resolve;
use crate::sys::process::user_stderr::UserStderr;
use libraries::Library;
use state::{Spec, State};

/// Maximum size of a state in bytes. A state has the annotations, which some engines fill with whole
/// documents.
const MAX_STATE: u64 = 1 << 20;

/// Maximum size of config.json in bytes. It has the environment, of which the kernel takes 6 MiB at
/// most, and all mounts.
const MAX_CONFIG: u64 = 8 << 20;

/// Annotation with the lowest level of messages that hooks log, as a number
/// ([`Level::from_number`]).
pub const LOG_LEVEL: &str = "com.hooks.logging.level";

/// Annotation with the path of the engine's stdout, `/proc/<runtime>/fd/<number>`.
pub const LOG_STDOUT: &str = "com.hooks.logging.stdoutfd";

/// Annotation with the path of the engine's stderr, `/proc/<runtime>/fd/<number>`.
pub const LOG_STDERR: &str = "com.hooks.logging.stderrfd";

/// The container that a hook is run for.
#[derive(Debug)]
pub struct Container {
    /// The state that the runtime writes to stdin.
    pub state: State,
    /// The bundle's config.json.
    pub spec: Spec,
}

/// Runs a hook: does `work` for the container whose state is on stdin.
///
/// # Errors
/// Those of `work`, or if state or config.json are malformed.
pub fn run(work: impl FnOnce(&Container) -> Result<()>) -> Result<u8> {
    // Descriptors that the runtime left open.
    descriptors::close_descriptors(&[])?;
    let container = Container::receive()?;
    container.set_log_level();
    // Runtimes do not pass on the stderr of a hook, unless the hook fails.
    let stderr = UserStderr::from_parent(container.annotation(LOG_STDERR));
    let result = work(&container);
    if let Err(error) = &result {
        stderr.tell_runtime(&format!("sarus: {error}\n"));
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
        let context = || "cannot read the container's state from stdin".to_owned();
        let hint = "this is an OCI hook: an OCI runtime runs it, as sarus.json or a hooks \
                    directory says";
        if stdin.is_terminal() {
            return Err(Error::caused_by(context(), "stdin is a terminal").with_hint(hint));
        }
        let text = read_text_at_most(stdin.lock(), MAX_STATE).context(context)?;
        State::parse(&text).context(context).map_err(|error| error.with_hint(hint))
    }

    /// The value of an annotation, of the state first, then of config.json.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let lists = [&self.state.annotations, &self.spec.annotations];
        lists.into_iter().find_map(|list| list.get(name)).map(String::as_str)
    }

    /// True if the engine asked for the work that `annotation` stands for.
    #[must_use]
    pub fn asks_for(&self, annotation: &str) -> bool {
        self.annotation(annotation) == Some("true")
    }

    fn set_log_level(&self) {
        let number = self.annotation(LOG_LEVEL).and_then(|number| number.parse().ok());
        log::set_threshold(Level::from_number(number));
    }
}

fn read_spec(path: &Path, bundle: &Path) -> Result<Spec> {
    let file = std::fs::File::from(resolve::regular_file(path)?);
    let text = read_text_at_most(file, MAX_CONFIG).context(|| "cannot read".into())?;
    Spec::parse(&text, bundle)
}

/// A variable of the hook's own environment, which the site sets; an empty one counts as unset.
#[must_use]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The absolute path that the variable `name` of the hook has.
fn path_setting(name: &str) -> Result<PathBuf> {
    let path = setting(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| {
        Error::new(format!("{name} is not set to an absolute path"))
            .with_hint("set it in the environment of the hook in sarus.json")
    })
}

/// The absolute paths of the variable `name` of the hook, separated by colons.
///
/// # Errors
/// If a path is not absolute.
pub fn paths(name: &str) -> Result<Vec<PathBuf>> {
    let list = setting(name).unwrap_or_default();
    let path = |text: &str| match Path::new(text) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(Error::new(format!("cannot use {name}: '{text}' is not an absolute path"))),
    };
    list.split(':').filter(|text| !text.is_empty()).map(path).collect()
}

/// The host's libraries that the variable `name` of the hook lists.
///
/// # Errors
/// If a file does not exist, or is not a library for this machine.
pub fn host_libraries(host: &RootDir, name: &str) -> Result<Vec<Library>> {
    let library = |path: PathBuf| {
        let context = || format!("cannot use {name}");
        let library = libraries::open(host, &path).context(context)?;
        library.ok_or_else(|| {
            Error::caused_by(context(), format!("{} does not exist on this host", path.display()))
        })
    };
    paths(name)?.into_iter().map(library).collect()
}

/// Logs the steps of a plan for developers.
fn log_plan<T: std::fmt::Debug>(subsystem: &str, plan: &[T]) {
    for step in plan {
        log::debug(subsystem, || format!("{step:?}"));
    }
}
