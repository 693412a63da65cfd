//! The command `tcpgw check`.

use super::arguments::File;
use super::failure::{Code, Outcome};
use super::global::{Global, Output};
use super::print::{print, print_json};
use tcpgw_core::diff::count;
use tcpgw_core::model::{State, warnings};

pub(super) fn run(global: &Global, file: &File) -> Outcome {
    let config = global.strict_config()?;
    let state = global.state(file, &config)?;
    let backends = backends(&state);
    match global.output {
        Output::Json => print_json(&serde_json::json!({
            "services": state.services.len(),
            "backends": backends,
            "warnings": warnings(&state),
            "errors": { "problems": [], "more": 0 },
        }))?,
        Output::Table | Output::Wide if !global.quiet => {
            print(&format!(
                "ok: {}, {}\n",
                count(state.services.len(), "service"),
                count(backends, "backend")
            ))?;
        }
        Output::Table | Output::Wide => {}
    }
    Ok(Code::Success)
}

fn backends(state: &State) -> usize {
    state.services.iter().map(|service| service.backends.len()).sum()
}
