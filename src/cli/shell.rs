//! `tcpgw completions`

use clap::Args;

use super::{Code, Outcome, help, print};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn completions(arguments: &Completions) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut help::command(), "tcpgw", &mut text);
    print(&String::from_utf8_lossy(&text))?;
    Ok(Code::Success)
}
