//! Texts of clap about arguments: errors of usage, help, the version. They contain arguments and variables as they were given,
//! so that line breaks in them are spelled out.

use std::error::Error as _;
use std::io::{self, IsTerminal as _, Write};

use clap::error::{ContextKind, ContextValue};

use super::screen;
use tcpgw_core::escape;

/// Prints the text on standard output or standard error, with colours on a terminal.
pub(super) fn print(error: clap::Error) -> io::Result<()> {
    let wants_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let is_error = error.use_stderr();
    let is_terminal = if is_error {
        io::stderr().is_terminal()
    } else {
        io::stdout().is_terminal()
    };
    let text = text(error, wants_colors && is_terminal);
    if is_error {
        let mut stderr = screen::stderr();
        stderr.write_all(text.as_bytes())?;
        stderr.flush()
    } else {
        let mut stdout = screen::stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

fn text(mut error: clap::Error, colored: bool) -> String {
    let given: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| Some((kind, escaped(kind, value)?)))
        .collect();
    for (kind, value) in given {
        error.insert(kind, value);
    }
    let rendered = error.render();
    let mut text = if colored {
        rendered.ansi().to_string()
    } else {
        rendered.to_string()
    };
    // An error about a value may quote the value, and the help shows variables.
    let source = error.source().map(ToString::to_string);
    let variables = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TCPGW_"));
    let variables = variables.map(|(_, value)| value.to_string_lossy().into_owned());
    for foreign in source.into_iter().chain(variables) {
        let safe = escape::text(&foreign);
        if safe != foreign {
            text = text.replace(&foreign, &safe);
        }
    }
    let (first, rest) = text.split_at(text.find('\n').map_or(text.len(), |end| end + 1));
    format!("{first}{}", escape::indented(rest))
}

/// Returns a value with its foreign text on one line; `None`: it has none, or is unchanged.
fn escaped(kind: ContextKind, value: &ContextValue) -> Option<ContextValue> {
    let is_risky = |text: &String| escape::text(text) != *text;
    match value {
        ContextValue::String(text) if is_risky(text) => Some(ContextValue::String(escape::text(text))),
        ContextValue::Strings(texts) if texts.iter().any(is_risky) => Some(ContextValue::Strings(
            texts.iter().map(|text| escape::text(text)).collect(),
        )),
        ContextValue::StyledStrs(texts) if kind == ContextKind::Suggested => {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let texts = texts.iter().any(is_risky).then_some(texts)?;
            let safe = texts.iter().map(|text| escape::text(text).into());
            Some(ContextValue::StyledStrs(safe.collect()))
        }
        _ => None,
    }
}
