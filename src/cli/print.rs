//! Printing on standard output.

use std::io::Write;

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::global::{Global, OutputFormat};
use crate::cli::screen;
use std::io;

/// Treats a closed standard output (SIGPIPE) as success.
pub(super) fn unless_closed(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_on(screen::stdout(), text)
}

pub(super) fn print_on(mut stdout: impl Write, text: &str) -> Result<(), Failure> {
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })
}

pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::Io {
        what: "write JSON",
        source: error.into(),
    })?;
    print_on(screen::json(), &(text + "\n"))
}

/// Prints the result of an order: its view as JSON, or a sentence.
pub(super) fn show(global: &Global, view: &impl serde::Serialize, text: &str) -> Outcome {
    match global.output {
        OutputFormat::Json => print_json(view)?,
        OutputFormat::Table | OutputFormat::Wide if global.quiet => {}
        OutputFormat::Table | OutputFormat::Wide => print(text)?,
    }
    Ok(Code::Success)
}

/// Prints an answer of the daemon: as JSON, or as text by `print_text`, whose reader may leave before the end.
pub(super) fn show_answer(
    global: &Global,
    answer: &impl serde::Serialize,
    print_text: impl FnOnce() -> Result<(), Failure>,
) -> Outcome {
    match global.output {
        OutputFormat::Json => print_json(answer)?,
        OutputFormat::Table | OutputFormat::Wide => unless_closed(print_text())?,
    }
    Ok(Code::Success)
}
