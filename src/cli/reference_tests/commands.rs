//! `docs/reference/commands.md`, from the command line's own help.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use super::super::help;
use super::{assert_made, cell};

const PAGE: &str = "docs/reference/commands.md";

const HEAD: &str = "\
# Commands

This page is made from the program's own help: `tcpgw help COMMAND` and `man tcpgw-COMMAND` say the same. [Output](output.md) describes what
the commands print, [exit codes](exit-codes.md) how they end. FILE is a path, or `-` for standard input.

| commands | need |
| --- | --- |
| `check`, `render`, `completions`, `man`, `help` | nothing |
| `diff`, `status`, `flows`, `who` | CAP_NET_ADMIN; while a daemon runs, the right to use its socket instead |
| `apply`, `teardown` | CAP_NET_ADMIN and a writable `/run/tcpgw`; while a daemon runs, the right to use its socket instead |
| `doctor` | nothing; CAP_NET_ADMIN for all checks |
| `daemon` | CAP_NET_ADMIN, a writable `/run/tcpgw` and `/var/lib/tcpgw` |
| `up` | root |
| all others | a daemon, and the right to use its socket |

[With a daemon](with-a-daemon.md) explains when a command asks the daemon and when it works on the kernel itself. Durations (T) are a whole number and
one unit: `500ms`, `30s`, `5m`, `1h`.
";

const OPTIONS_OF_ALL: &str = "
## Options of all commands

Every command takes them, before or after its name.
";

#[test]
fn the_page_of_commands_is_what_the_help_says() {
    let mut program = help::command();
    program.build();
    let mut page = HEAD.to_owned();
    for command in program.get_subcommands() {
        write_command(&mut page, command, "tcpgw", 2);
    }
    page.push_str(OPTIONS_OF_ALL);
    write_arguments(
        &mut page,
        program.get_arguments().filter(|argument| !argument.is_hide_set()),
    );
    assert_made(PAGE, &page);
}

/// Writes a section for a command, and one for each command below it.
fn write_command(page: &mut String, command: &Command, above: &str, level: usize) {
    let name = format!("{above} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).expect("a description");
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    write!(
        page,
        "\n{} `{name}`\n\n{}\n\n```text\n{usage}\n```\n",
        "#".repeat(level),
        about
            .to_string()
            .split("\n\n")
            .map(sentence)
            .collect::<Vec<_>>()
            .join("\n\n")
    )
    .expect("room");
    let is_common = |argument: &Arg| {
        argument.is_global_set() || ["help", "version"].contains(&argument.get_id().as_str()) || argument.is_hide_set()
    };
    write_arguments(page, command.get_arguments().filter(|argument| !is_common(argument)));
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines = examples.lines().filter_map(|line| line.strip_prefix("  "));
        writeln!(page, "\n```sh\n{}\n```", lines.collect::<Vec<_>>().join("\n")).expect("room");
    }
    for below in command.get_subcommands() {
        write_command(page, below, &name, level + 1);
    }
}

/// Writes a table of arguments and options, if there are any.
fn write_arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let mut rows = arguments.peekable();
    if rows.peek().is_some() {
        page.push_str("\n| argument | meaning |\n| --- | --- |\n");
    }
    for argument in rows {
        writeln!(page, "| {} | {} |", spelling(argument), meaning(argument)).expect("room");
    }
}

/// Returns the spelling: `-f`, `--file FILE` of an option; `[FILE]` of another argument.
fn spelling(argument: &Arg) -> String {
    let takes_value = argument.get_num_args().is_some_and(|range| range.takes_values());
    let values = argument.get_value_names().unwrap_or_default();
    let value = values
        .iter()
        .map(clap::builder::Str::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    let value = cell(if takes_value { &value } else { "" });
    let repeats = matches!(argument.get_action(), ArgAction::Append);
    if argument.is_positional() {
        let value = if repeats { format!("{value}...") } else { value };
        let value = if argument.is_required_set() {
            value
        } else {
            format!("[{value}]")
        };
        return format!("`{value}`");
    }
    let space = if value.is_empty() { "" } else { " " };
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let long = argument.get_long().map(|long| format!("`--{long}{space}{value}`"));
    short.into_iter().chain(long).collect::<Vec<_>>().join(", ")
}

/// Returns the help of an argument, its values, its default and its variable.
fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help()).expect("a description");
    let mut text = sentence(&cell(&help.to_string()));
    let list = |names: Vec<String>| {
        names
            .iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let takes_value = argument.get_num_args().is_some_and(|range| range.takes_values());
    let possible = argument.get_possible_values();
    if takes_value && !possible.is_empty() {
        let names = possible.iter().filter(|value| !value.is_hide_set());
        let names = list(names.map(|value| value.get_name().to_owned()).collect());
        write!(text, " One of {names}.").expect("room");
    }
    let defaults = argument.get_default_values();
    if takes_value && defaults.iter().any(|value| !value.is_empty()) {
        let values = list(
            defaults
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect(),
        );
        write!(text, " Default: {values}.").expect("room");
    }
    if matches!(argument.get_action(), ArgAction::Append) && !text.contains("repeated") && !argument.is_positional() {
        text.push_str(" May be repeated.");
    }
    if let Some(variable) = argument.get_env() {
        write!(text, " Variable: `{}`.", variable.to_string_lossy()).expect("room");
    }
    text
}

/// Returns a help text, which has no full stop at its end, as a sentence. A default in brackets stays at its end.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    match text.split_once(" [default: ") {
        Some((before, default)) if default.ends_with(']') => {
            format!("{} Default: {}.", sentence(before), default.trim_end_matches(']'))
        }
        _ if text.ends_with(['.', '!', '?', ':']) => text.to_owned(),
        _ => format!("{text}."),
    }
}
