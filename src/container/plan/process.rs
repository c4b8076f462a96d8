//! What runs, and where: the image's entrypoint and default arguments against the command line.
//! Manual, "Image entrypoint and default arguments" and "Working directory".

use crate::error::{Error, Result};
use crate::image::metadata::Metadata;
use std::ffi::OsString;

/// The `--entrypoint` of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrypoint {
    /// Not given: the image's.
    Image,
    /// Given without a value: none.
    Removed,
    /// Given.
    Set(String),
}

/// The words to execute.
///
/// # Errors
/// When nothing is left to execute, or a word is not UTF-8, which config.json cannot hold.
pub fn words(image: &Metadata, entrypoint: &Entrypoint, args: &[OsString]) -> Result<Vec<String>> {
    let mut words = match entrypoint {
        Entrypoint::Image => image.entrypoint.clone().unwrap_or_default(),
        Entrypoint::Removed => Vec::new(),
        Entrypoint::Set(program) => vec![program.clone()],
    };
    if args.is_empty() {
        // The default arguments are made for the image's own entrypoint.
        if *entrypoint == Entrypoint::Image {
            words.extend(image.cmd.iter().flatten().cloned());
        }
    } else {
        for arg in args {
            let text = arg.to_str().ok_or_else(|| {
                let text = arg.to_string_lossy();
                Error::new(format!("cannot run with the argument '{text}': it is not UTF-8"))
            })?;
            words.push(text.to_owned());
        }
    }
    if words.is_empty() {
        let text = "cannot run: the image has no default command, and none is given";
        return Err(
            Error::new(text).with_hint("sarus run [OPTIONS] REPOSITORY[:TAG] COMMAND [ARG...]")
        );
    }
    Ok(words)
}

/// Where the program starts: what the command line says, else the image, else `/`.
#[must_use]
pub fn directory(image: &Metadata, workdir: Option<&str>) -> String {
    let of_image = image.working_dir.as_deref().filter(|path| !path.is_empty());
    let path = workdir.or(of_image).unwrap_or("/");
    // As Docker: a relative one starts from the root, and `..` is taken by its name.
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
            assert_eq!(words(image, entrypoint, &args).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        assert!(words(&image(&["echo"], &["x"]), &Entrypoint::Removed, &[]).is_err());
        assert!(words(&image(&[], &[]), &Entrypoint::Image, &[]).is_err());
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
