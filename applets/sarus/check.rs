//! `sarus check`: checks that this machine and this installation can run containers.

use super::Command;
use argh::{ArgsInfo, FromArgs};
use sarus::check::{self, Finding, Status};
use sarus::cli::args::ParsedArgs;
use sarus::cli::progress;
use sarus::error::Result;
use sarus::log;

pub const COMMAND: Command = Command {
    name: "check",
    usage: "[OPTIONS]",
    about: "Check that containers can run here, with hints for failures",
    note: "Each line begins with ok, unknown (this user may not see it), warning or error.\n\
           The exit status is 1 if there is an error.",
    options: Args::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

/// Options of the command, as argh parses them.
#[derive(FromArgs, ArgsInfo)]
struct Args {
    /// print the findings as JSON
    #[argh(switch)]
    json: bool,
    /// check a registry, too, such as docker.io
    #[argh(option)]
    registry: Option<String>,
}

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let args: Args = command.options(&parsed)?;
    command.expect_words(&parsed, 0)?;
    let mut findings = Vec::new();
    let colours = progress::may_colour();
    check::all(args.registry.as_deref(), &mut |finding| {
        if !args.json {
            print(&finding, colours);
        }
        findings.push(finding);
    });
    if args.json {
        log::print(&sarus::site::json::write(&findings));
    }
    let failed = findings.iter().any(|finding| finding.status == Status::Error);
    Ok(u8::from(failed))
}

fn print(finding: &Finding, colours: bool) {
    let status = finding.status.name();
    let (before, behind) = match (colours, finding.status) {
        (false, _) => ("", ""),
        (true, Status::Ok) => ("\x1b[32m", "\x1b[0m"),
        (true, Status::Unknown) => ("\x1b[36m", "\x1b[0m"),
        (true, Status::Warning) => ("\x1b[33m", "\x1b[0m"),
        (true, Status::Error) => ("\x1b[31m", "\x1b[0m"),
    };
    // Texts may quote others' data; faults of sarus.json have a line each.
    let text = log::printable(&finding.text, &['\n']).replace('\n', "\n         ");
    log::print(&format!("{before}{status:<7}{behind}  {}: {text}", finding.subject));
    if let Some(advice) = &finding.advice {
        log::print(&format!("         hint: {}", log::printable(advice, &[])));
    }
}
