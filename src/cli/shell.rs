//! `tcpgw completions`

use clap::{Args, CommandFactory};

use super::{Cli, Code, Outcome, print};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For this shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn completions(arguments: &Completions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "tcpgw", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(Code::Success)
}
