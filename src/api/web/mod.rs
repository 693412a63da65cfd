//! Metrics, and pages for the operator, over TCP.
//!
//! Owns who may ask, and what a path leads to. What is asked changes nothing, and costs the daemon's loop one snapshot and the kernel
//! one read a second at most, however many ask.

mod actions;
mod answers;
mod authentication;
mod cached_reads;
mod handler;
mod kernel_reader;
mod live;
mod pages;
mod reader;
mod site;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::handler::WebHandler;
pub use self::site::{DiagnosisSource, Web};
use super::descriptors::DescriptorBudget;
use super::listener::connection_limits::ConnectionLimits;
use super::listener::serve as listen;
use super::settings::ApiSettings;
use crate::control::request::DaemonRequest;
use crate::metrics::OwnFile;

/// Serves until `stop`, and then lets those that are being served have their answers. Each request is answered by what is in `sites`
/// when it comes, on connections that were open before, too. `file`: the file that keeps the daemon's own counters.
pub async fn serve(
    listener: TcpListener,
    sites: watch::Receiver<Arc<Web>>,
    requests: mpsc::Sender<DaemonRequest>,
    settings: ApiSettings,
    file: OwnFile,
    stop: impl Future<Output = ()> + Send,
) {
    let times = settings.times;
    // Prometheus shares the address of this machine with every user of it.
    let slots = DescriptorBudget::of_this_process().web_slots();
    let limits = ConnectionLimits::new(slots).of_shared_addresses();
    let (ending, ends) = watch::channel(false);
    let handler = Arc::new(WebHandler::new(requests, &settings, file, sites.clone(), ends));
    let stop = async {
        stop.await;
        // Pages that follow do not keep the listener from its end.
        let _ = ending.send(true);
    };
    listen(limits, listener, sites, handler, times, stop).await;
}

#[cfg(test)]
mod tests;
