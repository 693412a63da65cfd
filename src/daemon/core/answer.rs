//! What it tells of itself.

use std::collections::BTreeMap;

use super::{Core, Now, Phase, Provider};
use crate::daemon::ask::{DaemonView, DrainView, Followed, HealthView, Look};
use crate::drain::Drain;
use crate::health::Outcome;
use crate::model::{Backend, BackendState, Service};
use crate::summary::Summary;
use crate::view::Services;

impl Core {
    /// What it knows, without asking the kernel.
    pub fn look(&self, now: Now) -> Look {
        let shown: Vec<Service> = self.shown().collect();
        let summary: Summary = shown.iter().collect();
        let providers = [(Provider::File, self.file.as_ref()), (Provider::Api, Some(&self.api))];
        let providers = providers.into_iter().flat_map(|(provider, state)| {
            let services = state.into_iter().flat_map(|state| &state.services);
            services.map(move |service| (service.name.clone(), provider.name()))
        });
        Look {
            services: Services {
                summary,
                table: self.table.clone(),
                applied: Some(self.memo(now).applied),
                mark: self.mark(),
                configured: self.mark(),
                ..Services::default()
            },
            health: self.health_views(),
            drains: self.drains(now),
            daemon: self.daemon(),
            providers: providers.collect(),
        }
    }

    /// The events after that one, and those that come.
    pub fn follow(&self, after: u64) -> Followed {
        self.events.follow(after)
    }

    /// The daemon itself.
    pub fn daemon(&self) -> DaemonView {
        DaemonView {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            namespace: self.namespace,
            started: self.started.as_secs(),
            in_sync: self.in_sync(),
            problems: self.problems.values().cloned().collect(),
            owns_table: self.view.owns_table,
            torn_down: self.phase == Phase::TornDown,
        }
    }

    /// The services as people want to see them: who is wanted and out of the balance is shown as wanted, with its health.
    fn shown(&self) -> impl Iterator<Item = Service> + '_ {
        let wanted = self.roster.wanted();
        let ghosts = self
            .roster
            .serving()
            .values()
            .filter(|service| !wanted.contains_key(&service.name));
        let ghosts = ghosts.map(|service| Service::clone(service));
        let there = wanted.values().map(|service| {
            let told = self.roster.serving().get(&service.name);
            let active = |backend: &&Backend| backend.state == BackendState::Active;
            let mut backends: Vec<Backend> = service.backends.iter().filter(active).copied().collect();
            for backend in told.iter().flat_map(|told| &told.backends) {
                if !backends.iter().any(|known| known.endpoint == backend.endpoint) {
                    backends.push(*backend);
                }
            }
            backends.sort_unstable_by_key(|backend| backend.endpoint);
            Service {
                backends,
                ..Service::clone(service)
            }
        });
        ghosts.chain(there)
    }

    fn health_views(&self) -> BTreeMap<std::net::SocketAddr, HealthView> {
        let backends = self.roster.wanted().values().flat_map(|service| &service.backends);
        let views = backends.filter_map(|backend| {
            let at = backend.endpoint.into();
            let view = self.health.get(at)?;
            Some((
                at,
                HealthView {
                    state: view.state.name(),
                    reason: reason(view.last),
                    since: self.since.get(&at).copied().unwrap_or(self.started.as_secs()),
                },
            ))
        });
        views.collect()
    }

    fn drains(&self, now: Now) -> Vec<DrainView> {
        let leaving = self.roster.leavers().iter();
        let view = leaving.map(|leaving| {
            let service = self.roster.serving().get(&leaving.service);
            DrainView {
                service: Some(leaving.service.to_string()),
                port: service.map_or(0, |service| service.port.get()),
                backend: leaving.backend.endpoint.into(),
                flows: leaving.drain.flows(),
                seconds_left: leaving
                    .drain
                    .deadline()
                    .map(|deadline| deadline.saturating_duration_since(now.instant).as_secs()),
                waits_for: match leaving.drain {
                    Drain::Serving => "replacement",
                    Drain::Draining { .. } => "flows",
                },
            }
        });
        view.collect()
    }
}

fn reason(last: Option<Outcome>) -> Option<String> {
    last.filter(|last| *last != Outcome::Accepted)
        .map(|last| last.to_string())
}
