//! State that the handlers of the routes share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::error::ApiError;
use super::kernel_queries::KernelQueries;
use super::limits::{
    FOLLOWERS, KERNEL_QUERIES, LARGE_BODIES, READ_ONLY_KERNEL_QUERIES, READ_ONLY_QUESTIONS, Times, WAITERS,
};
use super::settings::{ApiSettings, SocketScope};
use super::{body, loop_request};
use crate::control::reply::ReplySender;
use crate::control::request::DaemonRequest;
use crate::traffic::totals::TotalsSource;
use crate::view::snapshot::Snapshot;
use crate::view::snapshot_parts::SnapshotParts;

/// State that handlers share.
#[derive(Clone)]
pub(super) struct ApiState {
    requests: mpsc::Sender<DaemonRequest>,
    /// Places of questions to the loop; `None`: as many as its queue has.
    questions: Option<Arc<Semaphore>>,
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
        let (questions, kernel_queries) = match settings.scope {
            SocketScope::Full => (None, KERNEL_QUERIES),
            SocketScope::ReadOnly => (
                Some(Arc::new(Semaphore::new(READ_ONLY_QUESTIONS))),
                READ_ONLY_KERNEL_QUERIES,
            ),
        };
        Self {
            requests,
            questions,
            kernel_queries: KernelQueries::new(
                settings.open,
                settings.descriptors.kernel_queries(kernel_queries),
                settings.times,
            ),
            large: Arc::new(Semaphore::new(LARGE_BODIES)),
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
            waiters: Arc::new(Semaphore::new(WAITERS)),
            times: settings.times,
            totals: settings.totals,
            ends,
        }
    }

    /// Sends a request to the loop, and waits for its answer.
    pub(super) async fn request<T>(
        &self,
        patience: Duration,
        request: impl FnOnce(ReplySender<T>) -> DaemonRequest,
    ) -> Result<T, ApiError> {
        let _place = match &self.questions {
            None => None,
            Some(places) => match timeout(self.times.place, places.acquire()).await {
                Ok(Ok(place)) => Some(place),
                _ => return Err(ApiError::busy("others ask the daemon too much by the read-only socket")),
            },
        };
        loop_request::send(&self.requests, &self.times, patience, request).await
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, ApiError> {
        let parts = self.snapshot_parts().await?;
        // Those of many services would delay the main loop, which this thread has, too.
        let assembled = tokio::task::spawn_blocking(move || parts.assemble()).await;
        assembled.map_err(|_| ApiError::failed("the thread that puts a snapshot together has died"))
    }

    /// Returns what of a snapshot is known at once.
    pub(super) async fn snapshot_parts(&self) -> Result<SnapshotParts, ApiError> {
        self.request(self.times.answer, DaemonRequest::Snapshot).await
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
