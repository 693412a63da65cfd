//! Checks of the size of conntrack's table, its counters, and its settings.

use super::super::facts::{CheapFacts, Facts};
use super::super::finding::{Diagnosis, FindingSeverity, Fix, advice, command};
use tcpgw_core::words::count;

const NEARLY_FULL: u64 = 80;
const FULL: u64 = 95;
/// Number of entries for each bucket above which look-ups become slow. The kernel's default is one connection for each
/// bucket, with an entry for each direction.
const LONG_CHAIN: u64 = 8;
const LONG_TIMEOUT: u64 = 86_400;

pub(super) fn check(facts: &Facts, diagnosis: &mut Diagnosis) {
    counters(facts, diagnosis);
    settings(facts, diagnosis);
}

pub(super) fn fill(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let number = |name: &str| facts.number(&format!("net.netfilter.nf_conntrack_{name}"));
    let (Some(count), Some(max)) = (number("count"), number("max")) else {
        diagnosis.unchecked(
            "the size of conntrack's table",
            "net.netfilter.nf_conntrack_max is not there; conntrack is not loaded",
        );
        return;
    };
    let percent = count.saturating_mul(100).checked_div(max).unwrap_or(0);
    if percent >= NEARLY_FULL {
        let (id, severity) = if percent >= FULL {
            ("conntrack-full", FindingSeverity::Broken)
        } else {
            ("conntrack-filling", FindingSeverity::Warning)
        };
        diagnosis.found(
            id,
            severity,
            format!("conntrack has {count} of {max} entries ({percent} %)"),
            "when it is full, new connections are dropped, and incomplete handshakes are removed to make room; each entry takes \
             some 300 bytes. The setting is the machine's: where this network namespace may not write it, change it outside"
                .into(),
            Some(enlarge(max)),
        );
    }
    let Some(buckets) = number("buckets").filter(|buckets| *buckets > 0) else {
        return;
    };
    if max / buckets > LONG_CHAIN {
        diagnosis.warning(
            "conntrack-long-chains",
            format!("nf_conntrack_max is {max}, and there are {buckets} buckets"),
            "with that many entries in each bucket, every packet that begins a flow takes longer to look up; one bucket for \
             each to four entries is usual",
            command(format!("sysctl -w net.netfilter.nf_conntrack_buckets={}", max / 4)),
        );
    }
}

fn enlarge(max: u64) -> Fix {
    command(format!(
        "sysctl -w net.netfilter.nf_conntrack_max={}",
        max.saturating_mul(2)
    ))
}

fn counters(facts: &Facts, diagnosis: &mut Diagnosis) {
    let Some(stats) = diagnosis.known("the counters of conntrack", &facts.stats).copied() else {
        return;
    };
    if stats.drop > 0 || stats.early_drop > 0 || stats.chain_too_long > 0 {
        let max = facts.cheap.number("net.netfilter.nf_conntrack_max").unwrap_or(0);
        diagnosis.warning(
            "conntrack-dropped",
            format!(
                "conntrack has dropped {} for lack of room, thrown out {} early, and refused {} because of a long bucket, since \
                 boot",
                count(stats.drop, "packet"),
                count(stats.early_drop, "entry"),
                stats.chain_too_long
            ),
            "its table was full, or nearly full, at some time since boot; see whether these counters still grow",
            if stats.chain_too_long > stats.drop + stats.early_drop {
                advice("raise net.netfilter.nf_conntrack_buckets")
            } else {
                enlarge(max)
            },
        );
    }
    if stats.insert_failed > 0 || stats.search_restart > 0 {
        diagnosis.note(
            "conntrack-races",
            format!(
                "conntrack has failed to insert {} and has begun {} again, since boot",
                count(stats.insert_failed, "entry"),
                count(stats.search_restart, "look-up")
            ),
            "an insert fails when two packets of one new flow race, or a translated flow finds its place taken: the client \
             sends its SYN again after a second",
        );
    }
}

/// Reports flows whose mark another program's rule has overwritten.
pub(super) fn unmarked(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(unmarked) = diagnosis.known("flows without our mark", &facts.unmarked) else {
        return;
    };
    if let Some((public, backend)) = unmarked.example {
        let count = usize::try_from(unmarked.count).unwrap_or(usize::MAX);
        diagnosis.broken(
            "flows-unmarked",
            format!(
                "{} from services to their backends do not have tcpgw's mark, such as one from {public} to {backend}",
                tcpgw_core::words::count(count, "flow")
            ),
            format!(
                "another program overwrites the ct mark ({}): no limit applies to such flows, and they are not flushed when their \
                 backend leaves",
                facts.mark
            ),
            advice(
                "find what writes the ct mark (`nft list ruleset`, `iptables-save`, `conntrack -U`), and give it a mask that leaves this mark alone; or choose another flow_mark in the configuration. Flows that lost the mark stay without it until they \
                 end, or until `conntrack -D` deletes them",
            ),
        );
    }
}

fn settings(facts: &Facts, diagnosis: &mut Diagnosis) {
    let is = |name: &str, value| facts.cheap.number(&format!("net.netfilter.nf_conntrack_{name}")) == Some(value);
    if is("tcp_be_liberal", 1) {
        diagnosis.note(
            "conntrack-liberal",
            "nf_conntrack_tcp_be_liberal is 1",
            "segments outside of the window are not INVALID: forged ones reach backends, where TCP itself must refuse them",
        );
    }
    if is("tcp_loose", 1) {
        diagnosis.note(
            "conntrack-loose",
            "nf_conntrack_tcp_loose is 1, Linux's default",
            "conntrack accepts connections of which it has not seen the beginning; the rules do not need 0 here: they refuse packets that are no SYN and belong to no known flow",
        );
    }
    let timeout = facts.cheap.number("net.netfilter.nf_conntrack_tcp_timeout_established");
    if let Some(seconds) = timeout.filter(|seconds| *seconds > LONG_TIMEOUT && facts.idle_timeout.is_none()) {
        diagnosis.note(
            "conntrack-long-timeout",
            format!(
                "nf_conntrack_tcp_timeout_established is {seconds} s ({} days)",
                seconds / 86_400
            ),
            "connections whose ends disappeared without closing keep their entries and source ports for this time, unless the service or the configuration has an `idle_timeout`",
        );
    }
    for (id, name, cause) in [
        (
            "conntrack-accounting-off",
            "acct",
            "flows have no packet and byte counters; flows that begin after the setting is changed have them",
        ),
        (
            "conntrack-timestamps-off",
            "timestamp",
            "the age of flows is unknown; it is known for flows that begin after the setting is changed",
        ),
    ] {
        if is(name, 0) {
            diagnosis.found(
                id,
                FindingSeverity::Note,
                format!("net.netfilter.nf_conntrack_{name} is 0"),
                cause.into(),
                Some(command(format!("sysctl -w net.netfilter.nf_conntrack_{name}=1"))),
            );
        }
    }
}
