//! `sarus help [COMMAND]`: help generated from the table of commands and argh's table of options, the
//! same that are parsed.

use super::{COMMANDS, Command, Global, NoOptions, find};
use argh::{ArgsInfo, FlagInfo, FlagInfoKind};
use sarus::cli::args::ParsedArgs;
use sarus::error::Result;
use sarus::log;

pub const COMMAND: Command = Command {
    name: "help",
    usage: "[COMMAND]",
    about: "Print help message about a command",
    note: "",
    options: NoOptions::get_args_info,
    optional_value: &[],
    failure: 1,
    main,
};

fn main(command: &Command, parsed: ParsedArgs) -> Result<u8> {
    let NoOptions {} = command.options(&parsed)?;
    match parsed.rest.as_slice() {
        [] => print_general(),
        [name] => print_command(find(name)?),
        _ => Err(command.wrong_number()),
    }
}

/// Prints the general help.
pub fn print_general() -> Result<u8> {
    log::print("Usage: sarus COMMAND\n\nOptions:");
    log::print("  --help     Print help");
    print_options(Global::get_args_info().flags, &[]);
    log::print("\nCommands:");
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0) + 1;
    for command in COMMANDS {
        log::print(&format!("   {:width$} {}", format!("{}:", command.name), command.about));
    }
    log::print("\nRun 'sarus help COMMAND' for more information on a command.");
    Ok(0)
}

/// Prints the help of `command`.
pub fn print_command(command: &Command) -> Result<u8> {
    log::print(format!("Usage: sarus {} {}", command.name, command.usage).trim_end());
    log::print(&format!("\n{}", command.about));
    if !command.note.is_empty() {
        log::print(&format!("\n{}", command.note));
    }
    let flags = (command.options)().flags;
    if flags.iter().any(is_shown) {
        log::print("\nOptions:");
        print_options(flags, command.optional_value);
    }
    Ok(0)
}

/// Returns whether help shows an option: not `--help`, which argh adds to every command.
fn is_shown(flag: &FlagInfo<'_>) -> bool {
    !flag.hidden && flag.long != "--help"
}

fn print_options(flags: &[FlagInfo<'_>], optional_value: &[&str]) {
    let names: Vec<(String, &str)> = flags
        .iter()
        .filter(|flag| is_shown(flag))
        .map(|flag| (spelling(flag, optional_value), flag.description))
        .collect();
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, description) in names {
        log::print(&format!("  {name:width$}  {}", capitalised(description)));
    }
}

/// Renders the name of an option: `-w [ --workdir ] arg` or `--entrypoint [=arg]`.
fn spelling(flag: &FlagInfo<'_>, optional_value: &[&str]) -> String {
    let mut text = match flag.short {
        Some(letter) => format!("-{letter} [ {} ]", flag.long),
        None => flag.long.to_owned(),
    };
    if matches!(flag.kind, FlagInfoKind::Option { .. }) {
        let optional = optional_value.contains(&flag.long);
        text.push_str(if optional { " [=arg]" } else { " arg" });
    }
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
