//! The daemon's own listeners beside services: the first of the two keeps the port. A service that is served is not ended for a listener,
//! and a service that comes is not served on the port of one, since its containers would get the secrets that clients send there.
use std::sync::Arc;

use super::Core;
use super::obstacles::Obstacles;
use crate::control::obstacle::add_own_listeners;
use crate::control::own_listener::{ListenerRole, OwnListener};
use tcpgw_core::model::Service;

impl Core {
    /// Returns the daemon's own listeners: those in use, and those that the configuration names.
    pub(super) fn own_listeners(&self) -> Vec<OwnListener> {
        let provider = self.addon.settings.as_ref().map(|settings| settings.listen);
        let in_use = [
            (ListenerRole::Provider, provider),
            (ListenerRole::Web, self.web_listens),
        ];
        let in_use = in_use.into_iter().filter_map(|(role, address)| {
            Some(OwnListener {
                role,
                address: address?,
            })
        });
        let mut listeners: Vec<OwnListener> = OwnListener::configured(&self.config).collect();
        for listener in in_use {
            if !listeners.contains(&listener) {
                listeners.push(listener);
            }
        }
        listeners
    }

    /// Adds the obstacles that the daemon's own listeners are for services. [`Self::new_obstacles`] leaves out those of services that
    /// are served there already.
    pub(super) fn add_own_listeners<'s>(
        &self,
        services: impl IntoIterator<Item = &'s Arc<Service>>,
        found: &mut Obstacles,
    ) {
        let listeners = self.own_listeners();
        for service in services {
            if listeners.iter().any(|listener| listener.is_behind(service)) && !self.was_served_last(service) {
                let found = found.entry(service.name.clone()).or_default();
                add_own_listeners(service, listeners.iter().copied(), found);
            }
        }
    }

    /// Fails when a service that is served, or was when the daemon before this one ended, has the port of the configured listener:
    /// its containers would get what clients send there.
    ///
    /// # Errors
    /// Fails with a message that names the service, when a service has the port.
    pub fn judge_listener(&self, role: ListenerRole) -> Result<(), String> {
        let mut configured = OwnListener::configured(&self.config);
        let Some(listener) = configured.find(|listener| listener.role == role) else {
            return Ok(());
        };
        // At the start a service may be desired that the first judgement holds back for this listener, and the state file may not have
        // been read.
        let has_judged = self.held_back.has_judged;
        let desired = self.desired().filter(|service| has_judged || self.is_known(service));
        let mut served = desired.chain(self.held_back.served_last.values());
        let Some(service) = served.find(|service| listener.is_behind(service)) else {
            return Ok(());
        };
        let app = self.app_of_service(&service.name);
        let owner = app.map(|app| format!(" (the add-on of app {app})")).unwrap_or_default();
        Err(listener.refused_by(service, &owner))
    }

    /// Returns whether the daemon before this one served the service on its port. Afterwards, what is served is known.
    fn was_served_last(&self, service: &Service) -> bool {
        let last = self.held_back.served_last.get(&service.name);
        !self.held_back.has_judged
            && last.is_some_and(|last| last.port == service.port && last.listen == service.listen)
    }
}
