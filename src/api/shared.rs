//! State that the handlers of the routes share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::error::ApiError;
use super::kernel_queries::KernelQueries;
use super::limits::{FOLLOWERS, LARGE_BODIES, Times, WAITERS};
use super::settings::ApiSettings;
use super::{asking, body};
use crate::control::reply::ReplySender;
use crate::control::request::DaemonRequest;
use crate::traffic::totals::TotalsSource;
use crate::view::snapshot::Snapshot;

/// State that handlers share.
#[derive(Clone)]
pub(super) struct ApiState {
    requests: mpsc::Sender<DaemonRequest>,
    pub(super) kernel_queries: KernelQueries,
    large: Arc<Semaphore>,
    pub(super) followers: Arc<Semaphore>,
    pub(super) waiters: Arc<Semaphore>,
    pub(super) times: Times,
    pub(super) ends: watch::Receiver<bool>,
    pub(super) totals: Option<TotalsSource>,
}

impl ApiState {
    /// Returns the state of a server that asks the daemon's loop by `requests`, until `ends` is true.
    pub(super) fn new(
        requests: mpsc::Sender<DaemonRequest>,
        settings: ApiSettings,
        ends: watch::Receiver<bool>,
    ) -> Self {
        Self {
            requests,
            kernel_queries: KernelQueries::new(settings.open, settings.times),
            large: Arc::new(Semaphore::new(LARGE_BODIES)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            waiters: Arc::new(Semaphore::new(WAITERS)),
            times: settings.times,
            totals: settings.totals,
            ends,
        }
    }

    /// Sends a request to the loop, and waits for its answer.
    pub(super) async fn ask<T>(
        &self,
        patience: Duration,
        ask: impl FnOnce(ReplySender<T>) -> DaemonRequest,
    ) -> Result<T, ApiError> {
        asking::ask(&self.requests, &self.times, patience, ask).await
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        self.ask(self.times.answer, DaemonRequest::Snapshot).await
    }

    /// Reads a body of this kind, and returns it with the place of a large one.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        kind: body::AcceptedMedia,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
        body::read(headers, body, kind, &self.large, &self.times).await
    }
}
