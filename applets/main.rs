//! One binary, many names: the name that it is called by, or its first argument, selects the applet.
//! The applet's row in the table decides over its rights before its first line runs.

mod confine_hook;
mod glibc_hook;
mod init;
mod launch;
mod mpi_hook;
mod rights;
mod sarus;
mod slurm_global_sync_hook;
mod ssh_hook;
mod timestamp_hook;

use ::sarus::error::{Error, Result};
use ::sarus::log;
use rights::Rights;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// A new applet is one row here and one file beside this one.
const APPLETS: &[Applet] = &[
    Applet {
        name: "sarus",
        about: "Run OCI containers on HPC systems",
        entry: Entry::ByCommand(sarus::parse),
    },
    Applet {
        name: "init",
        about: "Run a program as the first process of a container",
        entry: Entry::AsUser(init::main),
    },
    Applet {
        name: "launch",
        about: "Run a program in a directory, as sarus run does",
        entry: Entry::AsUser(launch::main),
    },
    Applet {
        name: "confine_hook",
        about: "Keep an OCI runtime from lifting the restrictions of a root file system",
        entry: Entry::AsUser(confine_hook::main),
    },
    Applet {
        name: "glibc_hook",
        about: "Put the host's glibc in place of a container's older one",
        entry: Entry::AsUser(glibc_hook::main),
    },
    Applet {
        name: "mpi_hook",
        about: "Put the host's MPI in place of a container's",
        entry: Entry::AsUser(mpi_hook::main),
    },
    Applet {
        name: "slurm_global_sync_hook",
        about: "Start the containers of a Slurm job step together",
        entry: Entry::AsUser(slurm_global_sync_hook::main),
    },
    Applet {
        name: "ssh_hook",
        about: "Let the containers of a user reach each other by SSH",
        entry: Entry::AsUser(ssh_hook::main),
    },
    Applet {
        name: "timestamp_hook",
        about: "Log the time between other OCI hooks",
        entry: Entry::AsUser(timestamp_hook::main),
    },
];

struct Applet {
    /// Name of a link to the binary.
    name: &'static str,
    about: &'static str,
    entry: Entry,
}

/// Entry point of an applet, by its rights.
enum Entry {
    /// Privileges are dropped. The function takes the arguments and returns the exit status.
    AsUser(fn(&[OsString]) -> Result<u8>),
    /// The command among the arguments decides, in the same parse that is then executed.
    ByCommand(fn(&[OsString]) -> Invocation),
}

/// A parsed command line.
struct Invocation {
    rights: Rights,
    /// Returns the exit status.
    main: Box<dyn FnOnce() -> Result<u8>>,
}

fn find(word: &OsStr) -> Option<&'static Applet> {
    let name = Path::new(word).file_name()?;
    APPLETS.iter().find(|applet| name == applet.name)
}

fn run() -> Result<u8> {
    let words: Vec<OsString> = std::env::args_os().collect();
    // Called by an applet's name, or by another with the applet as first argument.
    let Some((name, args)) = words.split_first() else { return nothing_to_run(None) };
    let (applet, args) = match (find(name), args.split_first()) {
        (Some(applet), _) => (applet, args),
        (None, Some((first, args))) => match find(first) {
            Some(applet) => (applet, args),
            None => return nothing_to_run(Some(first)),
        },
        (None, None) => return nothing_to_run(None),
    };
    match applet.entry {
        Entry::AsUser(main) => {
            rights::settle(Rights::Drop)?;
            main(args)
        }
        Entry::ByCommand(parse) => {
            let invocation = parse(args);
            rights::settle(invocation.rights)?;
            (invocation.main)()
        }
    }
}

/// Lists the applets, after giving up what set-user-id gave.
fn nothing_to_run(word: Option<&OsString>) -> Result<u8> {
    rights::settle(Rights::Drop)?;
    match word {
        Some(word) if word != "--help" && word != "-h" && word != "help" => {
            let text = format!("there is no applet '{}'", word.to_string_lossy());
            Err(Error::new(text).with_hint("'sarusbox' lists them"))
        }
        _ => {
            log::print(
                "Usage: sarusbox APPLET [ARG...], or a link to it that is named as the applet\n",
            );
            log::print("Applets:");
            for applet in APPLETS {
                log::print(&format!("   {}: {}", applet.name, applet.about));
            }
            Ok(0)
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// The one place where an error is printed.
fn report(error: &Error) {
    let mut text = format!("sarus: {error}\n");
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    let text = log::printable(&text, &['\n', '\t']);
    // A closed stderr must not turn into a panic.
    std::io::stderr().write_all(text.as_bytes()).ok();
    log::debug("error", || "trace, from what was asked for to what failed first:".into());
    for (depth, cause) in error.trace().iter().enumerate() {
        log::debug("error", || format!("#{depth}: {cause}"));
    }
}
