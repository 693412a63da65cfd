//! Joining the gateway: the app's resource, and what earlier runs left.

use super::Up;
use super::listeners::{tell_daemon, tell_problems};
use crate::api::client::{Client, ClientError};
use crate::up::error::{UpError, system};
use crate::up::gateway::{self, AppResource};
use crate::up::network::gateway_of;
use crate::up::record::{AppDirectory, AppRecord};
use crate::up::settings::UpSettings;
use crate::up::{abandoned, leftovers, own_daemon};

impl Up<'_> {
    /// Finds the daemon or starts one, removes what others have left there, and provisions the app.
    pub(super) fn join_gateway(
        &mut self,
        app: Option<String>,
        dead: Vec<AppDirectory>,
        is_alone: bool,
    ) -> Result<(), UpError> {
        let mut shared = self.places.shared();
        let forwarding = leftovers::forward().map_err(|error| {
            UpError::Refused(format!(
                "failed to switch forwarding on: {error}: set net.ipv4.ip_forward=1 by hand"
            ))
        })?;
        if forwarding.is_some() {
            shared.forwarding = forwarding;
            self.places.set_shared(&shared)?;
            self.output.say(
                "system",
                "switched net.ipv4.ip_forward on until the last `tcpgw up` ends",
            );
        }
        let Some(app) = app else {
            self.output.say(
                "system",
                "the Procfile has no process type tcp: there is no public port, and no TCP_URL",
            );
            // Resources are left to one that has a daemon.
            return leftovers::remove_networks(&self.places, &self.network, &dead).map_err(UpError::Left);
        };
        let daemon = if let Some(daemon) = (self.settings.find)().map_err(UpError::Refused)? {
            daemon
        } else {
            self.sweep_store(is_alone);
            self.start_daemon()?;
            shared = self.places.shared();
            Client::connect(&self.settings.socket)?
        };
        gateway::wait_until_started(&daemon)?;
        // A daemon that a `tcpgw up` has started reaches its own apps by their gateways' addresses.
        let is_ups = shared.daemon.is_some() && gateway::daemon(&daemon)?.pid == shared.daemon;
        self.keeps_daemon = is_ups;
        leftovers::remove_apps(&daemon, &self.places, &self.network, dead).map_err(UpError::Left)?;
        let lives = |id: &str| abandoned::lives(&self.places, &self.network, id);
        self.tell_abandoned(abandoned::remove(&daemon, &lives));
        // Noted before it is made.
        self.place.set_record(&AppRecord {
            directory: self.directory.clone(),
            network: self.subnet.to_string(),
            app: Some(app.clone()),
        })?;
        let resource = self.provision(&daemon, &app, is_ups)?;
        if let Err(error) = gateway::label(&daemon, &app, &self.owner) {
            // The next one removes it, where this fails, too.
            let _ = gateway::deprovision(&daemon, &app);
            return Err(error.into());
        }
        let url = match (is_ups, &resource.url) {
            (false, Some(url)) => url.clone(),
            _ => format!("tcp://{}:{}", gateway_of(self.subnet), resource.port),
        };
        self.output
            .say("system", &format!("TCP_URL={url}, plan {}", resource.plan));
        self.variables.insert("TCP_URL".into(), url);
        let socket = self.settings.socket.clone();
        let orders = tell_daemon(socket, app, self.settings.grace, self.events.clone());
        self.orders = Some(orders.map_err(system("start a thread"))?);
        let problems = tell_problems(self.settings.socket.clone(), resource.service, self.events.clone());
        self.tells_problems = Some(problems.map_err(system("start a thread"))?);
        Ok(())
    }

    /// Removes from the store what those have left whom the run directory does not know any more, before a daemon serves it.
    fn sweep_store(&self, is_alone: bool) {
        let UpSettings { store, rest, .. } = self.settings;
        let noted = self.places.shared().store;
        // Another network namespace may have taken the store away: a daemon would take the services of dead ones from the kernel.
        if is_alone
            && noted.is_some_and(|store| !store.exists())
            && let Err(why) = (self.settings.teardown)()
        {
            self.tell_abandoned(Err(why));
        }
        let lives = |id: &str| abandoned::lives(&self.places, &self.network, id);
        let swept = abandoned::sweep_store(store, *rest, &lives).and_then(|swept| {
            let mut shared = self.places.shared();
            if swept.is_of_up && shared.store.is_none() {
                // The store is removed with the last app, as if it had been made for this one.
                shared.store = Some(store.clone());
                self.places.set_shared(&shared).map_err(|error| error.to_string())?;
            }
            Ok(swept.apps)
        });
        self.tell_abandoned(swept);
    }

    /// Reports the result of a removal. A failure does not keep the app from running.
    fn tell_abandoned(&self, removed: Result<Vec<String>, String>) {
        match removed {
            Ok(apps) => {
                for app in apps {
                    let text = format!("removed the resource of {app}, whose `tcpgw up` was killed");
                    self.output.say("system", &text);
                }
            }
            Err(why) => {
                let text =
                    format!("failed to remove what earlier ones may have left: {why}; `tcpgw up stop` tries again");
                self.output.say("system", &text);
            }
        }
    }

    fn provision(&self, daemon: &Client, app: &str, is_ups: bool) -> Result<AppResource, UpError> {
        let plan = self.settings.plan.as_deref().unwrap_or(own_daemon::PLAN);
        let port = self.settings.port;
        let mut outcome = gateway::provision(daemon, app, plan, port);
        // The resource may exist from a run that was killed, with another plan or port.
        if let Err(ClientError::Refused { status: 409 | 422, .. }) = outcome
            && gateway::deprovision(daemon, app).is_ok()
        {
            outcome = gateway::provision(daemon, app, plan, port);
        }
        outcome.map_err(|error| {
            let hint = match (&self.settings.plan, is_ups) {
                (None, false) => "; name one of the daemon's plans by --plan",
                _ => "",
            };
            let addon = match &error {
                ClientError::Refused { message, .. } if message.contains("add-on is off") => {
                    ": add a section [addon] to the daemon's configuration and reload it (docs/guides/addon.md), or stop that daemon: \
                     `tcpgw up` starts one of its own where there is none"
                }
                _ => hint,
            };
            let words = format!("failed to provision the app: {error}{addon}");
            match &error {
                ClientError::Invalid(_) if self.settings.plan.is_some() => UpError::Usage(words),
                _ => UpError::Refused(words),
            }
        })
    }
}
