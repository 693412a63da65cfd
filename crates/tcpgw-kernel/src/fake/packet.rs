//! Path of a SYN through the rules, from set to set, so that a transaction may be committed between any two of its
//! steps.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use super::GenerationView;
use super::table::FakeTable;
use crate::conntrack::{CtStatus, Flow};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::key::{TCP, address_bytes};
use tcpgw_core::ruleset::name::{Family, ListenScope, Scope, SetName, SpreadRule};
use tcpgw_core::ruleset::rows::read_endpoint;
use tcpgw_core::ruleset::stmt::HASH_SLOTS;

/// The first segment of a handshake, to a local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// Address of the client.
    pub client: SocketAddr,
    /// Address that the client connects to.
    pub public: SocketAddr,
}

/// Result of a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// The SYN goes to a backend.
    Backend(SocketAddr),
    /// An access list drops the SYN.
    Refused,
    /// The service has no backend: it is answered with a reset, or dropped.
    Empty {
        /// Whether the answer is a reset.
        reset: bool,
    },
    /// The SYN left the rules without a backend, and is dropped on its way to the gateway's own stack.
    Missed,
    /// The SYN is for no service: the gateway's own stack answers.
    Foreign,
}

impl Syn {
    /// Returns the flow that conntrack creates for it, masqueraded, before the backend answers.
    pub fn flow(&self, backend: SocketAddr, mark: FlowMark, id: u32) -> Flow {
        Flow {
            client: self.client,
            public: self.public,
            backend,
            seen_as: SocketAddr::new(backend.ip(), self.client.port()),
            id,
            mark: mark.value(),
            status: CtStatus(16 | 32),
            tcp_state: None,
            zone: 0,
            timeout: None,
            counters: None,
            started: None,
        }
    }

    fn family(&self) -> Family {
        Family::of(self.public.ip())
    }

    /// Returns the key of the service in the form of keys that consist of it alone.
    fn service(&self, scope: Scope) -> Vec<u8> {
        match scope {
            Scope::Any => [&TCP, self.listening(scope).as_slice()].concat(),
            Scope::At(_) => self.listening(scope),
        }
    }

    /// Returns the key of the service in the form of keys that continue after it.
    fn listening(&self, scope: Scope) -> Vec<u8> {
        let mut key = match scope {
            Scope::Any => Vec::new(),
            Scope::At(_) => address_bytes(self.public.ip()),
        };
        key.extend(self.public.port().to_be_bytes());
        key.extend([0, 0]);
        key
    }

    fn visitor(&self, scope: Scope) -> Vec<u8> {
        [self.listening(scope), address_bytes(self.client.ip())].concat()
    }
}

/// A packet on its way through the rules. It reads the rules as they are when it enters a hook, and each set as it is
/// when it gets there (`nft_do_chain`, `net/netfilter/nf_tables_core.c`); from one of its steps on it reads the new
/// generation.
#[derive(Debug)]
pub struct PacketWalk<'a> {
    old: &'a GenerationView,
    new: &'a GenerationView,
    change: usize,
    steps: usize,
}

impl<'a> PacketWalk<'a> {
    /// Creates a walk without a transaction.
    pub fn steady(view: &'a GenerationView) -> Self {
        Self::across(view, view, 0)
    }

    /// Creates a walk during which a transaction is committed, before the step of that number.
    pub fn across(old: &'a GenerationView, new: &'a GenerationView, change: usize) -> Self {
        Self {
            old,
            new,
            change,
            steps: 0,
        }
    }

    /// Returns where the packet ends and the number of steps, with `pick` as the random number of the rules.
    pub fn syn(mut self, syn: &Syn, pick: u32) -> (ConnectOutcome, usize) {
        let outcome = self.way(syn, pick);
        (outcome, self.steps)
    }

    /// Returns the table that the next step of the packet finds.
    fn current(&mut self) -> Option<&'a FakeTable> {
        let view = if self.steps < self.change { self.old } else { self.new };
        self.steps += 1;
        view.0.as_ref()
    }

    fn contains(&mut self, set: SetName, key: &[u8]) -> bool {
        self.current().is_some_and(|table| table.contains(set, key))
    }

    fn covers(&mut self, set: SetName, key: &[u8]) -> bool {
        self.current().is_some_and(|table| table.covers(set, key))
    }

    fn is_service(&mut self, syn: &Syn, listen_scope: ListenScope) -> bool {
        let scope = listen_scope.scope();
        self.contains(SetName::Services(scope), &syn.service(scope))
    }

    fn way(&mut self, syn: &Syn, pick: u32) -> ConnectOutcome {
        let family = syn.family();
        let reaches = [ListenScope::Any(family), ListenScope::At(family)];
        if let Some(rules) = self.current()
            && let Some(outcome) = self.find(rules, syn, reaches, pick)
        {
            return outcome;
        }
        if reaches.iter().any(|listen_scope| self.is_service(syn, *listen_scope)) {
            ConnectOutcome::Missed
        } else {
            ConnectOutcome::Foreign
        }
    }

    /// Returns where the packet ends; `None` if the rules end and the packet continues.
    fn find(&mut self, rules: &FakeTable, syn: &Syn, reaches: [ListenScope; 2], pick: u32) -> Option<ConnectOutcome> {
        for listen_scope in reaches {
            if rules.asks(SetName::Restricted(listen_scope.scope())) && !self.may_enter(syn, listen_scope) {
                return Some(ConnectOutcome::Refused);
            }
        }
        for listen_scope in reaches {
            if let ControlFlow::Break(outcome) = self.spread(rules, syn, listen_scope, pick) {
                return outcome;
            }
            if self.is_service(syn, listen_scope) {
                return self.choose(rules, syn, listen_scope, pick);
            }
        }
        None
    }

    fn may_enter(&mut self, syn: &Syn, listen_scope: ListenScope) -> bool {
        let (service, visitor) = (syn.service(listen_scope.scope()), syn.visitor(listen_scope.scope()));
        if !self.contains(SetName::Restricted(listen_scope.scope()), &service) {
            return true;
        }
        if self.covers(SetName::Denied(listen_scope), &visitor) {
            return false;
        }
        self.covers(SetName::Allowed(listen_scope), &visitor)
            || !self.contains(SetName::AllowOnly(listen_scope.scope()), &service)
    }

    /// Breaks with the place where the packet ends, if it ends here, and continues where it returns.
    fn spread(
        &mut self,
        rules: &FakeTable,
        syn: &Syn,
        listen_scope: ListenScope,
        pick: u32,
    ) -> ControlFlow<Option<ConnectOutcome>> {
        let service = syn.service(listen_scope.scope());
        for rule in rules.spread(listen_scope) {
            let slots = match rule {
                // No client exceeds a cap here.
                SpreadRule::Cap(_) => continue,
                SpreadRule::Slots(width) => Some(width.slots),
                SpreadRule::Idle(_) => None,
            };
            if !self.contains(SetName::Spread(listen_scope, rule), &service) {
                continue;
            }
            let Some(slots) = slots else {
                return ControlFlow::Break(self.choose(rules, syn, listen_scope, pick));
            };
            if let Some(outcome) = self.slot(syn, listen_scope, pick % u32::from(slots)) {
                return ControlFlow::Break(Some(outcome));
            }
        }
        ControlFlow::Continue(())
    }

    /// Returns where the packet ends; `None` if the rules end and the packet continues.
    fn choose(&mut self, rules: &FakeTable, syn: &Syn, listen_scope: ListenScope, pick: u32) -> Option<ConnectOutcome> {
        let service = syn.service(listen_scope.scope());
        if self.contains(SetName::Hashed(listen_scope), &service)
            && let Some(outcome) = self.slot(syn, listen_scope, pick % u32::from(HASH_SLOTS))
        {
            return Some(outcome);
        }
        let round_robin = self
            .current()
            .and_then(|table| table.round_robin_chain(&(listen_scope, service.clone().into())));
        if let Some(chain) = round_robin {
            // A chain that is newer than the packet's rules has none for it.
            return rules
                .has_chain(chain)
                .then(|| self.slot(syn, listen_scope, pick % u32::from(chain.width)))
                .flatten();
        }
        let reset = self.contains(SetName::EmptyReset(listen_scope), &service);
        Some(ConnectOutcome::Empty { reset })
    }

    /// Returns the backend of a slot. If the slot does not exist, the packet continues with the next rule.
    fn slot(&mut self, syn: &Syn, listen_scope: ListenScope, number: u32) -> Option<ConnectOutcome> {
        let key = [syn.listening(listen_scope.scope()).as_slice(), &number.to_ne_bytes()].concat();
        let data = self.current()?.data(SetName::Slots(listen_scope), &key)?;
        let backend = read_endpoint(listen_scope.family(), data)?;
        Some(ConnectOutcome::Backend(SocketAddr::new(
            backend.address,
            backend.port.get(),
        )))
    }
}
