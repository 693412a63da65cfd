//! Whether this kernel can do what the rules need, found out by asking: each feature is sent in a batch without an end,
//! which the kernel checks as it would any other, and then takes back (as for `nft --check`). It may load modules for
//! it, as it would for `apply`.
//!
//! Source: `nfnetlink_rcv_batch` in `net/netfilter/nfnetlink.c`.

use std::io::IoSlice;

use nix::errno::Errno;

use crate::netlink::socket::{Netlink, NetlinkError, restarting};
use crate::netlink::tlv::{Attrs, Family, Header, Messages, Nack, Reply, Writer};
use crate::nftables::nft::{self, msg, object, rule, set, table};
use crate::nftables::ownership::Ownership;
use crate::nftables::sets;
use crate::nftables::skeleton::{self, TABLE};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::cap::Cap;
use tcpgw_core::ruleset::name::{Family as Ip, ListenScope, Scope, SetName};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::skeleton::{Base, Chain, Hook};
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::stmt::{CtState, Pick, Stmt, service_in};
use tcpgw_core::ruleset::timeouts::{KernelTimeouts, Timeouts};

/// The table that never comes to be.
const PROBE: &str = "tcpgw-doctor";
/// A feature that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature {
    /// What it is, in words.
    pub what: &'static str,
    /// How the kernel must have been configured.
    pub config: &'static str,
    /// The module that has it, where that is not part of `nf_tables`.
    pub module: Option<&'static str>,
    /// The release that brought it, where that is later than 5.14, which tcpgw needs in any case.
    pub since: Option<&'static str>,
    /// What is done without it; `None` where nothing can be.
    pub fallback: Option<&'static str>,
}

/// A feature that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Which.
    pub feature: Feature,
    /// The kernel's answer.
    pub answer: String,
}

/// Asks for everything that the rules need.
///
/// # Errors
/// Those of [`Netlink::send`] and [`Netlink::try_recv`]; [`NetlinkError::Refused`] without `CAP_NET_ADMIN`.
pub fn lacks(socket: &mut Netlink, mark: FlowMark) -> Result<Vec<Lack>, NetlinkError> {
    let mut lacks = Vec::new();
    for (feature, needs) in features(mark) {
        if let Some(nack) = restarting(|| ask(socket, &needs))? {
            if matches!(nack.error(), Errno::EPERM | Errno::EACCES) {
                let what = "ask the kernel for its features";
                return Err(NetlinkError::Refused { what, nack });
            }
            lacks.push(Lack {
                feature,
                answer: nack.to_string(),
            });
        }
    }
    Ok(lacks)
}

/// Whether a table can outlive its owner, and be taken over by another one (Linux 6.9).
///
/// # Errors
/// Those of [`Netlink::send`] and [`Netlink::try_recv`]; [`NetlinkError::Refused`] without `CAP_NET_ADMIN` or memory.
pub fn persists(socket: &mut Netlink) -> Result<bool, NetlinkError> {
    let flags = Ownership::Persist.flags();
    let needs = Needs {
        flags,
        ..Needs::default()
    };
    match restarting(|| ask(socket, &needs))? {
        None => Ok(true),
        Some(nack) if !matches!(nack.error(), Errno::EPERM | Errno::EACCES | Errno::ENOMEM) => Ok(false),
        Some(nack) => Err(NetlinkError::Refused {
            what: "ask the kernel for tables that persist",
            nack,
        }),
    }
}

/// What a feature is asked for with.
#[derive(Debug, Default)]
struct Needs {
    flags: u32,
    objects: bool,
    sets: Vec<SetName>,
    /// Whether the chain is of type `nat`, and what it asks and does.
    chain: Option<(bool, Hook, Vec<Stmt>)>,
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

fn features(mark: FlowMark) -> Vec<(Feature, Needs)> {
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
                vec![Stmt::Turns(v4)],
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

/// A packet adds its key to the set.
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
                "picking backends in turn and at random",
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

/// Sends it all, without an end; the first refusal.
fn ask(socket: &mut Netlink, needs: &Needs) -> Result<Option<Nack>, NetlinkError> {
    let mut batch = Batch {
        writer: Writer::new(),
        seq: socket.next_seq(),
    };
    batch.begin();
    batch.message(msg::NEW_TABLE, |writer| {
        writer.str(table::NAME, PROBE);
        if needs.flags != 0 {
            writer.be32(table::FLAGS, needs.flags);
        }
    });
    for (id, name) in (1..).zip(&needs.sets) {
        let mut body = Writer::new();
        sets::write_set(&mut body, *name, Room::default(), id);
        let body = body.finish()?;
        batch.message(msg::NEW_SET, |writer| elsewhere(writer, &body, set::TABLE));
    }
    if needs.objects {
        for timeouts in Timeouts::FIXED {
            let mut body = Writer::new();
            sets::write_timeouts(&mut body, timeouts, &KernelTimeouts::default());
            let body = body.finish()?;
            batch.message(msg::NEW_OBJ, |writer| elsewhere(writer, &body, object::TABLE));
        }
    }
    if let Some((nat, hook, stmts)) = &needs.chain {
        batch.chain(*nat, *hook, stmts);
    }
    let last = batch.seq;
    let bytes = batch.writer.finish()?;
    socket.send("ask the kernel for its features", &[IoSlice::new(&bytes)])?;
    socket.skip_seq(last);
    let mut refused = None;
    // The answers are there already: the kernel works in the caller's context.
    while let Some(messages) = socket.try_recv()? {
        for message in messages {
            if let Reply::Nack(nack) = message?.reply()? {
                refused.get_or_insert(nack);
            }
        }
    }
    Ok(refused)
}

struct Batch {
    writer: Writer,
    seq: u32,
}

impl Batch {
    fn begin(&mut self) {
        let header = Header {
            kind: nft::BATCH_BEGIN,
            flags: nft::F_REQUEST,
            seq: self.seq,
        };
        let family = Family {
            res_id: nft::SUBSYSTEM,
            ..Family::default()
        };
        self.writer.message(header, family, |_| {});
    }

    fn message(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) {
        self.seq = self.seq.wrapping_add(1);
        let header = Header {
            kind: nft::message(kind),
            flags: nft::F_REQUEST | nft::F_CREATE,
            seq: self.seq,
        };
        let family = Family {
            family: nft::INET,
            ..Family::default()
        };
        self.writer.message(header, family, fill);
    }

    fn chain(&mut self, nat: bool, hook: Hook, stmts: &[Stmt]) {
        let priority = if hook == Hook::Prerouting { -100 } else { 100 };
        let chain = Chain {
            name: "probe".into(),
            base: Some(Base {
                hook,
                nat,
                priority,
                priority_name: "",
            }),
            rules: Vec::new(),
        };
        self.foreign(msg::NEW_CHAIN, &skeleton::new_chain(&chain, 0), nft::chain::TABLE);
        if !stmts.is_empty() {
            self.foreign(msg::NEW_RULE, &skeleton::new_rule(&chain.name, stmts, 0), rule::TABLE);
        }
    }

    fn foreign(&mut self, kind: u16, made: &[u8], table: u16) {
        let message = Messages::new(made).next().and_then(Result::ok);
        let body = message.and_then(|message| message.payload.get(4..)).unwrap_or_default();
        self.message(kind, |writer| elsewhere(writer, body, table));
    }
}

/// The same attributes, in the other table.
fn elsewhere(writer: &mut Writer, body: &[u8], table: u16) {
    for attr in Attrs::new(body).map_while(Result::ok) {
        if attr.kind == table && attr.payload.starts_with(TABLE.as_bytes()) {
            writer.str(table, PROBE);
        } else {
            writer.attr(attr.kind, attr.payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::nftables::expr;
    use tcpgw_core::ruleset::name::SpreadRule;
    use tcpgw_core::ruleset::skeleton;

    fn kinds<'a>(rules: impl Iterator<Item = &'a [Stmt]>) -> BTreeSet<&'static std::ffi::CStr> {
        rules.flat_map(expr::rule).map(|expr| expr.kind).collect()
    }

    /// What comes to the rules comes to the questions, too.
    #[test]
    fn everything_that_the_rules_do_is_asked_for() {
        let mark = FlowMark::default();
        let chains: Vec<_> = ListenScope::ALL
            .map(|listen_scope| {
                skeleton::spread(
                    listen_scope,
                    &[SpreadRule::client_hash(2), SpreadRule::random(2)].into(),
                    mark,
                )
            })
            .into_iter()
            .chain(skeleton::fixed(mark, &SetName::fixed().into_iter().collect()))
            .collect();
        let rules = chains.iter().flat_map(|chain| &chain.rules).map(Vec::as_slice);
        let asked = features(mark);
        let asked_stmts = asked
            .iter()
            .filter_map(|(_, needs)| Some(needs.chain.as_ref()?.2.as_slice()));
        let mut left: BTreeSet<_> = kinds(rules).difference(&kinds(asked_stmts)).copied().collect();
        // An object of timeouts is asked for as such.
        left.remove(c"objref");
        assert_eq!(left, BTreeSet::new());
        let payload = |name: &SetName| std::mem::discriminant(&SetSpec::of(*name).payload);
        let asked_sets: Vec<_> = asked.iter().flat_map(|(_, needs)| &needs.sets).map(payload).collect();
        for name in SetName::fixed() {
            assert!(asked_sets.contains(&payload(&name)), "{name}");
        }
        // A rule that fills or reads a set does so with the set's own key.
        for (feature, needs) in &asked {
            for stmt in needs.chain.iter().flat_map(|(_, _, stmts)| stmts) {
                if let Stmt::In(key, set) | Stmt::Count(key, set) = stmt {
                    assert_eq!(*key, SetSpec::of(*set).key, "{}", feature.what);
                    assert!(needs.sets.contains(set), "{}", feature.what);
                }
            }
        }
    }
}
