//! Chains for packets to backends and from them.

use super::chain::SkeletonChain;
use crate::ruleset::name::{Family, ListenScope, Scope, SetName};
use crate::ruleset::spec::Field;
use crate::ruleset::stmt::{
    CtState, FlowDirection, Stmt, answering, attempt, connection, public, receiver, sender, service_in,
};

/// Returns the chains that apply limits. Packets to a backend are matched by what conntrack knows of their flow: in
/// `guard` they still have the service's address. Segments of a handshake need space in two buckets, their own and that
/// of all segments, so that the limit holds for all together.
pub(super) fn policing(family: Family) -> Vec<SkeletonChain> {
    let (to, from) = (format!("over_to_{family}"), format!("over_from_{family}"));
    let asking = |tcp: &[Stmt], key: &[Field], set, then| [tcp, &[Stmt::In(key.to_vec(), set), then]].concat();
    let police = |tcp: &[Stmt], key: &[Field], limit, over: &str| {
        vec![
            asking(tcp, key, limit, Stmt::Return),
            asking(tcp, key, SetName::LimitBoth(family), Stmt::Return),
            asking(tcp, key, SetName::Limited(family), Stmt::Goto(over.into())),
        ]
    };
    let dropping = |name: &str, count: Vec<Stmt>| SkeletonChain::new(name, vec![count, vec![Stmt::Drop]]);
    let opening = |tcp: &[Stmt], key: &[Field], share, police: String, over: &str| {
        vec![
            asking(tcp, key, share, Stmt::Goto(police.clone())),
            asking(tcp, key, SetName::HandshakesBoth(family), Stmt::Goto(police)),
            asking(tcp, key, SetName::Limited(family), Stmt::Goto(over.into())),
        ]
    };
    let (backend, tcp) = (answering(family), [Stmt::Tcp]);
    let count_to = vec![Stmt::Tcp, Stmt::Count(backend.clone(), SetName::OverTo(family))];
    let count_from = vec![Stmt::Count(sender(family), SetName::OverFrom(family))];
    vec![
        dropping(&to, count_to),
        dropping(&from, count_from),
        SkeletonChain::new(
            format!("police_to_{family}"),
            police(&tcp, &backend, SetName::LimitTo(family), &to),
        ),
        SkeletonChain::new(
            format!("police_from_{family}"),
            police(&[], &sender(family), SetName::LimitFrom(family), &from),
        ),
        SkeletonChain::new(
            format!("opening_to_{family}"),
            opening(
                &tcp,
                &backend,
                SetName::HandshakesTo(family),
                format!("police_to_{family}"),
                &to,
            ),
        ),
        SkeletonChain::new(
            format!("opening_from_{family}"),
            opening(
                &[],
                &sender(family),
                SetName::HandshakesFrom(family),
                format!("police_from_{family}"),
                &from,
            ),
        ),
    ]
}

/// Returns the chains that count a connection by its service and backend. They see its first packet only. A service
/// that listens on every address is counted by its port: clients can choose among many local addresses.
pub(super) fn connected(family: Family) -> [SkeletonChain; 2] {
    let at = format!("connected_at_{family}");
    let count = |listen_scope: ListenScope| {
        let set = SetName::Connections(listen_scope);
        vec![Stmt::Tcp, Stmt::Count(connection(listen_scope), set)]
    };
    let has_addresses = vec![
        Stmt::Tcp,
        Stmt::In(public(family), SetName::Services(Scope::At(family))),
        Stmt::Goto(at.clone()),
    ];
    [
        SkeletonChain::new(at, vec![count(ListenScope::At(family))]),
        SkeletonChain::new(
            format!("connected_{family}"),
            vec![has_addresses, count(ListenScope::Any(family))],
        ),
    ]
}

/// Returns the chains for ICMP errors of flows to limited backends: the backend's buckets apply, and a small reserve,
/// so that path MTU discovery works while these are empty.
pub(super) fn errors(family: Family) -> Vec<SkeletonChain> {
    use Stmt::{Count, Direction as Towards, Drop, FlowOfTcp, Goto, In, Return};
    let backend = || answering(family);
    let within = |set, then| vec![FlowOfTcp(family), In(backend(), set), then];
    let over = |way: &str, counter| {
        SkeletonChain::new(
            format!("errors_over_{way}_{family}"),
            vec![
                vec![FlowOfTcp(family), Count(backend(), SetName::Reserve(family)), Return],
                vec![FlowOfTcp(family), Count(backend(), counter)],
                vec![Drop],
            ],
        )
    };
    let police = |way: &str, limit| {
        vec![
            within(limit, Return),
            within(SetName::LimitBoth(family), Return),
            within(SetName::Limited(family), Goto(format!("errors_over_{way}_{family}"))),
        ]
    };
    let from = format!("errors_from_{family}");
    let mut to = vec![vec![Towards(FlowDirection::Reply), Goto(from.clone())]];
    to.extend(police("to", SetName::LimitTo(family)));
    vec![
        over("to", SetName::OverTo(family)),
        over("from", SetName::OverFrom(family)),
        SkeletonChain::new(from, police("from", SetName::LimitFrom(family))),
        SkeletonChain::new(format!("errors_{family}"), to),
    ]
}

pub(super) fn unknown(family: Family) -> Vec<SkeletonChain> {
    use Stmt::{CtState as State, Drop, Goto, In, LocalDest, Reset, Return, Syn};
    let at = Scope::At(family);
    let from = |set| In(sender(family), set);
    let count = |set| vec![Stmt::Count(sender(family), set)];
    let invalid_from = Goto(format!("drop_invalid_from_{family}"));
    let service = |scope, chain: &str, suffix: String| {
        vec![
            service_in(scope, SetName::Services(scope)),
            Goto(format!("{chain}{suffix}")),
        ]
    };
    vec![
        SkeletonChain::new(
            format!("drop_invalid_from_{family}"),
            vec![count(SetName::InvalidFrom(family)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("late_from_{family}"),
            vec![count(SetName::StaleFrom(family)), vec![Reset]],
        ),
        SkeletonChain::new(
            format!("invalid_{family}"),
            vec![
                vec![from(SetName::Preserved(family)), invalid_from.clone()],
                vec![from(SetName::Acquainted(family)), invalid_from.clone()],
                vec![LocalDest(false), Return],
                service(Scope::Any, "drop_invalid", Scope::Any.to_string()),
                service(at, "drop_invalid", at.to_string()),
                vec![from(SetName::Limited(family)), invalid_from.clone()],
                vec![from(SetName::Unlimited(family)), invalid_from],
            ],
        ),
        SkeletonChain::new(
            format!("passing_{family}"),
            [SetName::Preserved(family), SetName::Acquainted(family)]
                .map(|set| {
                    let late = Goto(format!("late_from_{family}"));
                    vec![State(CtState::New), Syn(false), from(set), late]
                })
                .to_vec(),
        ),
        SkeletonChain::new(
            format!("unknown_{family}"),
            vec![
                vec![State(CtState::Invalid), Goto(format!("invalid_{family}"))],
                vec![LocalDest(false), Goto(format!("passing_{family}"))],
                service(Scope::Any, "arrive", ListenScope::Any(family).to_string()),
                service(at, "arrive", ListenScope::At(family).to_string()),
            ],
        ),
    ]
}

/// Returns the chain that drops packets which reach a protected backend directly from outside. Packets through a
/// service have a local destination here.
pub(super) fn direct(family: Family) -> SkeletonChain {
    SkeletonChain::new(
        format!("direct_{family}"),
        vec![vec![
            Stmt::In(receiver(family), SetName::Protected(family)),
            Stmt::FromOutside,
            Stmt::Goto(format!("drop_direct_{family}")),
        ]],
    )
}

pub(super) fn drop_direct(family: Family) -> SkeletonChain {
    let count = Stmt::Count(receiver(family), SetName::Direct(family));
    SkeletonChain::new(format!("drop_direct_{family}"), vec![vec![count], vec![Stmt::Drop]])
}

/// Returns the chain for SYNs that are answered with a bare acknowledgement, because the backend still holds an earlier
/// connection. The client resets that one when it gets the answer, and repeats its SYN; if the answer comes again, the
/// gateway resets the backend's connection.
pub(super) fn challenge(family: Family) -> SkeletonChain {
    SkeletonChain::new(
        format!("challenge_{family}"),
        vec![
            vec![Stmt::Count(sender(family), SetName::Reused(family))],
            vec![
                Stmt::Tcp,
                Stmt::In(attempt(family), SetName::Challenged(family)),
                Stmt::Reset,
            ],
            vec![Stmt::Tcp, Stmt::Count(attempt(family), SetName::Challenged(family))],
        ],
    )
}
