//! Normalises arguments for argh, which lacks `--name=value`, `-eV`, `-tm`, options with an optional
//! value, and an end of the options at the first operand. Start at [`split`].

use crate::error::{Error, Result};
use argh::{FlagInfo, FlagInfoKind};
use std::ffi::{OsStr, OsString};

/// A command line, split into options and operands.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedArgs {
    /// Options in the spelling of argh: one argument for each name, one for each value.
    pub options: Vec<String>,
    /// Operands, verbatim, in any encoding.
    pub rest: Vec<OsString>,
    /// True if `--help` or `-h` is among the options.
    pub help: bool,
}

/// Options of a command.
#[derive(Debug, Clone, Copy)]
pub struct Grammar<'a> {
    /// Options that argh knows.
    pub flags: &'a [FlagInfo<'a>],
    /// Long options with an optional value, which needs `=`.
    pub optional_value: &'a [&'a str],
}

impl Grammar<'_> {
    fn find(&self, name: &str) -> Option<&FlagInfo<'_>> {
        let short = |flag: &FlagInfo<'_>| flag.short.is_some_and(|s| name == format!("-{s}"));
        self.flags.iter().find(|flag| flag.long == name || short(flag))
    }

    fn takes_value(&self, name: &str) -> Result<bool> {
        match self.find(name) {
            Some(flag) => Ok(matches!(flag.kind, FlagInfoKind::Option { .. })),
            None => Err(Error::new(format!("unrecognised option '{name}'"))),
        }
    }
}

/// Splits `words` at the first operand, or after `--`.
///
/// # Errors
/// An option is unknown, lacks its value, has a value that it does not take, or is not UTF-8.
pub fn split(words: &[OsString], grammar: Grammar<'_>) -> Result<ParsedArgs> {
    let mut options = Vec::new();
    let mut help = false;
    let mut rest = words.iter();
    while let Some(word) = rest.as_slice().first() {
        if !word.as_encoded_bytes().starts_with(b"-") || word == "-" {
            break;
        }
        rest.next();
        if word == "--" {
            break;
        }
        let word = utf8(word)?;
        if word == "--help" || word == "-h" {
            help = true;
        } else if word.starts_with("--") {
            long(word, &mut rest, grammar, &mut options)?;
        } else {
            short(word, &mut rest, grammar, &mut options)?;
        }
    }
    Ok(ParsedArgs { options, rest: rest.cloned().collect(), help })
}

fn utf8(word: &OsStr) -> Result<&str> {
    word.to_str().ok_or_else(|| {
        Error::new(format!("option '{}' is not valid UTF-8", word.to_string_lossy()))
    })
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

fn long(
    word: &str,
    rest: &mut Rest<'_>,
    grammar: Grammar<'_>,
    out: &mut Vec<String>,
) -> Result<()> {
    let (name, glued) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let takes_value = grammar.takes_value(name)?;
    out.push(name.to_owned());
    match glued {
        Some(_) if !takes_value => {
            return Err(Error::new(format!("option '{name}' takes no value")));
        }
        Some(value) => out.push(value.to_owned()),
        None if grammar.optional_value.contains(&name) => out.push(String::new()),
        None if takes_value => out.push(value_of(name, rest)?),
        None => {}
    }
    Ok(())
}

/// Splits short options: `-t`, `-tm`, `-w DIR`, `-wDIR`, `-tw DIR`.
fn short(
    word: &str,
    rest: &mut Rest<'_>,
    grammar: Grammar<'_>,
    out: &mut Vec<String>,
) -> Result<()> {
    let mut letters = word.strip_prefix('-').unwrap_or(word).chars();
    while let Some(letter) = letters.next() {
        let name = format!("-{letter}");
        let takes_value = grammar.takes_value(&name)?;
        if takes_value {
            let value = match letters.as_str() {
                "" => value_of(&name, rest)?,
                glued => glued.strip_prefix('=').unwrap_or(glued).to_owned(),
            };
            out.extend([name, value]);
            return Ok(());
        }
        out.push(name);
    }
    Ok(())
}

fn value_of(name: &str, rest: &mut Rest<'_>) -> Result<String> {
    match rest.next() {
        Some(word) => utf8(word).map(str::to_owned),
        None => Err(Error::new(format!("option '{name}' needs a value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argh::{ArgsInfo, FromArgs};

    /// Options of every kind.
    #[derive(FromArgs, ArgsInfo)]
    #[argh(help_triggers("-h", "--help"))]
    #[allow(dead_code)]
    struct Sample {
        /// a list
        #[argh(option)]
        mount: Vec<String>,
        /// may be empty
        #[argh(option)]
        entrypoint: Option<String>,
        /// a switch
        #[argh(switch, short = 'm')]
        mpi: bool,
        /// a switch
        #[argh(switch, short = 't')]
        tty: bool,
        /// a value
        #[argh(option, short = 'w')]
        workdir: Option<String>,
    }

    fn check(line: &[&str], expected: Result<(&[&str], &[&str]), &str>) {
        let words: Vec<OsString> = line.iter().map(OsString::from).collect();
        let info = Sample::get_args_info();
        let found = split(&words, Grammar { flags: info.flags, optional_value: &["--entrypoint"] });
        match (found, expected) {
            (Ok(found), Ok((options, rest))) => {
                assert_eq!(found.options, options, "{line:?}");
                assert_eq!(found.rest, rest.iter().map(OsString::from).collect::<Vec<_>>());
            }
            (Err(error), Err(text)) => assert_eq!(error.to_string(), text, "{line:?}"),
            (found, expected) => panic!("{line:?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn every_spelling_becomes_one() {
        check(&["--mount=type=bind,src=/a", "i"], Ok((&["--mount", "type=bind,src=/a"], &["i"])));
        check(&["--mount", "a=b", "i"], Ok((&["--mount", "a=b"], &["i"])));
        check(&["-tm", "i", "-t"], Ok((&["-t", "-m"], &["i", "-t"])));
        check(&["-tmw/d", "i"], Ok((&["-t", "-m", "-w", "/d"], &["i"])));
        check(&["-w=/d", "i"], Ok((&["-w", "/d"], &["i"])));
        check(&["-tw", "/d", "i"], Ok((&["-t", "-w", "/d"], &["i"])));
        check(&["-w", "-x", "i"], Ok((&["-w", "-x"], &["i"])));
    }

    #[test]
    fn an_entrypoint_never_takes_the_next_word() {
        check(&["--entrypoint", "-t", "i", "x"], Ok((&["--entrypoint", "", "-t"], &["i", "x"])));
        check(&["--entrypoint", "i", "ls"], Ok((&["--entrypoint", ""], &["i", "ls"])));
        check(&["--entrypoint=/bin/sh", "i"], Ok((&["--entrypoint", "/bin/sh"], &["i"])));
    }

    #[test]
    fn the_container_gets_its_words_verbatim() {
        let rest: &[&str] = &["i", "--", "--help", "-m", ""];
        check(&["-t", "i", "--", "--help", "-m", ""], Ok((&["-t"], rest)));
        check(&["--", "-i", "--", "x"], Ok((&[], &["-i", "--", "x"])));
        check(&["-", "x"], Ok((&[], &["-", "x"])));
        check(&[], Ok((&[], &[])));
    }

    #[test]
    fn help_is_asked_for_before_the_image_only() {
        let info = Sample::get_args_info();
        let grammar = Grammar { flags: info.flags, optional_value: &[] };
        for (line, help) in [("-t --help", true), ("-h i", true), ("i -h", false), ("-w -h", false)]
        {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(split(&words, grammar).unwrap().help, help, "{line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        check(&["--nope=1", "i"], Err("unrecognised option '--nope'"));
        check(&["-tx", "i"], Err("unrecognised option '-x'"));
        check(&["--mpi=yes", "i"], Err("option '--mpi' takes no value"));
        check(&["--workdir"], Err("option '--workdir' needs a value"));
        check(&["-tw"], Err("option '-w' needs a value"));
    }
}
