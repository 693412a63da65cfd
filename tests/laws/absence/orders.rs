//! Orders to the daemon, and its answers.

use std::collections::BTreeSet;

use tcpgw::control::core::{ApplyOrder, Order};
use tcpgw::control::request::{Apply, ApplyOptions, Edited, Refused, ServiceEdit};
use tcpgw_core::model::State;
use tokio::sync::oneshot;

use super::{Loss, World};
use crate::world::clients::PEER;

impl World {
    /// Orders an edit and returns true when it was done.
    pub(super) fn order(&mut self, name: &str, edit: ServiceEdit) -> bool {
        let mut answer = self.order_edit(name, edit);
        self.run();
        self.see();
        answer.try_recv().unwrap().is_ok()
    }

    /// Orders an edit, and kills the daemon as soon as it has answered.
    pub(super) fn last_order(
        &mut self,
        name: &str,
        edit: ServiceEdit,
        losses: &BTreeSet<Loss>,
    ) -> Result<Edited, Refused> {
        self.see();
        let mut answer = self.order_edit(name, edit);
        let mut answered = None;
        self.run_until(|| {
            answered = answer.try_recv().ok();
            answered.is_some()
        });
        self.restart_after(losses);
        answered.unwrap_or_else(|| answer.try_recv().unwrap())
    }

    pub(super) fn apply(&mut self, state: &State, prune: bool) -> bool {
        let options = ApplyOptions {
            prune,
            allow_empty: true,
            ..ApplyOptions::default()
        };
        self.apply_with(state, options)
    }

    pub(super) fn apply_with(&mut self, state: &State, options: ApplyOptions) -> bool {
        let (reply, mut answer) = oneshot::channel();
        let apply = Apply {
            state: Vec::new(),
            origin: "test".into(),
            options,
            by: PEER,
        };
        let state = state.clone();
        self.core.order(Order::Apply(ApplyOrder { apply, state, reply }));
        self.run();
        self.see();
        answer.try_recv().unwrap().is_ok()
    }

    /// Returns the state that `tcpgw export` prints.
    pub(super) fn export(&self) -> State {
        let list = self.core.services().services.into_iter();
        let chosen = list.filter(|listed| listed.provider != "file");
        State::new(chosen.map(|listed| listed.service)).unwrap()
    }

    /// Returns the services and their providers.
    pub(super) fn providers(&self) -> Vec<(String, String)> {
        let list = self.core.services().services.into_iter();
        list.map(|listed| (listed.service.name.to_string(), listed.provider.to_owned()))
            .collect()
    }
}
