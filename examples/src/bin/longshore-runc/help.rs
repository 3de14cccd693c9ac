//! Help, in the layout that runc's has.

use std::fmt::Write as _;

use crate::args::{Flag, Takes};
use crate::commands::{COMMANDS, Command};
use crate::global;

const NAME: &str = env!("CARGO_BIN_NAME");

const INTRODUCTION: &str = "It makes containers out of OCI bundles: directories with a config.json and a root filesystem. Commands, flags, output, exit
codes and messages are runc's, so that it can stand where runc stands: docker's --add-runtime, podman's
--runtime, containerd's runc shim.

    # longshore-runc spec                  writes a config.json to start from
    # longshore-runc run -b BUNDLE ID      runs it; ID is a name of your choice

The state of a container is a directory below --root, of this program's own form: runc's containers and these do not see each
other. `longshore-runc COMMAND --help` tells more.";

/// What the program is and has.
pub(crate) fn program() -> String {
    let mut text = format!("NAME:\n   {NAME} - Open Container Initiative runtime\n\n{INTRODUCTION}\n\n");
    text.push_str(&format!(
        "USAGE:\n   {NAME} [global options] command [command options] [arguments...]\n\n"
    ));
    text.push_str(&format!("VERSION:\n   {}\n\nCOMMANDS:\n", env!("CARGO_PKG_VERSION")));
    for command in COMMANDS {
        row(&mut text, command.name, command.about, 11);
    }
    row(&mut text, "help, h", "show this, or the help of a command", 11);
    text.push_str("\nGLOBAL OPTIONS:\n");
    flags(&mut text, global::FLAGS);
    text
}

/// What a command is and has.
pub(crate) fn command(command: &Command) -> String {
    let Command {
        name,
        about,
        usage,
        details,
        ..
    } = command;
    let options = if command.flags.is_empty() {
        ""
    } else {
        " [command options]"
    };
    let space = if usage.is_empty() { "" } else { " " };
    let mut text = format!("NAME:\n   {NAME} {name} - {about}\n\nUSAGE:\n   {NAME} {name}{options}{space}{usage}\n");
    if !details.is_empty() {
        text.push_str("\nDESCRIPTION:\n   ");
        text.push_str(&details.replace('\n', "\n   "));
        text.push('\n');
    }
    if !command.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        flags(&mut text, command.flags);
    }
    text
}

fn flags(text: &mut String, table: &[Flag]) {
    let forms: Vec<String> = table.iter().map(form).collect();
    let width = forms.iter().map(String::len).max().unwrap_or(0);
    for (form, flag) in forms.iter().zip(table) {
        row(text, form, flag.help, width);
    }
}

fn form(flag: &Flag) -> String {
    let value = if flag.takes == Takes::Nothing { "" } else { " value" };
    match flag.short {
        ' ' => format!("--{}{value}", flag.name),
        short => format!("--{}{value}, -{short}{value}", flag.name),
    }
}

fn row(text: &mut String, name: &str, about: &str, width: usize) {
    // A String takes everything.
    let _ = writeln!(text, "   {name:<width$}  {about}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_line_and_help_of_its_own() {
        let program = program();
        for one in COMMANDS {
            assert!(program.contains(&format!("\n   {:<11}  {}\n", one.name, one.about)));
            assert!(command(one).starts_with(&format!("NAME:\n   {NAME} {} - ", one.name)));
        }
    }
}
