//! From a service's door to a backend, or not.

use super::{Chain, goto, spread_name};
use crate::model::FlowMark;
use crate::ruleset::name::{Family, Reach, Scope, SetName};
use crate::ruleset::spec::attempt_key;
use crate::ruleset::stmt::{CtState, Pick, Stmt, count_service, service_in, visitor};
use crate::ruleset::timeouts::Timeouts;

pub(super) fn refusals(scope: Scope) -> Vec<Chain> {
    use Stmt::{Drop, Reset};
    let count = |set| vec![count_service(scope, set)];
    vec![
        Chain::new(
            format!("refuse{scope}"),
            vec![count(SetName::Refused(scope)), vec![Drop]],
        ),
        Chain::new(
            format!("over_client{scope}"),
            vec![count(SetName::OverClient(scope)), vec![Drop]],
        ),
        Chain::new(
            format!("over_flows{scope}"),
            vec![count(SetName::OverFlows(scope)), vec![Drop]],
        ),
        Chain::new(
            format!("drop_invalid{scope}"),
            vec![count(SetName::Invalid(scope)), vec![Drop]],
        ),
        Chain::new(
            format!("missed{scope}"),
            vec![count(SetName::NoBackend(scope)), vec![Drop]],
        ),
        Chain::new(
            format!("late{scope}"),
            vec![
                count(SetName::Stale(scope)),
                vec![service_in(scope, SetName::RetireReset(scope)), Reset],
                vec![Drop],
            ],
        ),
    ]
}

pub(super) fn arriving(reach: Reach) -> Vec<Chain> {
    let scope = reach.scope();
    let late = Stmt::Goto(format!("late{scope}"));
    let refuse = Stmt::Goto(format!("refuse{scope}"));
    vec![
        Chain::new(
            format!("access{reach}"),
            vec![
                vec![Stmt::In(visitor(reach), SetName::Denied(reach)), refuse.clone()],
                vec![Stmt::In(visitor(reach), SetName::Allowed(reach)), Stmt::Return],
                vec![service_in(scope, SetName::AllowOnly(scope)), refuse],
            ],
        ),
        Chain::new(
            format!("arrive{reach}"),
            vec![
                vec![Stmt::Syn(false), late.clone()],
                vec![Stmt::CtState(CtState::Untracked), late],
                vec![
                    service_in(scope, SetName::Restricted(scope)),
                    Stmt::Goto(format!("access{reach}")),
                ],
            ],
        ),
    ]
}

pub(super) fn choosing(reach: Reach, mark: FlowMark) -> Vec<Chain> {
    let scope = reach.scope();
    let empty = vec![
        vec![count_service(scope, SetName::NoBackend(scope))],
        vec![service_in(scope, SetName::EmptyReset(reach)), Stmt::Reset],
        vec![Stmt::Drop],
    ];
    let pick = Chain::new(
        format!("pick{reach}"),
        vec![
            vec![service_in(scope, SetName::Hashed(reach)), Stmt::Dnat(reach, Pick::Hash)],
            vec![Stmt::Turns(reach)],
            vec![goto(&format!("empty{reach}"))],
        ],
    );
    let choose = Chain::new(
        format!("choose{reach}"),
        vec![
            vec![Stmt::MarkFlow(mark)],
            vec![Stmt::Timeouts(Timeouts::Flows(reach.family()))],
            vec![goto(&format!("pick{reach}"))],
        ],
    );
    vec![Chain::new(format!("empty{reach}"), empty), pick, choose]
}

/// Most services are `client-hash`, so their sets are asked first, and one lookup says both that it is a service and how wide.
pub(super) fn find(family: Family) -> Chain {
    let reaches = [Reach::Any(family), Reach::At(family)];
    let restricted = |reach: Reach| {
        vec![
            service_in(reach.scope(), SetName::Restricted(reach.scope())),
            Stmt::Jump(format!("access{reach}")),
        ]
    };
    let mut rules = reaches.map(restricted).to_vec();
    rules.push(again(family));
    for reach in reaches {
        rules.push(vec![Stmt::Jump(spread_name(reach))]);
        rules.push(vec![
            service_in(reach.scope(), SetName::Services(reach.scope())),
            Stmt::Goto(format!("choose{reach}")),
        ]);
    }
    Chain::new(format!("find_{family}"), rules)
}

/// A SYN that comes again after it was answered with a bare acknowledgement.
fn again(family: Family) -> Vec<Stmt> {
    let challenged = SetName::Challenged(family);
    vec![
        Stmt::In(attempt_key(family), challenged),
        Stmt::StripTimestamp,
        Stmt::Forget(attempt_key(family), challenged),
    ]
}
