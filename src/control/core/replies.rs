//! Views of the daemon's state for the API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::orphans::Orphan;
use super::{Core, DaemonPhase, Now, Provider};
use crate::control::request::{After, BackendView, Followed, ListedService, ListedServices, MetricsView, ServiceView};
use crate::metrics::OwnMetrics;
use crate::store::StoredService;
use crate::view::ServicesView;
use crate::view::snapshot::{DaemonView, DrainView, HealthView};
use crate::view::snapshot_parts::{SnapshotParts, WantedService};
use tcpgw_core::drain::Drain;
use tcpgw_core::health::{ProbeOutcome, UNKNOWN};
use tcpgw_core::model::{BackendState, Endpoint, Service, Word as _};
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::ProblemKind;

impl Core {
    /// Returns the parts of a snapshot of the state, without a query of the kernel.
    pub fn snapshot(&mut self, now: Now) -> SnapshotParts {
        self.tell_problems(now);
        let (wanted, serving) = (self.membership.wanted(), self.membership.serving());
        let mut desired = wanted.keys().peekable();
        // Both are sorted: a walk is faster than as many searches.
        let ghosts = serving.iter().filter(|(name, _)| {
            while desired.next_if(|of| of < name).is_some() {}
            desired.peek() != Some(name)
        });
        let ghosts: Vec<Arc<Service>> = ghosts.map(|(_, service)| Arc::clone(service)).collect();
        let names = wanted.keys().chain(ghosts.iter().map(|service| &service.name));
        let wanted_services = wanted.iter().map(|(name, service)| WantedService {
            service: Arc::clone(service),
            served: serving.get(name).map(Arc::clone),
        });
        SnapshotParts {
            wanted: wanted_services.collect(),
            apps: self.apps_among(names),
            ghosts,
            services: ServicesView {
                table: self.table.clone(),
                applied: self.applied.clone(),
                mark: self.mark(),
                configured: self.mark(),
                ..ServicesView::default()
            },
            health: self.health_views().collect(),
            unproven: self
                .membership
                .unproven()
                .map(|(name, at)| (name.clone(), at.into()))
                .collect(),
            drains: self.drains(now),
            daemon: self.daemon(),
            unanswered: self.unanswered().clone(),
            providers: self
                .provided()
                .map(|(service, provider)| (Arc::clone(service), provider))
                .collect(),
            addon: self.addon_states(),
        }
    }

    /// Returns what metrics show of the daemon, without a query of the kernel.
    pub fn metrics(&mut self, now: Now) -> MetricsView {
        MetricsView {
            parts: self.snapshot(now),
            plans: self.addon_plans(),
            own: self.own.clone(),
        }
    }

    /// Returns the counters of the daemon's own work.
    pub fn own_metrics(&mut self) -> &mut OwnMetrics {
        &mut self.own
    }

    /// Returns the services of all providers, by name.
    pub fn services(&self) -> ListedServices {
        let mut services: Vec<ListedService> = self.listed().collect();
        services.sort_unstable_by(|a, b| a.service.name.cmp(&b.service.name));
        ListedServices {
            revision: self.api.revision(),
            services,
        }
    }

    fn listed(&self) -> impl Iterator<Item = ListedService> + '_ {
        let of_file = self.file.iter().flat_map(|file| &file.services);
        let of_file = of_file.map(|service| listed(service, Provider::File.name(), None));
        let of_docker = self.docker.services();
        let of_docker = of_docker.map(|service| listed(service, Provider::Docker.name(), None));
        let orphans = self.orphans.iter().map(listed_orphan);
        let listed = of_file.chain(of_docker);
        let listed = listed.chain(self.api.stored().map(listed_api)).chain(orphans);
        listed.map(|listed| self.with_reasons(listed))
    }

    /// Returns the services of all providers, each with the provider's name.
    fn provided(&self) -> impl Iterator<Item = (&Arc<Service>, &'static str)> {
        let of_file = self.file.iter().flat_map(|file| &file.services);
        let of_file = of_file.map(|service| (service, Provider::File.name()));
        let of_docker = self.docker.services();
        let of_docker = of_docker.map(|service| (service, Provider::Docker.name()));
        let of_api = self.api.stored().map(|stored| (&stored.service, Provider::Api.name()));
        let orphans = self.orphans.iter();
        let orphans = orphans.map(|orphan| (&orphan.service, Owner::Orphan.name()));
        of_file.chain(of_docker).chain(of_api).chain(orphans)
    }

    fn with_reasons(&self, listed: ListedService) -> ListedService {
        let name = &listed.service.name;
        let held_back = self.held_back.reasons(name);
        let paused = self.membership.pause_of(name).map(|pause| pause.view());
        let addon = self.addon_view(name);
        ListedService {
            held_back,
            paused,
            addon,
            ..listed
        }
    }

    /// Returns a service with its state.
    pub fn service(&self, name: &str, now: Now) -> Option<ServiceView> {
        let of_file = self.file.as_ref().and_then(|file| file.get(name));
        let of_file = of_file.map(|service| listed(service, Provider::File.name(), None));
        let of_docker = || Some(listed(self.docker.get(name)?, Provider::Docker.name(), None));
        let of_api = || self.api.get(name).map(listed_api);
        let listed = of_file
            .or_else(of_docker)
            .or_else(of_api)
            .or_else(|| self.orphans.get(name).map(listed_orphan))?;
        let listed = self.with_reasons(listed);
        let paused = self.membership.pause_of(name);
        Some(ServiceView {
            backends: self.backends(&listed.service, now),
            listed,
            paused_for: paused.map(|pause| seconds_up(pause.until.saturating_duration_since(now.instant))),
            in_kernel: self.holds() && !self.held_back.contains(name),
            deploy: self.deploy_of(name, now),
        })
    }

    fn backends(&self, service: &Service, now: Now) -> Vec<BackendView> {
        let mut desired: BTreeMap<Endpoint, &'static str> = BTreeMap::new();
        for backend in &service.backends {
            desired.insert(backend.endpoint, backend.state.word());
        }
        for endpoint in self.membership.draining_backends().of(&service.name) {
            desired.entry(endpoint).or_insert("gone");
        }
        let present = self.membership.serving().get(&service.name);
        let views = desired.into_iter().map(|(endpoint, desired)| {
            let mut present = present.iter().flat_map(|present| &present.backends);
            let present = present.find(|backend| backend.endpoint == endpoint);
            let leaving = self
                .membership
                .draining_backends()
                .get(&service.name, endpoint)
                .map(|leaving| leaving.drain);
            let deadline = leaving.and_then(Drain::deadline);
            let health = self.health.get(endpoint.into());
            BackendView {
                backend: endpoint.into(),
                desired: desired.into(),
                balanced: present.is_some_and(|backend| backend.state == BackendState::Active),
                health: health.map(|view| {
                    let is_unproven = self.membership.is_unproven(&service.name, endpoint);
                    if is_unproven { UNKNOWN } else { view.state.name() }.into()
                }),
                reason: health.and_then(|view| reason(view.last)),
                leaving: leaving.is_some(),
                flows: leaving.and_then(Drain::flows),
                seconds_left: deadline.map(|at| at.saturating_duration_since(now.instant).as_secs()),
            }
        });
        views.collect()
    }

    /// Returns the events after the given one, and a receiver of later ones.
    pub fn follow(&self, after: &After) -> Followed {
        self.events.follow(after)
    }

    /// Returns the view of the daemon itself.
    pub fn daemon(&self) -> DaemonView {
        DaemonView {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            namespace: self.namespace,
            started: self.started.as_secs(),
            in_sync: self.in_sync(),
            problems: self
                .problems
                .iter()
                .map(|problem| self.with_apps(problem.clone()))
                .collect(),
            store: self
                .problems
                .get(ProblemKind::Store)
                .map(|problem| problem.message.clone()),
            owns_table: self.view.owns_table,
            torn_down: self.phase == DaemonPhase::TornDown,
        }
    }

    /// Returns the results of probes, in order of endpoint.
    fn health_views(&self) -> impl Iterator<Item = (SocketAddr, HealthView)> + '_ {
        let mut since = self.since.iter().peekable();
        self.health.iter().map(move |(at, view)| {
            while since.next_if(|(of, _)| **of < at).is_some() {}
            let since = since.peek().filter(|(of, _)| **of == at);
            let view = HealthView {
                state: view.state.name(),
                reason: reason(view.last),
                since: since.map_or(self.started.as_secs(), |(_, since)| **since),
            };
            (at, view)
        })
    }

    fn drains(&self, now: Now) -> Vec<DrainView> {
        let leaving = self.membership.draining_backends().iter();
        let view = leaving.map(|leaving| {
            let service = self.membership.serving().get(&leaving.service);
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

/// Returns the seconds, rounded up, so that what has not ended has a second left.
fn seconds_up(left: std::time::Duration) -> u64 {
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

fn listed_orphan(orphan: &Orphan) -> ListedService {
    listed(&orphan.service, Owner::Orphan.name(), None)
}

fn listed_api(stored: &StoredService) -> ListedService {
    listed(&stored.service, Provider::Api.name(), Some(stored.revision))
}

/// Returns a service without what is known of its present state.
fn listed(service: &Arc<Service>, provider: &'static str, revision: Option<u64>) -> ListedService {
    ListedService {
        service: Arc::clone(service),
        provider,
        revision,
        held_back: Vec::new(),
        paused: None,
        addon: None,
    }
}

pub(super) fn reason(last: Option<ProbeOutcome>) -> Option<String> {
    last.filter(|last| *last != ProbeOutcome::Accepted)
        .map(|last| last.to_string())
}
