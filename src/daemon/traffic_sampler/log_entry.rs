//! Ended flows as the sampler hands them to the flow log.

use std::thread;

use crate::daemon::flow_log::FlowLog;
use crate::traffic::Ledger;
use crate::traffic::flow_record::FlowRecord;
use tcpgw_kernel::conntrack::Flow;

type Log<'a> = Option<&'a (FlowLog, thread::JoinHandle<()>)>;

/// Adds an ended flow to the flow log.
pub(super) fn note(log: Log<'_>, ledger: &Ledger, flow: &Flow, stopped: Option<u64>) {
    if let Some((log, _)) = log {
        let service = ledger.service_of(flow).map(Box::from);
        log.add(FlowRecord::new(flow, service, stopped));
    }
}

/// Notes that the kernel's queue of reports was full so many times.
pub(super) fn overrun(log: Log<'_>, ledger: &mut Ledger, times: u64) {
    ledger.lost(times);
    if let Some((log, _)) = log {
        log.overrun(times);
    }
}
