//! Check of tcpgw's own table.

use super::super::facts::{Facts, TableState};
use super::super::finding::{Diagnosis, advice};
use tcpgw_core::ruleset::skeleton;

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(table) = diagnosis.known("the table inet tcpgw", &facts.table) else {
        return;
    };
    let apply = || advice("run `tcpgw apply` with the state file");
    match &table.state {
        TableState::AsWritten => {}
        TableState::Absent => diagnosis.note(
            "table-missing",
            "there is no table inet tcpgw",
            "nothing was applied here yet, or since the last boot",
        ),
        TableState::Gone => diagnosis.broken(
            "table-missing",
            "the table inet tcpgw, which `tcpgw apply` created, is gone",
            "another program removed it (`nft flush ruleset` does, and so does a restart of the nftables service): no \
             service is reached, and connections that were established break",
            apply(),
        ),
        TableState::Unrecorded => diagnosis.note(
            "table-unrecorded",
            "there is no record of what was applied last",
            "names of services and draining backends are not known, and the next `apply` reads the kernel, which takes longer",
        ),
        TableState::Changed => diagnosis.broken(
            "table-changed",
            "the elements of the table inet tcpgw are not those that were applied",
            "another program or user edited it: services, backends or limits differ from the state",
            apply(),
        ),
        TableState::Other(comment) => other(comment.as_deref(), diagnosis),
    }
    if let (Some(_), Some(daemon)) = (&table.owner, table.daemon) {
        diagnosis.note(
            "table-owned",
            format!("the daemon owns the table inet tcpgw: process {daemon}"),
            "other programs cannot change it, and commands of tcpgw go through the daemon",
        );
    } else if let Some((port, process)) = &table.owner {
        let process = process.as_deref().unwrap_or("no known process has this id");
        diagnosis.warning(
            "table-owned",
            format!("a running program owns the table inet tcpgw: netlink port {port}, {process}"),
            "no other program can change it as long as that one runs, not even `tcpgw apply`",
            advice("change services through that program, or end it"),
        );
    }
    if let Some(mark) = table.mark.filter(|mark| *mark != facts.configured_mark) {
        diagnosis.warning(
            "table-of-another-mark",
            format!(
                "the table marks flows with {mark}, and the configuration says {}",
                facts.configured_mark
            ),
            "`apply` refuses to work, and a daemon goes on with the table's mark: flows with it would belong to no service",
            advice(format!(
                "put `flow_mark = \"{mark}\"` back into the configuration; only if {} is meant, run `tcpgw teardown`, which ends every service \
                 and its connections, then `tcpgw apply`, or where a daemon runs, restart it and run `tcpgw resume`",
                facts.configured_mark
            )),
        );
    }
}

fn other(comment: Option<&str>, diagnosis: &mut Diagnosis) {
    let fix = advice("run `tcpgw apply` with the state file: it replaces the table in one transaction");
    if comment.is_some_and(|comment| comment.starts_with(&format!("{},", skeleton::name()))) {
        diagnosis.broken(
            "table-changed",
            "the rules of the table inet tcpgw are not those that this program makes",
            "another program or user edited them; their effect is unknown",
            fix,
        );
    } else {
        diagnosis.warning(
            "table-of-another-version",
            format!(
                "the table inet tcpgw has the rules of another version ({})",
                comment.unwrap_or("it does not say which")
            ),
            "it goes on as it is, but this program cannot change single services of it",
            fix,
        );
    }
}
