//! The base chains, and the chains that they share.

use super::chain::{Hook, SkeletonChain, goto};
use super::sources;
use crate::model::FlowMark;
use crate::ruleset::name::{Family, OptionalSets, Scope, SetName};
use crate::ruleset::stmt::{CtState, FlowDirection, Stmt, service_in};
use crate::ruleset::timeouts::Timeouts;

const MANGLE: (i32, &str) = (-150, "mangle");
const DSTNAT: (i32, &str) = (-100, "dstnat");
// nft has no name for this priority in the output hook.
const DSTNAT_OUTPUT: (i32, &str) = (-100, "-100");
const FILTER: (i32, &str) = (0, "filter");
const SRCNAT: (i32, &str) = (100, "srcnat");

type RuleList = Vec<Vec<Stmt>>;

fn by_family(families: &[Family], chain: &str) -> RuleList {
    let rule = |family: &Family| vec![Stmt::Family(*family), Stmt::Goto(format!("{chain}_{family}"))];
    families.iter().map(rule).collect()
}

pub(super) fn entries(mark: FlowMark, optional_sets: &OptionalSets) -> Vec<SkeletonChain> {
    let limited = |family: &Family| optional_sets.contains(&SetName::Limited(*family));
    let limited: Vec<Family> = Family::BOTH.into_iter().filter(limited).collect();
    let mut chains = flows_of_ours(&limited).to_vec();
    chains.push(probe());
    chains.extend([
        SkeletonChain::base(
            "guard",
            Hook::Prerouting,
            false,
            MANGLE,
            guard(mark, &limited, optional_sets),
        ),
        SkeletonChain::base(
            "guard_output",
            Hook::Output,
            false,
            MANGLE,
            guard_output(mark, &limited),
        ),
        SkeletonChain::base("balance", Hook::Prerouting, true, DSTNAT, balance()),
        SkeletonChain::base("balance_output", Hook::Output, true, DSTNAT_OUTPUT, balance_output()),
        SkeletonChain::base("settle", Hook::Input, false, FILTER, settle()),
        SkeletonChain::base("police", Hook::Postrouting, true, MANGLE, police(mark, &limited)),
        SkeletonChain::base(
            "source",
            Hook::Postrouting,
            true,
            SRCNAT,
            sources::source(mark, optional_sets),
        ),
    ]);
    chains
}

/// Returns the chains for packets of flows that have tcpgw's mark.
fn flows_of_ours(limited: &[Family]) -> [SkeletonChain; 8] {
    use Stmt::{
        BareAck, CtState as State, Direction as Towards, InNowhere, Jump, NotTcp, Return, SynAck, SynUnanswered,
        Unassured,
    };
    let mut opening = vec![vec![Jump("repeated".into())]];
    opening.extend(by_family(limited, "opening_to"));
    let mut unsettled = vec![vec![BareAck, SynUnanswered, Jump("challenge".into())]];
    if !limited.is_empty() {
        unsettled.push(vec![SynAck, goto("agreeing")]);
    }
    unsettled.extend(by_family(limited, "police_from"));
    let mut answers = vec![vec![Unassured, goto("unsettled")]];
    answers.extend(by_family(limited, "police_from"));
    let error = if limited.is_empty() { Return } else { goto("errors") };
    // ICMP errors that the gateway itself sends concern packets that were already counted.
    let mut errors = vec![vec![InNowhere, Return]];
    errors.extend(by_family(limited, "errors"));
    let mut known = vec![
        vec![NotTcp, error],
        vec![Towards(FlowDirection::Reply), goto("answers")],
        vec![State(CtState::New), goto("opening")],
    ];
    known.extend(by_family(limited, "police_to"));
    [
        SkeletonChain::new(
            "challenge",
            [vec![vec![Stmt::HasData, Return]], by_family(&Family::BOTH, "challenge")].concat(),
        ),
        SkeletonChain::new("errors", errors),
        SkeletonChain::new("agreeing", by_family(limited, "opening_from")),
        SkeletonChain::new("unsettled", unsettled),
        SkeletonChain::new("answers", answers),
        SkeletonChain::new("repeated", by_family(&Family::BOTH, "unknown")),
        SkeletonChain::new("opening", opening),
        SkeletonChain::new("known", known),
    ]
}

/// Returns the rules for first packets that may go directly to a protected backend.
fn direct(optional_sets: &OptionalSets) -> RuleList {
    let protected = |family: &Family| optional_sets.contains(&SetName::Protected(*family));
    let rule = |family| {
        vec![
            Stmt::CtState(CtState::NewOrUntracked),
            Stmt::Family(family),
            Stmt::Jump(format!("direct_{family}")),
        ]
    };
    Family::BOTH.into_iter().filter(protected).map(rule).collect()
}

/// Returns the first rules of both guards. Behind them continue only packets that are neither the first segment of a
/// handshake nor part of a flow of tcpgw; `direct` comes before the rule for first segments.
fn first_rules(mark: FlowMark, limited: &[Family], direct: RuleList) -> RuleList {
    let mut rules = Vec::new();
    if limited.is_empty() {
        // Nothing is counted then, and only first packets may be wrong.
        rules.push(vec![Stmt::StatusAssured, Stmt::Return]);
    }
    rules.push(vec![Stmt::Marked(mark, true), goto("known")]);
    rules.extend(direct);
    rules.extend([
        vec![Stmt::CtState(CtState::New), Stmt::Syn(true), Stmt::Return],
        vec![Stmt::NotTcp, Stmt::Return],
    ]);
    rules
}

fn guard(mark: FlowMark, limited: &[Family], optional_sets: &OptionalSets) -> RuleList {
    let mut rules = first_rules(mark, limited, direct(optional_sets));
    rules.extend([
        vec![Stmt::InLoopback(true), Stmt::Return],
        vec![Stmt::CtState(CtState::EstablishedOrRelated), Stmt::Return],
    ]);
    rules.extend(by_family(&Family::BOTH, "unknown"));
    rules
}

fn guard_output(mark: FlowMark, limited: &[Family]) -> RuleList {
    let mut rules = first_rules(mark, limited, Vec::new());
    let behind_flows_of_ours = rules.len() - 2;
    rules.insert(behind_flows_of_ours, vec![Stmt::Probe, goto("probe")]);
    rules.extend([
        vec![Stmt::OutNotLoopback, Stmt::Return],
        vec![Stmt::CtState(CtState::EstablishedOrRelated), Stmt::Return],
        vec![Stmt::DestLoopback(Family::V4), Stmt::Return],
        vec![Stmt::DestLoopback(Family::V6), Stmt::Return],
    ]);
    rules.extend(by_family(&Family::BOTH, "unknown"));
    rules
}

/// Returns the chain that makes conntrack forget the daemon's probes as soon as they have ended.
fn probe() -> SkeletonChain {
    let rule = |family| vec![Stmt::Family(family), Stmt::Timeouts(Timeouts::Probes(family))];
    SkeletonChain::new("probe", Family::BOTH.map(rule).to_vec())
}

fn balance() -> RuleList {
    let rule = |family| {
        vec![
            Stmt::Family(family),
            Stmt::Syn(true),
            Stmt::InLoopback(false),
            Stmt::LocalDest(true),
            Stmt::Goto(format!("find_{family}")),
        ]
    };
    Family::BOTH.map(rule).to_vec()
}

fn balance_output() -> RuleList {
    let mut rules = vec![
        vec![Stmt::NotTcp, Stmt::Return],
        vec![Stmt::OutNotLoopback, Stmt::Return],
        vec![Stmt::DestLoopback(Family::V4), Stmt::Return],
        vec![Stmt::DestLoopback(Family::V6), Stmt::Return],
        vec![Stmt::Syn(false), Stmt::Return],
    ];
    rules.extend(by_family(&Family::BOTH, "find"));
    rules
}

fn settle() -> RuleList {
    let mut rules = vec![
        vec![Stmt::NotTcp, Stmt::Return],
        vec![Stmt::InLoopback(true), Stmt::Return],
        vec![Stmt::CtState(CtState::EstablishedOrRelated), Stmt::Return],
    ];
    rules.extend(Scope::ALL.map(|scope| {
        vec![
            service_in(scope, SetName::Services(scope)),
            Stmt::Goto(format!("missed{scope}")),
        ]
    }));
    rules
}

/// Returns the rules of `police`. Its type is `nat`: it sees the first packet of each flow, whose backend `guard` could
/// not know; `guard` sees the others.
///
/// What the limits accept is counted as a connection. A flow with the mark that was not translated found no backend.
fn police(mark: FlowMark, limited: &[Family]) -> RuleList {
    let limit = |family: &Family| vec![Stmt::Family(*family), Stmt::Jump(format!("opening_to_{family}"))];
    let count = |family| {
        vec![
            Stmt::Family(family),
            Stmt::StatusDnat,
            Stmt::Goto(format!("connected_{family}")),
        ]
    };
    let mut rules = vec![vec![Stmt::Marked(mark, false), Stmt::Return]];
    rules.extend(limited.iter().map(limit));
    rules.extend(Family::BOTH.map(count));
    rules
}
