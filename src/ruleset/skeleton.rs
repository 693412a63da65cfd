//! The chains and rules. They are the same whatever the services are: services, backends and limits are elements of
//! sets. Two things follow the elements: `spread` chains have a rule for each number of slots in use, and each
//! round-robin service has a chain of its own that counts its turns.
//!
//! `rules/README.md` draws the packet's way through them.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::name::{Family, Reach, Scope, SetName, TurnChain};
use super::room::Room;
use super::spec::{SetSpec, attempt_key};
use super::stmt::{CtState, Direction, Pick, Stmt, attempt, count_service, receiver, sender, service_in, visitor};
use crate::model::FlowMark;

/// Written into the table's comment. Raise it with every change of the rules or of a set's shape.
pub const VERSION: u32 = 2;

/// The table's comment: what the rules are, so that a reader of the kernel knows before it compares them.
pub fn comment(mark: FlowMark, room: Room) -> String {
    format!("{}, flow mark {mark}, room {room}", name())
}

/// The flow mark that a comment tells.
pub fn mark_of(comment: &str) -> Option<FlowMark> {
    part(comment, "flow mark ")
}

/// The room that a comment tells.
pub fn room_of(comment: &str) -> Option<Room> {
    part(comment, "room ")
}

fn part<T: FromStr>(comment: &str, name: &str) -> Option<T> {
    comment
        .split(", ")
        .find_map(|part| part.strip_prefix(name))?
        .parse()
        .ok()
}

/// What the comments of all tables with these rules begin with.
pub fn name() -> String {
    format!("tcpgw skeleton {VERSION}")
}

/// Where a base chain sees packets (include/uapi/linux/netfilter.h, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// For the gateway itself.
    Input,
    /// From the gateway itself.
    Output,
    /// Before it leaves.
    Postrouting,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Where.
    pub hook: Hook,
    /// Whether it is of type `nat`, which sees only the first packet of a flow; else `filter`.
    pub nat: bool,
    /// When, among the others there.
    pub priority: i32,
    /// How nft writes that.
    pub priority_name: &'static str,
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where it is hooked, if it is.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Vec<Stmt>>,
}

impl Chain {
    fn new(name: impl Into<String>, rules: Vec<Vec<Stmt>>) -> Self {
        Self {
            name: name.into(),
            base: None,
            rules,
        }
    }

    fn base(name: &str, hook: Hook, nat: bool, priority: (i32, &'static str), rules: Vec<Vec<Stmt>>) -> Self {
        let base = Base {
            hook,
            nat,
            priority: priority.0,
            priority_name: priority.1,
        };
        Self {
            name: name.into(),
            base: Some(base),
            rules,
        }
    }
}

const MANGLE: (i32, &str) = (-150, "mangle");
const DSTNAT: (i32, &str) = (-100, "dstnat");
// nft has no name for this priority in the output hook.
const DSTNAT_OUTPUT: (i32, &str) = (-100, "-100");
const FILTER: (i32, &str) = (0, "filter");
const SRCNAT: (i32, &str) = (100, "srcnat");

fn goto(chain: &str) -> Stmt {
    Stmt::Goto(chain.into())
}

/// Every chain that does not depend on the services, each after those that it goes to.
pub fn fixed(mark: FlowMark) -> Vec<Chain> {
    let mut chains = Vec::new();
    for scope in Scope::ALL {
        chains.extend(refusals(scope));
    }
    for reach in Reach::ALL {
        chains.extend(arriving(reach));
        chains.extend(choosing(reach, mark));
    }
    for family in Family::BOTH {
        chains.extend(policing(family));
        chains.extend(unknown(family));
        chains.push(challenge(family));
        chains.push(preserve(family));
        chains.push(find(family));
    }
    chains.extend(entries(mark));
    chains
}

fn per_family(rules: &mut Vec<Vec<Stmt>>, chain: &str) {
    for family in Family::BOTH {
        rules.push(vec![Stmt::Family(family), Stmt::Goto(format!("{chain}_{family}"))]);
    }
}

fn entries(mark: FlowMark) -> Vec<Chain> {
    use Stmt::{
        CtState as State, DestLoopback, Direction as Towards, InLoopback, LocalDest, Marked, Masquerade, NotBareAck,
        NotTcp, OutNotLoopback, Return, StatusAssured, StatusDnat,
    };
    let known = State(CtState::EstablishedOrRelated);

    let mut known_flow = vec![
        vec![Marked(mark, false), Return],
        vec![Towards(Direction::Original), Return],
        vec![StatusAssured, goto("answers")],
        vec![NotBareAck, goto("answers")],
    ];
    per_family(&mut known_flow, "challenge");
    let mut answers = Vec::new();
    per_family(&mut answers, "police_from");

    let mut guard = vec![
        vec![NotTcp, Return],
        vec![InLoopback, Return],
        vec![known.clone(), goto("known")],
    ];
    per_family(&mut guard, "unknown");

    let local_client = [
        vec![NotTcp, Return],
        vec![OutNotLoopback, Return],
        vec![DestLoopback(Family::V4), Return],
        vec![DestLoopback(Family::V6), Return],
    ];
    let mut guard_output = local_client.to_vec();
    guard_output.insert(2, vec![known.clone(), Return]);
    per_family(&mut guard_output, "unknown");

    let mut balance = vec![
        vec![NotTcp, Return],
        vec![InLoopback, Return],
        vec![LocalDest(false), Return],
    ];
    per_family(&mut balance, "find");

    let mut balance_output = local_client.to_vec();
    per_family(&mut balance_output, "find");

    let mut settle = vec![vec![NotTcp, Return], vec![InLoopback, Return], vec![known, Return]];
    for scope in Scope::ALL {
        settle.push(vec![
            service_in(scope, SetName::Services(scope)),
            Stmt::Goto(format!("missed{scope}")),
        ]);
    }

    let mut police = vec![
        vec![NotTcp, Return],
        vec![Marked(mark, false), Return],
        vec![Towards(Direction::Reply), Return],
    ];
    per_family(&mut police, "police_to");

    let mut source = vec![vec![Marked(mark, false), Return]];
    for family in Family::BOTH {
        source.push(vec![
            Stmt::In(receiver(family), SetName::Preserved(family)),
            Stmt::Goto(format!("preserve_{family}")),
        ]);
    }
    source.extend(Family::BOTH.map(|family| vec![Stmt::Snat(family)]));
    source.push(vec![StatusDnat, Masquerade]);

    vec![
        Chain::new("answers", answers),
        Chain::new("known", known_flow),
        Chain::base("guard", Hook::Prerouting, false, MANGLE, guard),
        Chain::base("guard_output", Hook::Output, false, MANGLE, guard_output),
        Chain::base("balance", Hook::Prerouting, true, DSTNAT, balance),
        Chain::base("balance_output", Hook::Output, true, DSTNAT_OUTPUT, balance_output),
        Chain::base("settle", Hook::Input, false, FILTER, settle),
        Chain::base("police", Hook::Postrouting, false, MANGLE, police),
        Chain::base("source", Hook::Postrouting, true, SRCNAT, source),
    ]
}

fn refusals(scope: Scope) -> Vec<Chain> {
    use Stmt::{Drop, Reset};
    let count = |set| vec![count_service(scope, set)];
    vec![
        Chain::new(
            format!("refuse{scope}"),
            vec![count(SetName::Refused(scope)), vec![Drop]],
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

fn arriving(reach: Reach) -> Vec<Chain> {
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

fn choosing(reach: Reach, mark: FlowMark) -> Vec<Chain> {
    let scope = reach.scope();
    let empty = vec![
        vec![count_service(scope, SetName::NoBackend(scope))],
        vec![service_in(scope, SetName::EmptyReset(reach)), Stmt::Reset],
        vec![Stmt::Drop],
    ];
    let choose = Chain::new(
        format!("choose{reach}"),
        vec![
            vec![Stmt::MarkFlow(mark)],
            vec![Stmt::Timeouts(reach.family())],
            again(reach.family()),
            vec![Stmt::Jump(spread_name(reach))],
            vec![service_in(scope, SetName::Hashed(reach)), Stmt::Dnat(reach, Pick::Hash)],
            vec![Stmt::Turns(reach)],
            vec![Stmt::Goto(format!("empty{reach}"))],
        ],
    );
    vec![Chain::new(format!("empty{reach}"), empty), choose]
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

fn policing(family: Family) -> Vec<Chain> {
    let police = |key: Vec<_>, limit, over: String| {
        vec![
            vec![Stmt::In(key.clone(), limit), Stmt::Return],
            vec![Stmt::In(key.clone(), SetName::LimitBoth(family)), Stmt::Return],
            vec![Stmt::In(key, SetName::Limited(family)), Stmt::Goto(over)],
        ]
    };
    let dropping = |name: String, key, count| Chain::new(name, vec![vec![Stmt::Count(key, count)], vec![Stmt::Drop]]);
    let (to, from) = (format!("over_to_{family}"), format!("over_from_{family}"));
    vec![
        dropping(to.clone(), receiver(family), SetName::OverTo(family)),
        dropping(from.clone(), sender(family), SetName::OverFrom(family)),
        Chain::new(
            format!("police_to_{family}"),
            police(receiver(family), SetName::LimitTo(family), to),
        ),
        Chain::new(
            format!("police_from_{family}"),
            police(sender(family), SetName::LimitFrom(family), from),
        ),
    ]
}

fn unknown(family: Family) -> Vec<Chain> {
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
        Chain::new(
            format!("drop_invalid_from_{family}"),
            vec![count(SetName::InvalidFrom(family)), vec![Drop]],
        ),
        Chain::new(
            format!("late_from_{family}"),
            vec![count(SetName::StaleFrom(family)), vec![Reset]],
        ),
        Chain::new(
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
        Chain::new(
            format!("passing_{family}"),
            [SetName::Preserved(family), SetName::Acquainted(family)]
                .map(|set| {
                    let late = Goto(format!("late_from_{family}"));
                    vec![State(CtState::New), Syn(false), from(set), late]
                })
                .to_vec(),
        ),
        Chain::new(
            format!("unknown_{family}"),
            vec![
                vec![State(CtState::Invalid), Goto(format!("invalid_{family}"))],
                vec![LocalDest(false), Goto(format!("passing_{family}"))],
                service(Scope::Any, "arrive", Reach::Any(family).to_string()),
                service(at, "arrive", Reach::At(family).to_string()),
            ],
        ),
    ]
}

/// A SYN that is answered with a bare acknowledgement met a connection that the backend still holds. The client resets that
/// one when it gets the answer, and repeats its SYN; if that was in vain, the backend is told so from here.
fn challenge(family: Family) -> Chain {
    Chain::new(
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

fn preserve(family: Family) -> Chain {
    let same_link = Stmt::In(SetSpec::of(SetName::SameLink).key, SetName::SameLink);
    Chain::new(
        format!("preserve_{family}"),
        vec![
            vec![same_link, Stmt::Masquerade],
            vec![Stmt::InNowhere, Stmt::Masquerade],
            vec![Stmt::Count(receiver(family), SetName::Acquainted(family))],
        ],
    )
}

fn find(family: Family) -> Chain {
    let at = Scope::At(family);
    Chain::new(
        format!("find_{family}"),
        vec![
            vec![Stmt::Syn(false), Stmt::Return],
            vec![
                service_in(Scope::Any, SetName::Services(Scope::Any)),
                Stmt::Goto(format!("choose{}", Reach::Any(family))),
            ],
            vec![
                service_in(at, SetName::Services(at)),
                Stmt::Goto(format!("choose{}", Reach::At(family))),
            ],
        ],
    )
}

/// The chain that has a rule for each number of slots in use.
pub fn spread_name(reach: Reach) -> String {
    format!("spread{reach}")
}

/// That chain's rules.
pub fn spread(reach: Reach, widths: &BTreeSet<u16>) -> Chain {
    let rule = |width: &u16| {
        vec![
            service_in(reach.scope(), SetName::Width(reach, *width)),
            Stmt::Dnat(reach, Pick::Client(*width)),
        ]
    };
    Chain::new(spread_name(reach), widths.iter().map(rule).collect())
}

/// The chain of one round-robin service.
pub fn turn(turn: &TurnChain) -> Chain {
    Chain::new(
        turn.to_string(),
        vec![vec![Stmt::Dnat(turn.reach, Pick::Turn(turn.width))]],
    )
}
