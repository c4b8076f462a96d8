//! Multicall binary: the name that it is called by, or else the first argument, selects the applet, and
//! its row in the table decides over its privileges before it runs.

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

/// Applets. A new one is a row here and a file in this directory.
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
    // argv[0] is the name of an applet, or the first argument is.
    let Some((name, args)) = words.split_first() else { return list_or_fail(None) };
    let (applet, args) = match (find(name), args.split_first()) {
        (Some(applet), _) => (applet, args),
        (None, Some((first, args))) => match find(first) {
            Some(applet) => (applet, args),
            None => return list_or_fail(Some(first)),
        },
        (None, None) => return list_or_fail(None),
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

/// Drops privileges, then lists the applets, or fails for an unknown one.
fn list_or_fail(word: Option<&OsString>) -> Result<u8> {
    rights::settle(Rights::Drop)?;
    match word {
        Some(word) if word != "--help" && word != "-h" && word != "help" => {
            let text = format!("unknown applet '{}'", word.to_string_lossy());
            Err(Error::new(text).with_hint("'sarusbox' lists them"))
        }
        _ => {
            log::print(
                "Usage: sarusbox APPLET [ARG...], or a link to sarusbox with the name of the applet\n",
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

/// Prints an error; the only place that does.
fn report(error: &Error) {
    let mut text = format!("sarus: {error}\n");
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    let text = log::printable(&text, &['\n', '\t']);
    // A closed stderr must not turn into a panic.
    std::io::stderr().write_all(text.as_bytes()).ok();
    log::debug("error", || "trace, from the outermost context to the first cause:".into());
    for (depth, cause) in error.trace().iter().enumerate() {
        log::debug("error", || format!("#{depth}: {cause}"));
    }
}
