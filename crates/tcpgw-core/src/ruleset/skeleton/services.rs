//! Chains from a service's port and addresses to a backend or a refusal.

use super::chain::{SkeletonChain, goto, spread_name};
use crate::model::FlowMark;
use crate::ruleset::name::{Family, ListenScope, Scope, SetName};
use crate::ruleset::spec::attempt_key;
use crate::ruleset::stmt::{CtState, Pick, Stmt, count_service, service_in, visitor};
use crate::ruleset::timeouts::Timeouts;

pub(super) fn refusals(scope: Scope) -> Vec<SkeletonChain> {
    use Stmt::{Drop, Reset};
    let count = |set| vec![count_service(scope, set)];
    vec![
        SkeletonChain::new(
            format!("refuse{scope}"),
            vec![count(SetName::Refused(scope)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("over_client{scope}"),
            vec![count(SetName::OverClient(scope)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("over_flows{scope}"),
            vec![count(SetName::OverFlows(scope)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("drop_invalid{scope}"),
            vec![count(SetName::Invalid(scope)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("missed{scope}"),
            vec![count(SetName::NoBackend(scope)), vec![Drop]],
        ),
        SkeletonChain::new(
            format!("late{scope}"),
            vec![
                count(SetName::Stale(scope)),
                vec![service_in(scope, SetName::RetireReset(scope)), Reset],
                vec![Drop],
            ],
        ),
    ]
}

pub(super) fn arriving(listen_scope: ListenScope) -> Vec<SkeletonChain> {
    let scope = listen_scope.scope();
    let late = Stmt::Goto(format!("late{scope}"));
    let refuse = Stmt::Goto(format!("refuse{scope}"));
    vec![
        SkeletonChain::new(
            format!("access{listen_scope}"),
            vec![
                vec![
                    Stmt::In(visitor(listen_scope), SetName::Denied(listen_scope)),
                    refuse.clone(),
                ],
                vec![
                    Stmt::In(visitor(listen_scope), SetName::Allowed(listen_scope)),
                    Stmt::Return,
                ],
                vec![service_in(scope, SetName::AllowOnly(scope)), refuse],
            ],
        ),
        SkeletonChain::new(
            format!("arrive{listen_scope}"),
            vec![
                vec![Stmt::Syn(false), late.clone()],
                vec![Stmt::CtState(CtState::Untracked), late],
                vec![
                    service_in(scope, SetName::Restricted(scope)),
                    Stmt::Goto(format!("access{listen_scope}")),
                ],
            ],
        ),
    ]
}

pub(super) fn choosing(listen_scope: ListenScope, mark: FlowMark) -> Vec<SkeletonChain> {
    let scope = listen_scope.scope();
    let empty = vec![
        vec![count_service(scope, SetName::NoBackend(scope))],
        vec![service_in(scope, SetName::EmptyReset(listen_scope)), Stmt::Reset],
        vec![Stmt::Drop],
    ];
    let pick_name = format!("pick{listen_scope}");
    let pick = SkeletonChain::new(
        pick_name.clone(),
        vec![
            vec![
                service_in(scope, SetName::Hashed(listen_scope)),
                Stmt::Dnat(listen_scope, Pick::Hash),
            ],
            vec![Stmt::RoundRobin(listen_scope)],
        ],
    );
    // A transaction that gives a slot another backend deletes an element and adds one, and a packet that looks for the
    // slot just then may find neither. Looked for again, it is there.
    let choose = SkeletonChain::new(
        format!("choose{listen_scope}"),
        vec![
            vec![Stmt::MarkFlow(mark)],
            vec![Stmt::Timeouts(Timeouts::Flows(listen_scope.family()))],
            vec![Stmt::Jump(pick_name.clone())],
            vec![Stmt::Jump(spread_name(listen_scope))],
            vec![Stmt::Jump(pick_name)],
            vec![goto(&format!("empty{listen_scope}"))],
        ],
    );
    vec![SkeletonChain::new(format!("empty{listen_scope}"), empty), pick, choose]
}

/// Returns the chain that finds the service of a SYN. Most services are `client-hash`, so their sets are looked up
/// first, and one lookup finds both the service and its number of slots.
pub(super) fn find(family: Family) -> SkeletonChain {
    let reaches = [ListenScope::Any(family), ListenScope::At(family)];
    let restricted = |listen_scope: ListenScope| {
        vec![
            service_in(listen_scope.scope(), SetName::Restricted(listen_scope.scope())),
            Stmt::Jump(format!("access{listen_scope}")),
        ]
    };
    let mut rules = reaches.map(restricted).to_vec();
    rules.push(again(family));
    for listen_scope in reaches {
        rules.push(vec![Stmt::Jump(spread_name(listen_scope))]);
        rules.push(vec![
            service_in(listen_scope.scope(), SetName::Services(listen_scope.scope())),
            Stmt::Goto(format!("choose{listen_scope}")),
        ]);
    }
    SkeletonChain::new(format!("find_{family}"), rules)
}

/// Returns the rule for a SYN that is repeated after it was answered with a bare acknowledgement.
fn again(family: Family) -> Vec<Stmt> {
    let challenged = SetName::Challenged(family);
    vec![
        Stmt::In(attempt_key(family), challenged),
        Stmt::StripTimestamp,
        Stmt::Forget(attempt_key(family), challenged),
    ]
}
