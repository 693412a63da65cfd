//! Problems of the table, and of flows that it does not serve any more.

use crate::view::ServicesView;
use crate::view::tally::StrayPair;
use tcpgw_core::model::FlowMark;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};
use tcpgw_core::words::count;

pub(super) fn table(services: &ServicesView, problems: &mut Vec<Problem>) {
    let Some(table) = &services.table else {
        let message =
            "there is no table `inet tcpgw` in this network namespace, so no service works: run `tcpgw apply FILE`";
        problems.push(Problem::new(ProblemKind::NoTable, message));
        return;
    };
    if let Some(why) = &services.changed {
        let message =
            format!("{why}: what follows is as far as it can be read; run `tcpgw apply FILE` to put it right");
        let severity = if services.is_edited {
            Severity::Error
        } else {
            Severity::Warning
        };
        problems.push(Problem::new(ProblemKind::TableChanged, message).with_severity(severity));
    }
    if table.flags.iter().any(|flag| flag == "dormant") {
        let message = "the table is dormant, so none of its rules work: run `tcpgw apply FILE`";
        problems.push(Problem::new(ProblemKind::TableDormant, message));
    }
    if services.mark != services.configured {
        let message = other_mark(services.mark, services.configured, "`tcpgw apply` refuses to work");
        problems.push(Problem::new(ProblemKind::OtherMark, message));
    }
}

/// Returns the message about a table whose flow mark differs from the configured one; `effect`: the consequence.
pub fn other_mark(theirs: FlowMark, ours: FlowMark, effect: &str) -> String {
    format!(
        "the table marks its flows with {theirs}, the configuration says {ours}: {effect}. Put `flow_mark = \"{theirs}\"` back into the \
         configuration. Only if {ours} is meant: `tcpgw teardown`, which ends every service and its connections, then `tcpgw apply`, or \
         where a daemon runs, a restart of it and `tcpgw resume`"
    )
}

pub(super) fn stale(pair: &StrayPair) -> Problem {
    let StrayPair { port, backend, flows } = pair;
    let are = if *flows == 1 { "is" } else { "are" };
    let stale_flows = count(*flows, "flow");
    let message = format!(
        "{stale_flows} to port {port} {are} still at {backend}, which is no backend of it any more: run `tcpgw apply FILE` \
         to flush them"
    );
    Problem {
        port: Some(*port),
        backend: Some(*backend),
        ..Problem::new(ProblemKind::StaleFlows, message)
    }
}
