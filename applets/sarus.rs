//! `sarus`: global options, then one of the commands in the table below, each in a file of its own.

mod check;
mod help;
mod images;
mod load;
mod pull;
mod rmi;
mod run;
mod ssh_keygen;

use crate::Invocation;
use crate::rights::Rights;
use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};
use sarus::cli::args::{self, Grammar, ParsedArgs};
use sarus::error::{Error, Result};
use sarus::log::{self, Level};
use sarus::site::config::{Config, Installation};
use sarus::squashfs::compression::Compression;
use sarus::store::Repository;
use sarus::user::User;
use std::ffi::OsString;

/// Commands. A new one is a row here and a file in this directory.
const COMMANDS: &[&Command] = &[
    &check::COMMAND,
    &help::COMMAND,
    &images::COMMAND,
    &load::COMMAND,
    &pull::COMMAND,
    &rmi::COMMAND,
    &run::COMMAND,
    &ssh_keygen::COMMAND,
    &VERSION,
];

const VERSION: Command = Command {
    name: "version",
    usage: "",
    about: "Show the Sarus version information",
    note: "",
    options: NoOptions::get_args_info,
    optional_value: &[],
    failure: 1,
    main: |command, words| {
        let NoOptions {} = command.options(&words)?;
        command.expect_words(&words, 0)?;
        print_version()
    },
};

/// A command of `sarus`.
struct Command {
    name: &'static str,
    /// Usage after the name.
    usage: &'static str,
    /// Description in one line.
    about: &'static str,
    /// Further description for `sarus help <command>`; may be empty.
    note: &'static str,
    /// Options that argh knows.
    options: fn() -> CommandInfoWithArgs,
    /// Options with an optional value.
    optional_value: &'static [&'static str],
    /// Exit status of errors.
    failure: u8,
    /// Runs the command with the arguments after its name, and returns the exit status.
    main: fn(&Command, ParsedArgs) -> Result<u8>,
}

/// Options before the command.
#[derive(FromArgs, ArgsInfo)]
struct Global {
    /// print version
    #[argh(switch)]
    version: bool,
    /// enable debug mode (print all log messages)
    #[argh(switch)]
    debug: bool,
    /// enable verbose mode (print log messages with detailed information)
    #[argh(switch)]
    verbose: bool,
}

/// No options.
#[derive(FromArgs, ArgsInfo)]
struct NoOptions {}

/// A command line, split once.
struct CommandLine {
    global: Global,
    command: Option<Result<(&'static Command, ParsedArgs)>>,
}

/// Parses a command line. Only `run` keeps root; its help does not, nor an invalid command line.
pub fn parse(words: &[OsString]) -> Invocation {
    let line = CommandLine::parse(words);
    let rights = match &line {
        Ok(CommandLine { global, command: Some(Ok((command, words))) })
            if command.name == run::COMMAND.name && !global.version =>
        {
            run::rights(words)
        }
        _ => Rights::Drop,
    };
    Invocation { rights, main: Box::new(move || line?.execute()) }
}

impl CommandLine {
    fn parse(words: &[OsString]) -> Result<Self> {
        let see_help = |error: Error| error.with_hint("see 'sarus help'");
        let flags = Global::get_args_info().flags;
        let words = args::split(words, Grammar { flags, optional_value: &[] }).map_err(see_help)?;
        let global = options("sarus", &words).map_err(see_help)?;
        let command = match words.rest.split_first() {
            Some((name, behind)) if !words.help => Some(find(name).and_then(|command| {
                let words = command.split(behind);
                words
                    .map(|words| (command, words))
                    .map_err(|error| command.fail(command.see(error)))
            })),
            _ => None,
        };
        Ok(Self { global, command })
    }

    fn execute(self) -> Result<u8> {
        if self.global.debug {
            log::set_threshold(Level::Debug);
        } else if self.global.verbose {
            log::set_threshold(Level::Info);
        }
        match self.command {
            _ if self.global.version => print_version(),
            Some(command) => {
                let (command, words) = command?;
                command.run(words)
            }
            None => help::print_general(),
        }
    }
}

fn print_version() -> Result<u8> {
    log::print(env!("CARGO_PKG_VERSION"));
    Ok(0)
}

fn find(name: &OsString) -> Result<&'static Command> {
    COMMANDS.iter().copied().find(|command| name == command.name).ok_or_else(|| {
        let text = format!("'{}' is not a Sarus command", name.to_string_lossy());
        Error::new(text).with_hint("see 'sarus help'")
    })
}

impl Command {
    fn split(&self, words: &[OsString]) -> Result<ParsedArgs> {
        let flags = (self.options)().flags;
        args::split(words, Grammar { flags, optional_value: self.optional_value })
    }

    fn run(&self, words: ParsedArgs) -> Result<u8> {
        let help = words.help;
        let result = if help { help::print_command(self) } else { (self.main)(self, words) };
        result.map_err(|error| self.fail(error))
    }

    /// Sets the exit code of a failure.
    fn fail(&self, error: Error) -> Error {
        error.or_exit_code(self.failure)
    }

    /// Parses the options of this command.
    fn options<T: FromArgs>(&self, words: &ParsedArgs) -> Result<T> {
        options(self.name, words).map_err(|error| self.see(error))
    }

    /// Adds a hint to the help of this command.
    fn see(&self, error: Error) -> Error {
        error.with_hint(self.see_help())
    }

    fn see_help(&self) -> String {
        format!("see 'sarus help {}'", self.name)
    }

    fn wrong_number(&self) -> Error {
        let Self { name, usage, .. } = self;
        Error::new(format!("bad number of arguments for command '{name}'"))
            .with_hint(format!("sarus {name} {usage}; see 'sarus help {name}'"))
    }

    /// Checks the number of operands.
    ///
    /// # Errors
    /// There are more or fewer than `count`, or an option after the first one.
    fn expect_words(&self, words: &ParsedArgs, count: usize) -> Result<()> {
        let is_option =
            |word: &&OsString| word.as_encoded_bytes().starts_with(b"-") && *word != "-";
        if let Some(late) = words.rest.iter().skip(1).find(is_option) {
            let text = format!("option '{}' must come first", late.to_string_lossy());
            return Err(self.see(Error::new(text)));
        }
        if words.rest.len() == count { Ok(()) } else { Err(self.wrong_number()) }
    }
}

/// Loads the site's configuration, and opens the repository that a command works on.
fn open(centralized: bool) -> Result<(Config, Repository)> {
    let config = Config::load(&Installation::find()?)?;
    let repository = Repository::open(&config, &User::caller()?, centralized)?;
    Ok((config, repository))
}

/// Compression of an import: from the command line, else from the site's configuration.
fn compression(config: &Config, option: Option<&str>) -> Result<Compression> {
    option.map_or(Ok(config.compression), str::parse)
}

/// Parses options into `T`.
fn options<T: FromArgs>(name: &str, words: &ParsedArgs) -> Result<T> {
    let options: Vec<&str> = words.options.iter().map(String::as_str).collect();
    T::from_args(&["sarus", name], &options)
        .map_err(|early| Error::new(early.output.trim().replace('\n', " ")))
}
