//! The features that the rules need, and what each is asked for with.

#[cfg(test)]
mod tests;

use crate::nftables::ownership::Ownership;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::cap::Cap;
use tcpgw_core::ruleset::name::{Family as Ip, ListenScope, Scope, SetName};
use tcpgw_core::ruleset::skeleton::Hook;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::stmt::{CtState, Pick, Stmt, service_in};

/// A feature of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature {
    /// Description, such as "maps of verdicts".
    pub what: &'static str,
    /// Option of the kernel's configuration that it needs.
    pub config: &'static str,
    /// Module that has it; `None`: it is part of `nf_tables`.
    pub module: Option<&'static str>,
    /// First release that has it, if later than 5.14, which tcpgw needs in any case.
    pub since: Option<&'static str>,
    /// Behaviour of tcpgw without the feature; `None` if it cannot work.
    pub fallback: Option<&'static str>,
}

/// Objects that are sent to test for a feature.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) flags: u32,
    pub(super) objects: bool,
    pub(super) sets: Vec<SetName>,
    /// Chain: whether it is of type `nat`, its hook, and the statements of its one rule.
    pub(super) chain: Option<(bool, Hook, Vec<Stmt>)>,
}

fn with_rule(nat: bool, hook: Hook, sets: Vec<SetName>, stmts: Vec<Stmt>) -> Needs {
    Needs {
        sets,
        chain: Some((nat, hook, stmts)),
        ..Needs::default()
    }
}

fn with_sets(sets: Vec<SetName>) -> Needs {
    Needs {
        sets,
        ..Needs::default()
    }
}

const fn feature(what: &'static str, config: &'static str, module: Option<&'static str>) -> Feature {
    Feature {
        what,
        config,
        module,
        since: None,
        fallback: None,
    }
}

/// Returns every feature that the rules need, and what is sent to ask for it.
pub(super) fn features(mark: FlowMark) -> Vec<(Feature, Needs)> {
    let mut all = of_sets();
    all.extend(of_rules(mark));
    let persist = Feature {
        since: Some("6.9"),
        fallback: Some("the table has no owner, so that `nft flush ruleset` of another program removes it"),
        ..feature(
            "tables that outlive their owner (flag persist)",
            "CONFIG_NF_TABLES",
            None,
        )
    };
    let plain = Needs::default();
    let flags = Ownership::Persist.flags();
    all.insert(
        0,
        (
            feature("tables of both families (inet)", "CONFIG_NF_TABLES_INET", None),
            plain,
        ),
    );
    all.push((
        persist,
        Needs {
            flags,
            ..Needs::default()
        },
    ));
    all
}

fn of_sets() -> Vec<(Feature, Needs)> {
    let v4 = ListenScope::Any(Ip::V4);
    let intervals = Feature {
        module: None,
        ..feature("sets of concatenated intervals", "CONFIG_NF_TABLES", None)
    };
    vec![
        (
            feature("sets and maps of concatenations", "CONFIG_NF_TABLES", None),
            with_sets(vec![SetName::Services(Scope::Any), SetName::Slots(v4)]),
        ),
        (intervals, with_sets(vec![SetName::Denied(v4)])),
        (
            feature("sets that packets fill, with a counter", "CONFIG_NF_TABLES", None),
            with_rule(
                false,
                Hook::Postrouting,
                vec![SetName::OverTo(Ip::V4)],
                vec![filled(SetName::OverTo(Ip::V4))],
            ),
        ),
        (
            feature("sets that packets fill, and that forget", "CONFIG_NF_TABLES", None),
            with_rule(
                false,
                Hook::Postrouting,
                vec![SetName::Challenged(Ip::V4)],
                vec![filled(SetName::Challenged(Ip::V4))],
            ),
        ),
        (
            feature(
                "sets that packets fill, with a limit",
                "CONFIG_NFT_LIMIT",
                Some("nft_limit"),
            ),
            with_rule(
                false,
                Hook::Postrouting,
                vec![SetName::Reserve(Ip::V4)],
                vec![filled(SetName::Reserve(Ip::V4))],
            ),
        ),
        (
            Feature {
                fallback: Some("services with `max_flows` or `client.flows` are refused"),
                ..feature("sets that count flows", "CONFIG_NFT_CONNLIMIT", Some("nft_connlimit"))
            },
            with_sets(vec![SetName::Capped(v4, Cap::ClientFlows(1))]),
        ),
        (
            feature("maps of verdicts", "CONFIG_NF_TABLES", None),
            with_rule(
                false,
                Hook::Prerouting,
                vec![SetName::RoundRobin(v4)],
                vec![Stmt::RoundRobin(v4)],
            ),
        ),
        (
            feature(
                "two limits in one element of a set",
                "CONFIG_NFT_LIMIT",
                Some("nft_limit"),
            ),
            with_sets(vec![SetName::LimitTo(Ip::V4)]),
        ),
        (
            feature(
                "objects with timeouts of conntrack",
                "CONFIG_NF_CONNTRACK_TIMEOUT",
                Some("nft_ct"),
            ),
            Needs {
                objects: true,
                ..Needs::default()
            },
        ),
    ]
}

/// Returns a statement by which a packet adds its key to the set.
fn filled(set: SetName) -> Stmt {
    Stmt::Count(SetSpec::of(set).key, set)
}

fn of_rules(mark: FlowMark) -> Vec<(Feature, Needs)> {
    let v4 = ListenScope::Any(Ip::V4);
    let dnat = |pick| {
        let stmts = vec![
            service_in(Scope::Any, SetName::Services(Scope::Any)),
            Stmt::Dnat(v4, pick),
        ];
        let sets = vec![SetName::Services(Scope::Any), SetName::Slots(v4)];
        with_rule(true, Hook::Prerouting, sets, stmts)
    };
    let filter = |stmts| with_rule(false, Hook::Prerouting, Vec::new(), stmts);
    vec![
        (
            feature(
                "chains that translate addresses",
                "CONFIG_NF_NAT",
                Some("nft_chain_nat"),
            ),
            with_rule(true, Hook::Prerouting, Vec::new(), Vec::new()),
        ),
        (
            feature(
                "picking backends by round robin and at random",
                "CONFIG_NFT_NUMGEN",
                Some("nft_numgen"),
            ),
            dnat(Pick::RoundRobin(2)),
        ),
        (
            feature("picking backends by a hash", "CONFIG_NFT_HASH", Some("nft_hash")),
            dnat(Pick::Hash),
        ),
        (
            feature(
                "asking whether an address is local",
                "CONFIG_NFT_FIB_INET",
                Some("nft_fib_inet"),
            ),
            filter(vec![Stmt::LocalDest(false), Stmt::Return]),
        ),
        (
            Feature {
                since: Some("5.18"),
                ..feature("taking an option out of a TCP header", "CONFIG_NF_TABLES", None)
            },
            filter(vec![Stmt::StripTimestamp]),
        ),
        (
            Feature {
                since: Some("5.16"),
                ..feature("looking behind TCP headers", "CONFIG_NF_TABLES", None)
            },
            filter(vec![Stmt::HasData, Stmt::Return]),
        ),
        (
            feature("asking conntrack", "CONFIG_NFT_CT", Some("nft_ct")),
            filter(vec![Stmt::CtState(CtState::New), Stmt::SynUnanswered, Stmt::Return]),
        ),
        (
            feature("marks of flows", "CONFIG_NF_CONNTRACK_MARK", None),
            filter(vec![Stmt::MarkFlow(mark)]),
        ),
        (
            feature("choosing source addresses", "CONFIG_NFT_NAT", Some("nft_nat")),
            with_rule(
                true,
                Hook::Postrouting,
                vec![SetName::Sources(Ip::V4)],
                vec![Stmt::Snat(Ip::V4)],
            ),
        ),
        (
            feature("masquerading", "CONFIG_NFT_MASQ", Some("nft_masq")),
            with_rule(true, Hook::Postrouting, Vec::new(), vec![Stmt::Masquerade]),
        ),
        (
            feature(
                "TCP resets before routing",
                "CONFIG_NFT_REJECT_INET",
                Some("nft_reject_inet"),
            ),
            filter(vec![Stmt::Reset]),
        ),
    ]
}
