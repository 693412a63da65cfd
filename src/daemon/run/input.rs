//! Input of the main loop: requests, and notifications of the kernel.

use super::DaemonLoop;
use crate::control::core::{ApplyOrder, Now, Order};
use crate::control::request::{DaemonRequest, Refused};
use crate::daemon::parsed::Parsed;
use crate::probe::ProbeReport;
use tcpgw_core::health::ProbeOutcome;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::nftables::monitor::{TableChange, TableNotification};
use tcpgw_kernel::route::monitor::Notification;

impl DaemonLoop {
    pub(super) fn probed(&mut self, probed: Vec<ProbeReport>) {
        let now = Now::read();
        for report in probed {
            if matches!(report.outcome, ProbeOutcome::Accepted | ProbeOutcome::Refused) {
                self.core.own_metrics().probes.observe(report.took);
            }
            self.core.probed(report.id, report.outcome, now);
        }
    }

    pub(super) fn answer(&mut self, request: DaemonRequest) {
        let now = Now::read();
        // The client may have disconnected.
        match request {
            DaemonRequest::Snapshot(reply) => drop(reply.send(self.core.snapshot(now))),
            DaemonRequest::FlowMark(reply) => drop(reply.send(self.core.mark())),
            DaemonRequest::Follow(after, reply) => drop(reply.send(self.core.follow(&after))),
            DaemonRequest::Teardown(by, reply) => self.core.teardown(by, reply),
            DaemonRequest::Resume(by, reply) => self.core.resume(by, reply, now),
            DaemonRequest::Services(reply) => drop(reply.send(self.core.services())),
            DaemonRequest::Service(name, reply) => drop(reply.send(self.core.service(&name, now))),
            DaemonRequest::Edit(order, reply) => self.core.order(Order::Edit(order, reply)),
            DaemonRequest::Batch(order, reply) => self.core.order(Order::Batch(order, reply)),
            DaemonRequest::Pause(order, reply) => self.core.pause(&order, reply, now),
            DaemonRequest::Deploy(order, reply) => self.core.order(Order::Deploy(order, reply)),
            DaemonRequest::Undo(order, reply) => self.core.order(Order::Undo(order, reply)),
            DaemonRequest::Addon(order, reply) => self.core.order(Order::Addon(order, reply)),
            DaemonRequest::Resource(target, reply) => drop(reply.send(self.core.resource(&target))),
            DaemonRequest::ServicesOfApp(app, reply) => drop(reply.send(self.core.services_of_app(&app))),
            DaemonRequest::AppsOfServices(names, reply) => drop(reply.send(self.core.apps_of_services(&names))),
            DaemonRequest::AppPage(id, reply) => drop(reply.send(self.core.app(id, now))),
            DaemonRequest::ResourceView(target, reply) => drop(reply.send(self.core.resource_view(&target))),
            DaemonRequest::Resources(reply) => drop(reply.send(self.core.resource_list(now))),
            DaemonRequest::Deploys(reply) => drop(reply.send(self.core.deploys(now))),
            DaemonRequest::Metrics(reply) => drop(reply.send(self.core.metrics(now))),
            DaemonRequest::Query(query) => {
                if let Some(store_thread) = &self.store_thread {
                    store_thread.query(query);
                }
            }
            DaemonRequest::Apply(apply, reply) => {
                let parsed = self.parsed.0.clone();
                // Parsing a large state would delay the main loop.
                tokio::task::spawn_blocking(move || {
                    let state = tcpgw_core::model::parse(&apply.state);
                    let _ = parsed.blocking_send(Parsed { apply, state, reply });
                });
            }
        }
    }

    pub(super) fn apply(&mut self, parsed: Parsed) {
        let Parsed { apply, state, reply } = parsed;
        match state {
            Err(problems) => drop(reply.send(Err(Refused::Invalid(problems)))),
            Ok(state) => self.core.order(Order::Apply(ApplyOrder { apply, state, reply })),
        }
    }

    pub(super) fn heard(&mut self, heard: Result<TableNotification, NetlinkError>) {
        let now = Now::read();
        if heard.as_ref().is_ok_and(|heard| heard.by_others) {
            self.core.surroundings_changed(now);
        }
        match heard {
            Ok(heard) if !heard.is_drift() => {}
            Ok(heard) => {
                let what = match heard.table {
                    TableChange::Untouched => "more notifications than could be received",
                    TableChange::Touched => "they wrote to table inet tcpgw",
                    TableChange::Gone => "they removed table inet tcpgw",
                };
                self.core
                    .drift(heard.by(), what.into(), heard.table != TableChange::Untouched, now);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to receive notifications of changes of nftables");
                self.core.drift(
                    None,
                    "notifications of changes of nftables were lost".into(),
                    false,
                    now,
                );
            }
        }
    }

    /// Reacts to changes of links, addresses, routes, routing rules or forwarding.
    pub(super) fn network_changed(&mut self, changed: Notification) {
        tracing::debug!(?changed, "links, addresses, routes or their settings have changed");
        if changed.links || changed.addresses {
            self.core.links_changed();
        }
        self.core.surroundings_changed(Now::read());
        if changed.links || changed.addresses {
            self.core.addresses_changed(Now::read());
        }
    }
}
