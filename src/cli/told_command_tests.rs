//! The commands that sentences, alerts and remedies tell are such as the program takes.

use clap::Parser as _;
use clap::error::ErrorKind;
use regex_lite::Regex;

use super::command::Cli;
use super::document_tests::{command_lines, files, name, read, spans};
use crate::source_tests::{self, program, root};

/// Returns the line with a name in place of each value of an alert (`{{ ... }}`) or of a sentence (`{...}`).
fn filled(line: &str) -> String {
    let value = Regex::new(r"\{\{[^}]*\}\}|\{[^}]*\}").expect("an expression");
    value.replace_all(line, "web").into_owned()
}

/// Options and names are looked at elsewhere: this finds words that a command does not take, such as the name of a
/// service without its option.
#[test]
fn told_commands_have_no_words_that_they_do_not_take() {
    let dashboards = source_tests::files(&root().join("dist/grafana"));
    let sources = program(&root().join("src"));
    let (mut found, mut in_alerts, mut wrong) = (0, 0, Vec::new());
    for path in files().into_iter().chain(dashboards).chain(sources) {
        for told in spans(&read(&path)) {
            let line = filled(&told);
            // Alternatives, shell and placeholders of what is left out.
            if !line.starts_with("tcpgw ")
                || line.contains("...")
                || line.contains(['|', '[', '…', '<', '>', '$', '\'', '"', '\\', ',', '&', '/'])
            {
                continue;
            }
            found += 1;
            in_alerts += usize::from(told.contains("{{"));
            if let Err(error) = Cli::try_parse_from(line.split_whitespace())
                && [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand].contains(&error.kind())
            {
                wrong.push(format!("{}: {told}: {error}", name(&path)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        found >= 200 && in_alerts >= 4,
        "only {found} commands, {in_alerts} in alerts"
    );
}

/// A remedy is a command line that is typed as it stands.
#[test]
fn remedies_are_commands() {
    let remedy = Regex::new(r#"\bcommand\(\s*(?:format!\(\s*)?"([^"]*)""#).expect("an expression");
    let (mut parsed, mut wrong) = (0, Vec::new());
    for path in program(&root().join("src/doctor")) {
        for remedy in remedy.captures_iter(&read(&path)) {
            for words in command_lines(&filled(&remedy[1])) {
                parsed += 1;
                let line = std::iter::once("tcpgw").chain(words.iter().map(String::as_str));
                if let Err(error) = Cli::try_parse_from(line) {
                    wrong.push(format!("{}: {}: {error}", name(&path), &remedy[1]));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(parsed >= 4, "only {parsed} commands");
}
