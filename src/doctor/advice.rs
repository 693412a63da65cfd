//! Causes and fixes of problems that the daemon reports.

use super::finding::{Fix, advice, command};
use tcpgw_core::problem::ProblemKind;

/// Returns the cause and the fix of a problem; `None` where a check of the doctor has its own.
#[expect(clippy::too_many_lines, reason = "one entry for each kind")]
pub(super) fn of(kind: ProblemKind) -> Option<(&'static str, Fix)> {
    let (cause, fix) = match kind {
        ProblemKind::Starting => (
            "the daemon has just started and compares the kernel with the desired state; the kernel forwards as before",
            advice("wait some seconds; if this finding stays, see the daemon's log (`journalctl -u tcpgw`)"),
        ),
        ProblemKind::TornDown => (
            "`tcpgw teardown` removed the rules and flows; no service works until it is ended",
            command("tcpgw resume"),
        ),
        ProblemKind::KernelRefuses => (
            "the desired state is not in effect; the daemon tries again",
            advice("the message has the kernel's reason; see also findings of missing kernel features"),
        ),
        ProblemKind::NoActiveBackend => (
            "no backend of the service may get new connections",
            advice(
                "add one: `backends` in its state file, `tcpgw service set`, `tcpgw deploy` or `tcpgw undrain`; for a service of Docker's \
                 containers (`tcpgw service ls --provider docker`), start one of them",
            ),
        ),
        ProblemKind::NoHealthyBackend => (
            "the backends' addresses and ports do not answer TCP handshakes from the gateway",
            advice("start the backends, or try one from here: `nc -v IP PORT`; `tcpgw status` has the reason of each"),
        ),
        ProblemKind::HeldBack => (
            "the service cannot be served on this gateway now; the daemon tries again by itself",
            advice("the message names what is in the way, and what to do about it for a service of its provider"),
        ),
        ProblemKind::OutsideFences => (
            "the fences of the configuration were changed after the service was added; it stays served",
            advice(
                "change the fence and reload the daemon (SIGHUP), or change or remove the service, as the message says",
            ),
        ),
        ProblemKind::SourceAddressGone => (
            "the service is served, and its backends cannot answer to an address that the gateway has lost",
            advice("give the gateway the address again (`ip address add`), or take it out of `source_addresses`"),
        ),
        ProblemKind::OwnBackend => (
            "connections to such a backend end at the gateway itself",
            advice("remove the address from the gateway, or the backend from the service"),
        ),
        ProblemKind::StaleFlows => (
            "connections go on to backends that no longer belong to the service",
            advice("`tcpgw apply` again; the daemon tries again by itself"),
        ),
        ProblemKind::RejectedState => (
            "the state file is not in effect; what is served goes on as it is",
            advice(
                "correct the file; the message names the place, and `tcpgw check FILE` validates a file before it is put there",
            ),
        ),
        ProblemKind::RejectedStore => (
            "these services of the API are not served, because they contradict other services",
            advice("change or remove one of those that are named: `tcpgw service set`, `tcpgw service rm`"),
        ),
        ProblemKind::Store => (
            "no change through the API is taken; what is served goes on",
            advice("the message says what the store needs; then the daemon takes changes again, or after a restart"),
        ),
        ProblemKind::StoreMoved => (
            "the daemon still writes to the old file: what is ordered through the API is lost when the daemon ends",
            advice(
                "move the file back; else `tcpgw export >state.json`, restart the daemon, and `tcpgw apply state.json`",
            ),
        ),
        ProblemKind::NotServed => (
            "they were lost from the kernel in a boot, or with the table; only a daemon restores them",
            command("systemctl start tcpgw"),
        ),
        ProblemKind::Unanswered => (
            "the backend answers probes, and clients' handshakes get no answer, or never complete",
            advice(
                "see whether answers come back through the gateway (`source`, routes of the containers), and other findings here",
            ),
        ),
        ProblemKind::ChecksStalled => (
            "the checks of routes, firewalls and conntrack have not ended, so that a new problem would not be found",
            advice("see the daemon's log; usual causes are a high load, or a kernel that does not answer"),
        ),
        ProblemKind::DaemonUnreachable => (
            "the daemon could not be asked, so that its own findings are missing",
            advice("name its socket (`--socket`, `TCPGW_SOCKET`)"),
        ),
        ProblemKind::DaemonGone => (
            "nothing probes backends, ends drains or repairs the table",
            command("systemctl start tcpgw"),
        ),
        ProblemKind::OtherNamespace => (
            "this command looks at its own network namespace, and the daemon serves another one",
            advice("run it there: `nsenter -t PID -n tcpgw doctor`"),
        ),
        ProblemKind::SocketGone => (
            "commands do not find the daemon, and work on the kernel beside it or are refused",
            advice("make sure that its directory exists and that the daemon may write there, then restart the daemon"),
        ),
        ProblemKind::ProviderApi => (
            "platforms cannot provision, change or remove resources; what is provisioned is served",
            advice("correct what the problem names; the daemon tries again every 10 s, and at a reload (SIGHUP)"),
        ),
        ProblemKind::Web => (
            "metrics cannot be scraped, so that alerts that need them are blind; services are served",
            advice("correct what the problem names; the daemon tries again every 10 s, and at a reload (SIGHUP)"),
        ),
        ProblemKind::SocketReadonly => (
            "monitoring by that socket is blind; the other socket, and services, are served",
            advice("correct what the problem names; the daemon tries again every 2 s, and at a reload (SIGHUP)"),
        ),
        ProblemKind::AddonPorts => (
            "when no port is left, platforms are refused (422); existing resources keep their ports",
            advice(
                "more ports in `addon.ports`, or a shorter `addon.quarantine`, then `systemctl reload tcpgw`; `tcpgw addon ls` says which ports rest",
            ),
        ),
        ProblemKind::RejectedConfiguration => (
            "what the file says is not in effect: a running daemon continues with its old configuration, and one that starts uses the copy of what was accepted last, or cannot start where there is none",
            advice(
                "correct the file (the message names the place), then `systemctl reload tcpgw`, or `systemctl start tcpgw` where none runs",
            ),
        ),
        ProblemKind::Orphaned => (
            "no provider defines these services any more; they are served until they are removed or defined anew",
            advice(
                "`tcpgw service rm NAME` ends one; `tcpgw service set NAME`, or a file that defines it, takes it over",
            ),
        ),
        ProblemKind::LastServices => (
            "the second copy of the desired services, from which a machine without its state file or store serves after a boot, is damaged or cannot be written",
            advice(
                "if the file is damaged, check whether services are missing, define these again, and remove the file; otherwise free space on the disk, or make the directory of the store writable for the daemon",
            ),
        ),
        ProblemKind::Record => (
            "the next daemon may not know what is served, paused and drained, or that everything was torn down",
            advice(
                "free space in the run directory, or make the directory and its files writable for the daemon; after a record that was lost, `systemctl reload tcpgw` ends the message",
            ),
        ),
        ProblemKind::StoreLost => (
            "what was ordered in the last second before the loss, and the history, are not known; what is served goes on",
            advice(
                "compare `tcpgw addon ls` and `tcpgw service ls` with what was ordered, or put a backup of the store in its place; then remove the note that the message names",
            ),
        ),
        ProblemKind::FlowLog => (
            "connections are missing in the flow log; what is served goes on",
            advice(
                "make the place of `flow_log` writable for the daemon, or free space there; a log that loses lines at a high rate needs a faster disk, or is written by a gateway with too little processor time",
            ),
        ),
        ProblemKind::Docker => (
            "Docker's engine does not answer, so that containers which start or end since are not known",
            advice("start it, or let the daemon's user use its socket; the daemon tries again every few seconds"),
        ),
        ProblemKind::Container => (
            "the labels of a container cannot be in effect",
            advice("correct the labels that the message names, and create the container again"),
        ),
        ProblemKind::Hooks => (
            "the hook misses events, so what it would start or alert of does not happen; services are served, and `tcpgw events` has the missed events",
            advice(
                "make the program work, or the receiver answer with 2xx within `timeout`; after a correction of the configuration `systemctl reload tcpgw`",
            ),
        ),
        ProblemKind::Paused => (
            "new connections wait: `tcpgw pause` was ordered, and ends by itself",
            advice("`tcpgw resume NAME` ends it now"),
        ),
        ProblemKind::BackendUnhealthy => (
            "it gets no new connections until it answers",
            advice("start it, or take it out of the service; from here: `nc -v IP PORT`"),
        ),
        ProblemKind::SourcePorts => (
            "each connection to a backend needs a source port of the gateway; without one, new connections fail",
            advice("more `source_addresses` or backends"),
        ),
        ProblemKind::OverLimit => (
            "a backend gets or sends more than its service's `limit`, or a service has its `max_flows`; what is over is dropped",
            advice("raise `limit` or `max_flows`, or add backends, if this is not intended"),
        ),
        ProblemKind::NoTable => ("no service works without the table", command("tcpgw apply FILE")),
        ProblemKind::TableDormant => ("none of the table's rules work", command("tcpgw apply FILE")),
        ProblemKind::TableChanged => (
            "another program or user changed the table, so that it may not match the services",
            command("tcpgw apply FILE"),
        ),
        ProblemKind::OtherMark => (
            "all is served with the table's mark; with the other one its flows would be taken for flows of other programs",
            advice(
                "put the table's `flow_mark` back into the configuration; if the other one is meant, run `tcpgw teardown`, which ends every \
                 service, restart the daemon and run `tcpgw resume`",
            ),
        ),
        ProblemKind::AddressLost => (
            "the daemon saw the address on this gateway, and connections of clients to it; it reports the loss for an hour",
            advice("give the gateway the address again (`ip address add`), unless it went on purpose"),
        ),
        ProblemKind::ProbesMisrouted => (
            "a daemon takes such backends for unhealthy, and sends them no new connections; probes are the gateway's own packets, to which no \
             `ip rule iif INTERFACE` applies",
            advice(
                "give the gateway's own packets the clients' route, too (`ip rule add iif lo to NETWORK lookup TABLE`): the message has the line",
            ),
        ),
        ProblemKind::IpForwardOff
        | ProblemKind::Ipv6ForwardingOff
        | ProblemKind::PacketsDropped
        | ProblemKind::PacketsUntracked
        | ProblemKind::PortTranslatedElsewhere
        | ProblemKind::ReversePathFilter
        | ProblemKind::ConntrackFull
        | ProblemKind::AddressNotLocal
        | ProblemKind::NoPublicAddress
        | ProblemKind::NoCarrier
        | ProblemKind::SourceAddressNotLocal
        | ProblemKind::BackendWithoutRoute
        | ProblemKind::AnswersWithoutRoute
        | ProblemKind::BackendIsGateway
        | ProblemKind::FlowsOffloaded
        | ProblemKind::ConntrackFilling
        | ProblemKind::FlowMarkOverwritten
        | ProblemKind::FlowsUnmarked
        | ProblemKind::BackendByDefaultRoute
        | ProblemKind::BackendsExposed
        | ProblemKind::ProbesDropped
        | ProblemKind::ConntrackLongChains => return None,
    };
    Some((cause, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_finding_of_its_own_or_an_advice() {
        for kind in ProblemKind::ALL {
            let is_own = crate::doctor::FINDINGS.iter().any(|(id, _)| *id == kind.id());
            assert!(is_own || of(*kind).is_some(), "{kind:?}");
        }
    }
}
