//! The command `tcpgw check`.

use super::arguments::FileArgument;
use super::failure::{Code, Outcome};
use super::global::{Global, OutputFormat};
use super::print::{print, print_json};
use tcpgw_core::model::{State, warnings};
use tcpgw_core::words::count;

pub(super) fn run(global: &Global, file: &FileArgument) -> Outcome {
    let config = global.strict_config()?;
    let state = global.state(file, &config)?;
    let backends = backends(&state);
    match global.output {
        OutputFormat::Json => print_json(&serde_json::json!({
            "services": state.services.len(),
            "backends": backends,
            "warnings": warnings(&state),
            "errors": { "problems": [], "more": 0 },
        }))?,
        OutputFormat::Table | OutputFormat::Wide if !global.quiet => {
            print(&format!(
                "ok: {}, {}\n",
                count(state.services.len(), "service"),
                count(backends, "backend")
            ))?;
        }
        OutputFormat::Table | OutputFormat::Wide => {}
    }
    Ok(Code::Success)
}

fn backends(state: &State) -> usize {
    state.services.iter().map(|service| service.backends.len()).sum()
}
