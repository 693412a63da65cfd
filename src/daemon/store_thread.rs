//! The thread that writes the store: acknowledged changes are on the disk, and the main loop never waits for a disk.
//!
//! Writes and queries have a queue each. A write goes before all waiting queries; a query that finds its queue full is
//! refused, and no number of queries delays a write.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::store_opening::{keep_known, open};
use super::store_work::{answer, open_or_refresh, perform};
use crate::control::storage::{Opened, Query, QueryError, WAITING, Write, WriteResult};
use crate::record::RecordedStore;
use crate::store::StoreError;
use crate::store::last_services::LastServices;

/// An order for the thread.
#[derive(Debug)]
enum StoreOrder {
    Write(Box<Write>),
    Query(Query),
    /// Moves the store's log into its file.
    Checkpoint,
}

/// Delay from a write to the move of the store's log into its file, unless writes and queries keep the thread busy. A
/// copy of the file alone, or a file that loses its log, lacks the changes of this time at most.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// The thread has ended and takes no orders any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the thread that writes the store has ended")]
pub struct Gone;

/// Handle of the thread.
pub struct StoreThread {
    writes: mpsc::Sender<Write>,
    queries: mpsc::Sender<Query>,
    thread: thread::JoinHandle<()>,
}

impl StoreThread {
    /// Opens the store and starts the thread. If the store cannot be opened, the thread refuses all orders. If it is
    /// refused as not the one that was in use before, what `recorded` knows of that one is put into `last`.
    ///
    /// # Errors
    /// Fails when no thread can be started.
    pub fn start(
        path: &Path,
        last: &mut LastServices,
        recorded: RecordedStore,
        now: Duration,
        results: mpsc::Sender<WriteResult>,
    ) -> std::io::Result<(Self, Result<Opened, StoreError>)> {
        let (store, opened) = match open(path, last, &recorded, now) {
            Ok((store, opened)) => (Ok(store), Ok(opened)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        if let Err(error) = &opened {
            keep_known(last, &recorded, error);
        }
        let mut store = store;
        let again = store.is_err().then(|| (path.to_owned(), last.clone()));
        let store_thread = Self::working(results, move |order| match order {
            StoreOrder::Write(write) => Some(match &again {
                Some((path, last)) if matches!(*write, Write::Refresh) => {
                    open_or_refresh(&mut store, path, last, &recorded)
                }
                _ => perform(&mut store, *write),
            }),
            StoreOrder::Query(query) => {
                if !query.is_abandoned() {
                    answer(&mut store, query);
                }
                None
            }
            StoreOrder::Checkpoint => {
                if let Ok(store) = &mut store
                    && let Err(error) = store.checkpoint()
                {
                    tracing::debug!("failed to move the log of the store into its file: {error}");
                }
                None
            }
        })?;
        Ok((store_thread, opened))
    }

    /// Starts a thread that runs `work` for each order, until both queues are closed or no results are wanted any
    /// more. If it panics, both queues and `results` are closed.
    fn working(
        results: mpsc::Sender<WriteResult>,
        mut work: impl FnMut(StoreOrder) -> Option<WriteResult> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (writes, mut to_write) = mpsc::channel(1);
        let (queries, mut to_read) = mpsc::channel(WAITING);
        // The runtime only waits for two queues and a time; it needs no I/O.
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let thread = thread::Builder::new().name("store".into()).spawn(move || {
            let mut checkpoint = None;
            while let Some(order) = next(&runtime, &mut to_write, &mut to_read, checkpoint) {
                match order {
                    StoreOrder::Write(_) => {
                        checkpoint = checkpoint.or_else(|| Instant::now().checked_add(CHECKPOINT_AFTER));
                    }
                    StoreOrder::Checkpoint => checkpoint = None,
                    StoreOrder::Query(_) => {}
                }
                if let Some(written) = work(order)
                    && results.blocking_send(written).is_err()
                {
                    return;
                }
            }
        })?;
        Ok(Self {
            writes,
            queries,
            thread,
        })
    }

    /// Gives the thread a write. There is one write at a time: the next one must follow the result of the one before.
    ///
    /// # Errors
    /// Fails when the thread has ended.
    pub fn write(&self, write: Write) -> Result<(), Gone> {
        self.writes.try_send(write).map_err(|error| {
            debug_assert!(matches!(error, TrySendError::Closed(_)), "one write at a time");
            Gone
        })
    }

    /// Gives the thread a query, or refuses it when too many wait.
    pub fn query(&self, query: Query) {
        match self.queries.try_send(query) {
            Ok(()) => {}
            Err(TrySendError::Full(query)) => query.refuse(QueryError::Busy),
            Err(TrySendError::Closed(query)) => query.refuse(QueryError::Gone),
        }
    }

    /// Ends the thread after the orders that it has.
    pub fn end(self) {
        drop((self.writes, self.queries));
        if self.thread.join().is_err() {
            tracing::error!("the thread that writes the store has panicked");
        }
    }
}

/// Returns the next order: a write before any query, and a checkpoint when one is due and nothing else waits; `None`
/// when the queues are closed.
fn next(
    runtime: &Runtime,
    writes: &mut mpsc::Receiver<Write>,
    queries: &mut mpsc::Receiver<Query>,
    checkpoint: Option<Instant>,
) -> Option<StoreOrder> {
    let order = async {
        tokio::select! {
            biased;
            Some(write) = writes.recv() => Some(StoreOrder::Write(Box::new(write))),
            Some(query) = queries.recv() => Some(StoreOrder::Query(query)),
            else => None,
        }
    };
    runtime.block_on(async {
        match checkpoint {
            Some(at) => tokio::time::timeout_at(at.into(), order)
                .await
                .unwrap_or(Some(StoreOrder::Checkpoint)),
            None => order.await,
        }
    })
}

#[cfg(test)]
mod tests;
