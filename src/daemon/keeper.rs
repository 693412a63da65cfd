//! The thread that writes the store: what is acknowledged is on the disk, and the loop never waits for one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self as orders, TrySendError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc as results;

use super::ask::Reply;
use crate::model::{Service, parse_service};
use crate::store::{By, Change, Committed, Deploy, HistoryEntry, HistoryFilter, Loaded, NewDeploy, Store, StoreError};

/// Orders that may wait.
const WAITING: usize = 64;

/// One thing to do.
#[derive(Debug)]
pub enum Write {
    /// Change services.
    Change(Change, By, Duration),
    /// Note that a deploy begins.
    Begin(NewDeploy, By, Duration),
    /// Note how a deploy goes on.
    Step(crate::store::DeployStep, Duration),
    /// After a failure: see whether it can be written again, and what it holds.
    Refresh,
}

/// What it came to.
#[derive(Debug)]
pub enum Written {
    /// Of [`Write::Change`].
    Changed(Result<Committed, StoreError>),
    /// Of [`Write::Begin`]: its id.
    Began(Result<u64, StoreError>),
    /// Of [`Write::Step`].
    Stepped(Result<(), StoreError>),
    /// Of [`Write::Refresh`].
    Refreshed(Result<Opened, StoreError>),
}

/// What is only read.
#[derive(Debug)]
pub enum Query {
    /// What changed.
    History(HistoryFilter, Reply<Result<Vec<HistoryEntry>, StoreError>>),
    /// One deploy.
    Deploy(u64, Reply<Result<Option<Deploy>, StoreError>>),
    /// Deploys of a service, or all; so many at most.
    Deploys(Option<String>, usize, Reply<Result<Vec<Deploy>, StoreError>>),
}

/// Opens a store and reads what it holds.
///
/// # Errors
/// [`StoreError`]; a store that can be read and not written is no error.
pub fn open(path: &Path) -> Result<(Store, Opened), StoreError> {
    let mut store = Store::open(path)?;
    let opened = read(&mut store)?;
    Ok((store, opened))
}

fn read(store: &mut Store) -> Result<Opened, StoreError> {
    Ok(Opened {
        loaded: store.load()?,
        unfinished: unfinished(store)?,
        trouble: store.trouble().cloned(),
    })
}

fn refresh(store: &mut Store) -> Result<Opened, StoreError> {
    read(store)?;
    store.probe()?;
    read(store)
}

/// What was before a switch is in the history: it is written with the switch.
fn unfinished(store: &mut Store) -> Result<Vec<Unfinished>, StoreError> {
    let deploys = store.unfinished_deploys()?.into_iter();
    let with_before = deploys.map(|deploy| {
        let filter = HistoryFilter {
            service: Some(deploy.service.clone()),
            deploy: Some(deploy.id),
            limit: 1,
            ..HistoryFilter::default()
        };
        let entry = store.history(&filter)?.pop();
        let before = entry.and_then(|entry| entry.old);
        let before = before.and_then(|old| parse_service(old.get().as_bytes()).ok());
        Ok(Unfinished { deploy, before })
    });
    with_before.collect()
}

impl Query {
    /// Whoever asked may be gone.
    fn refuse(self, error: &StoreError) {
        let error = error.clone();
        match self {
            Self::History(_, reply) => drop(reply.send(Err(error))),
            Self::Deploy(_, reply) => drop(reply.send(Err(error))),
            Self::Deploys(_, _, reply) => drop(reply.send(Err(error))),
        }
    }
}

enum Order {
    Write(Write),
    Query(Query),
}

/// The thread, seen from the loop.
pub struct Keeper {
    path: PathBuf,
    orders: Option<orders::SyncSender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What a store holds that could be opened.
#[derive(Debug)]
pub struct Opened {
    /// The services.
    pub loaded: Loaded,
    /// Deploys that a daemon before this one has not finished.
    pub unfinished: Vec<Unfinished>,
    /// Why nothing can be written, if so.
    pub trouble: Option<StoreError>,
}

/// A deploy that is not over.
#[derive(Debug)]
pub struct Unfinished {
    /// The deploy.
    pub deploy: Deploy,
    /// Its service before it was switched, if it was.
    pub before: Option<Service>,
}

impl Keeper {
    /// Opens the store and starts the thread. Without a store there is a thread, too, which refuses everything.
    ///
    /// # Errors
    /// That no thread can be had.
    pub fn start(
        path: &Path,
        results: results::Sender<Written>,
    ) -> std::io::Result<(Self, Result<Opened, StoreError>)> {
        let (store, opened) = match open(path) {
            Ok((store, opened)) => (Ok(store), Ok(opened)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let (sender, receiver) = orders::sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || keep(store, &receiver, &results))?;
        let keeper = Self {
            path: path.to_owned(),
            orders: Some(sender),
            thread: Some(thread),
        };
        Ok((keeper, opened))
    }

    /// Writes; whether it takes the order. There is one write at a time.
    pub fn write(&self, write: Write) -> bool {
        self.order(Order::Write(write)).is_none()
    }

    /// Reads; if too many wait, whoever asked is told so.
    pub fn query(&self, query: Query) {
        if let Some(Order::Query(query)) = self.order(Order::Query(query)) {
            query.refuse(&StoreError::Io {
                path: self.path.clone(),
                what: "too many questions wait for it; ask again later".into(),
            });
        }
    }

    /// Gives it back if it is not taken.
    fn order(&self, order: Order) -> Option<Order> {
        let Some(orders) = &self.orders else {
            return Some(order);
        };
        match orders.try_send(order) {
            Ok(()) => None,
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => Some(order),
        }
    }

    /// Ends it after what it has been told.
    pub fn end(mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the store has died");
        }
    }
}

fn keep(mut store: Result<Store, StoreError>, orders: &orders::Receiver<Order>, results: &results::Sender<Written>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Write(write) => {
                if results.blocking_send(perform(&mut store, write)).is_err() {
                    return;
                }
            }
            Order::Query(query) => answer(&mut store, query),
        }
    }
}

fn with<T>(
    store: &mut Result<Store, StoreError>,
    work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match store {
        Ok(store) => work(store),
        Err(error) => Err(error.clone()),
    }
}

/// Does one thing, or says why not; without a store nothing is done.
pub fn perform(store: &mut Result<Store, StoreError>, write: Write) -> Written {
    match write {
        Write::Refresh => Written::Refreshed(with(store, refresh)),
        Write::Change(change, by, at) => Written::Changed(with(store, |store| store.commit(&change, &by, at))),
        Write::Begin(deploy, by, at) => Written::Began(with(store, |store| store.deploy_begin(&deploy, &by, at))),
        Write::Step(step, at) => Written::Stepped(with(store, |store| store.deploy_update(&step, at))),
    }
}

/// Whoever asked may be gone.
fn answer(store: &mut Result<Store, StoreError>, query: Query) {
    match query {
        Query::History(filter, reply) => drop(reply.send(with(store, |store| store.history(&filter)))),
        Query::Deploy(id, reply) => drop(reply.send(with(store, |store| store.deploy(id)))),
        Query::Deploys(service, most, reply) => {
            drop(reply.send(with(store, |store| store.deploys(service.as_deref(), most))));
        }
    }
}
