//! The kernel in memory: what clients meet there, and what the daemon has to have written into it.

use std::net::SocketAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use tcpgw::reconcile::Desired;
use tcpgw::reconcile::engine::Engine;
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::summary::FlowVerdict;
use tcpgw_kernel::conntrack::CtStatus;
use tcpgw_kernel::fake::{ConnectOutcome, Fail, Fake, KernelCall, Syn};

use super::{Clients, World};

/// Bit of a flow whose backend has answered.
const SEEN_REPLY: u32 = 2;

/// Returns a client's SYN to a public port of the gateway.
pub(crate) fn syn(port: u16) -> Syn {
    Syn {
        client: SocketAddr::new([198, 51, 100, 7].into(), 40_000),
        public: SocketAddr::new([192, 0, 2, 1].into(), port),
    }
}

impl<C: Clients> World<C> {
    pub(crate) fn engine(&mut self) -> &mut Engine<Fake> {
        self.engine.as_mut().expect("a daemon runs")
    }

    pub(crate) fn kernel(&mut self) -> &mut Fake {
        self.engine().kernel()
    }

    /// Lets a client connect. Its backend answers unless it is down.
    pub(crate) fn connect(&mut self, syn: &Syn, pick: u32) -> ConnectOutcome {
        let outcome = self.kernel().connect(syn, pick);
        if let ConnectOutcome::Backend(backend) = outcome
            && self.containers.answers(backend)
            && let Some(flow) = self.kernel().flows.last_mut()
        {
            flow.status = CtStatus(flow.status.0 | SEEN_REPLY);
        }
        outcome
    }

    /// Ends a connection, if there is one.
    pub(crate) fn end_flow(&mut self, at: Index) {
        let flows = &mut self.kernel().flows;
        if !flows.is_empty() {
            flows.remove(at.index(flows.len()));
        }
    }

    /// Lets the next such call fail. Until [`Self::heal`] the kernel need not be as the daemon wants it.
    pub(crate) fn fail_next(&mut self, call: KernelCall, fail: Fail) {
        self.kernel().fail_next(call, fail);
        self.is_troubled = true;
    }

    /// Gives the gateway these links, of which the daemon is told.
    pub(crate) fn set_links(&mut self, links: Links) {
        self.engine().set_links(links.clone());
        self.links = links;
        self.core.links_changed();
    }

    /// Ends the failures of the kernel.
    pub(crate) fn heal(&mut self) {
        self.kernel().restart();
        self.is_troubled = false;
    }

    /// Checks that the kernel has what is served, with those links; that each backend in the balance has answered; and that no
    /// flow is stale.
    pub(crate) fn check_kernel(&mut self, links: &Links) -> Result<(), TestCaseError> {
        let serving = self.core.membership().serving().clone();
        let found = Desired::of(serving.values().map(AsRef::as_ref).collect(), links);
        let mark = FlowMark::default();
        prop_assert_eq!(&self.kernel().ruleset(), &found.ruleset);
        for backend in found.summary.services.iter().flat_map(|service| service.active.keys()) {
            let has_answered = self.containers.met.contains(backend);
            prop_assert!(has_answered, "{} gets connections and never answered", backend);
        }
        for flow in self.kernel().flows.iter().filter(|flow| mark.matches(flow.mark)) {
            let verdict = found.summary.verdict(flow.public, flow.backend);
            prop_assert!(verdict != FlowVerdict::Stale, "a stale flow to {}", flow.backend);
        }
        Ok(())
    }
}
