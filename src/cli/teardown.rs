//! `tcpgw teardown`

use super::gateway::Gateway;
use super::{Code, Failure, Global, Locking, Outcome, Output, print, print_json};
use crate::words::count;

pub(super) fn run(global: &Global, locking: &Locking) -> Outcome {
    let config = global.config()?;
    let mut gateway = Gateway::open(global)?;
    let _lock = gateway.lock(global, locking.lock_timeout)?;
    let torn = gateway.reconciler(&config).teardown()?;
    match global.output {
        Output::Json => print_json(&serde_json::json!({
            "table_removed": torn.table,
            "flows_flushed": torn.flushed,
            "flows_not_flushed": torn.failed,
        }))?,
        Output::Table if !global.quiet => {
            let table = if torn.table {
                "table removed"
            } else {
                "there was no table"
            };
            let flows = usize::try_from(torn.flushed).unwrap_or(usize::MAX);
            print(&format!("{table}; {} flushed\n", count(flows, "flow")))?;
        }
        Output::Table => {}
    }
    if torn.failed > 0 {
        return Err(Failure::Refused(format!(
            "{} flows not flushed; run again",
            torn.failed
        )));
    }
    Ok(Code::Success)
}
