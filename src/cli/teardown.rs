//! The command `tcpgw teardown`.

use std::time::Duration;

use super::arguments::Locking;
use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::print::{print, print_json};
use crate::control::request::TornDown;
use tcpgw_core::words::count;

pub(super) fn run(global: &Global, locking: &Locking) -> Outcome {
    if let Some(daemon) = global.daemon()? {
        return tell(global, &daemon.post("/v1/teardown", Vec::new())?.json()?);
    }
    tell(global, &without_daemon(global, locking.lock_timeout)?)
}

/// Removes everything, where no daemon runs.
pub(super) fn without_daemon(global: &Global, lock_timeout: Duration) -> Result<TornDown, Failure> {
    // Flows to be removed have the mark that the table names, whatever the configuration says.
    let config = global.config_for_looking();
    let mut gateway = Gateway::open(global)?;
    let lock = gateway.lock(global, lock_timeout)?;
    let torn = gateway.reconciler(&config).teardown(None)?;
    if torn.failed == 0 {
        lock.discard();
    }
    Ok(TornDown {
        table_removed: torn.table,
        flows_flushed: torn.flushed,
        flows_not_flushed: torn.failed,
        not_lasting: None,
    })
}

fn tell(global: &Global, torn: &TornDown) -> Outcome {
    match global.output {
        OutputFormat::Json => print_json(&serde_json::json!({
            "table_removed": torn.table_removed,
            "flows_flushed": torn.flows_flushed,
            "flows_not_flushed": torn.flows_not_flushed,
            "not_lasting": torn.not_lasting,
        }))?,
        OutputFormat::Table | OutputFormat::Wide if !global.quiet => {
            let table = if torn.table_removed {
                "table removed"
            } else {
                "there was no table"
            };
            print(&format!("{table}; {} flushed\n", count(torn.flows_flushed, "flow")))?;
        }
        OutputFormat::Table | OutputFormat::Wide => {}
    }
    if let Some(trouble) = &torn.not_lasting {
        let not_flushed = match torn.flows_not_flushed {
            0 => String::new(),
            flows => format!("; {} not flushed, run again", count(flows, "flow")),
        };
        return Err(Failure::Refused(format!(
            "torn down, but not for the next daemon: that could not be written ({trouble}), and a daemon that starts serves again; make it \
             writable, `tcpgw status` tells when it has been written, or see to it that no daemon starts{not_flushed}"
        )));
    }
    if torn.flows_not_flushed > 0 {
        return Err(Failure::Refused(format!(
            "{} not flushed; run again",
            count(torn.flows_not_flushed, "flow")
        )));
    }
    Ok(Code::Success)
}
