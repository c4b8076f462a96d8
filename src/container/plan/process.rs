//! The program of a container: arguments from image and command line, environment, working directory.
//! Manual, "Image entrypoint and default arguments" and "Working directory".

use super::environment::{self, Variables};
use super::{Caller, INIT, Options};
use crate::container::handoff::PMI_FD;
use crate::error::{Error, Result};
use crate::image::metadata::Metadata;
use crate::site::config::Config;
use crate::sys::process::limits::CallerLimits;
use crate::sys::terminal::WindowSize;
use std::ffi::OsString;
use std::path::Path;

/// Value of `--entrypoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrypoint {
    /// No option: the image's entrypoint.
    Image,
    /// Option without a value: no entrypoint.
    Removed,
    /// Option with a value.
    Set(String),
}

/// The program and its attributes.
#[derive(Debug)]
pub struct ContainerProcess {
    /// Program and arguments, with the init program before them.
    pub args: Vec<String>,
    /// Environment.
    pub env: Variables,
    /// Working directory, absolute.
    pub directory: String,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits and priority.
    pub limits: CallerLimits,
    /// Size of the container's own terminal, if it has one.
    pub terminal: Option<WindowSize>,
}

/// Maximum length of an argument or a variable in bytes (MAX_ARG_STRLEN of execve(2)), less `=` and
/// the final NUL.
const MAX_LENGTH: usize = (128 << 10) - 2;

impl ContainerProcess {
    /// Plans the program. Adds warnings about the environment to `warnings`.
    ///
    /// # Errors
    /// If there is no program, or an argument or variable cannot be passed to one.
    pub fn new(
        config: &Config,
        image: &Metadata,
        options: &Options,
        caller: &Caller,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let image_env = image.env.as_deref().unwrap_or_default();
        let site = &config.environment;
        let mut env = environment::merge(&caller.environment, image_env, site, warnings);
        if caller.descriptors.has_pmi {
            env.insert("PMI_FD".into(), PMI_FD.to_string());
        }
        let mut args = arguments(image, &options.entrypoint, &options.args)?;
        if options.init {
            args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
        }
        check_lengths(&args, &env)?;
        Ok(Self {
            args,
            env,
            directory: directory(image, options.workdir.as_deref()),
            umask: caller.umask,
            limits: caller.limits.clone(),
            terminal: caller.terminal,
        })
    }
}

/// Rejects what execve(2) cannot pass on.
fn check_lengths(args: &[String], env: &Variables) -> Result<()> {
    if let Some(arg) = args.iter().find(|arg| arg.contains('\0')) {
        return Err(Error::new(format!("cannot run with a NUL byte in '{arg}'")));
    }
    let is_long = |(name, value): &(&String, &String)| name.len() + value.len() > MAX_LENGTH;
    if let Some((name, _)) = env.iter().find(is_long) {
        return Err(Error::new(format!("cannot run: variable {name} is longer than 128 KiB")));
    }
    if args.iter().any(|arg| arg.len() > MAX_LENGTH) {
        return Err(Error::new("cannot run: an argument is longer than 128 KiB"));
    }
    Ok(())
}

/// Arguments to execute, the program first.
fn arguments(image: &Metadata, entrypoint: &Entrypoint, args: &[OsString]) -> Result<Vec<String>> {
    let mut words = match entrypoint {
        Entrypoint::Image => image.entrypoint.clone().unwrap_or_default(),
        Entrypoint::Removed => Vec::new(),
        Entrypoint::Set(program) => vec![program.clone()],
    };
    // The image's default arguments belong to its own entrypoint.
    if args.is_empty() && *entrypoint == Entrypoint::Image {
        words.extend(image.cmd.iter().flatten().cloned());
    }
    for arg in args {
        // config.json is in UTF-8.
        let text = arg.to_str().ok_or_else(|| {
            let text = arg.to_string_lossy();
            Error::new(format!("cannot run with the argument '{text}': not valid UTF-8"))
        })?;
        words.push(text.to_owned());
    }
    if words.is_empty() {
        let text = "cannot run: the image has no default command, and none is given";
        return Err(
            Error::new(text).with_hint("sarus run [OPTIONS] REPOSITORY[:TAG] COMMAND [ARG...]")
        );
    }
    Ok(words)
}

/// Insists that `path`, the value of `--workdir`, is absolute and has no `..`.
///
/// # Errors
/// If it is relative, or contains `..`.
pub fn check_workdir(path: &str) -> Result<()> {
    let cause = if !path.starts_with('/') {
        "it needs to be an absolute path"
    } else if super::mounts::has_parent(Path::new(path)) {
        "it must not contain '..'"
    } else {
        return Ok(());
    };
    Err(Error::new(format!("the working directory '{path}' is invalid, {cause}")))
}

/// Working directory of the program: `workdir`, else the image's, else `/`. As with Docker, a relative
/// path starts from the root, and `..` removes the name before it.
fn directory(image: &Metadata, workdir: Option<&str>) -> String {
    let image_dir = image.working_dir.as_deref().filter(|path| !path.is_empty());
    let path = workdir.or(image_dir).unwrap_or("/");
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
        match name {
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(entrypoint: &[&str], cmd: &[&str]) -> Metadata {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        Metadata { entrypoint: list(entrypoint), cmd: list(cmd), ..Metadata::default() }
    }

    #[test]
    fn the_command_line_overrides_the_image() {
        use Entrypoint::{Image, Removed, Set};
        let echo = image(&["echo"], &["hello"]);
        let shell = image(&[], &["sh"]);
        let cat = Set("cat".into());
        for (image, entrypoint, args, expected) in [
            (&echo, &Image, &[][..], &["echo", "hello"][..]),
            (&echo, &Image, &["foo"], &["echo", "foo"]),
            (&echo, &cat, &["/x"], &["cat", "/x"]),
            (&echo, &cat, &[], &["cat"]),
            (&echo, &Removed, &["bash"], &["bash"]),
            (&shell, &Image, &[], &["sh"]),
            (&shell, &Image, &["ls", "-l"], &["ls", "-l"]),
        ] {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(arguments(image, entrypoint, &args).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        assert!(arguments(&image(&["echo"], &["x"]), &Entrypoint::Removed, &[]).is_err());
        assert!(arguments(&image(&[], &[]), &Entrypoint::Image, &[]).is_err());
    }

    #[test]
    fn a_workdir_is_absolute_without_parents() {
        assert!(check_workdir("/a/..b").is_ok());
        for (path, cause) in [("a", "absolute"), ("", "absolute"), ("/a/../b", "'..'")] {
            assert!(check_workdir(path).unwrap_err().to_string().contains(cause), "{path}");
        }
    }

    #[test]
    fn what_execve_cannot_pass_on_is_refused() {
        let long = "x".repeat(MAX_LENGTH + 1);
        let env = |value: &str| Variables::from([("A".to_owned(), value.to_owned())]);
        assert!(check_lengths(&[long[1..].to_owned()], &env(&long[2..])).is_ok());
        assert!(check_lengths(std::slice::from_ref(&long), &env("")).is_err());
        assert!(check_lengths(&[], &env(&long[1..])).is_err());
        assert!(check_lengths(&["a\0".to_owned()], &env("")).is_err());
    }

    #[test]
    fn the_directory_is_absolute() {
        let image = |path: &str| Metadata { working_dir: Some(path.into()), ..Metadata::default() };
        assert_eq!(directory(&image("/src"), Some("/w")), "/w");
        assert_eq!(directory(&image("/src"), None), "/src");
        assert_eq!(directory(&image("src"), None), "/src");
        assert_eq!(directory(&image(""), None), "/");
        assert_eq!(directory(&image("/a/../b/./c//"), None), "/b/c");
        assert_eq!(directory(&image("../../x"), None), "/x");
    }
}
