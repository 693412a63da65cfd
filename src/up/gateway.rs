//! What the daemon is asked: the app's resource, and which of its processes get connections.
//!
//! A thread of its own, so that nothing else waits for the daemon: it takes orders, and tells what came of them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::client::{Answer, Client, ClientError, Target};
use crate::model::duration;
use crate::problem::Kind;

/// How long new processes may take to answer when others are to be replaced by them.
const REPLACE: &str = "30s";
/// The same for additional ones: after that they are registered all the same, and get connections when they answer.
const ADD: &str = "10s";
/// How often the daemon is asked how far a deploy is.
const LOOK: Duration = Duration::from_millis(200);
/// After a failure, until the next attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(15);
/// How long the end of the resource is tried for.
const END: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Connections go to these, and to no others.
    Balance {
        /// For the answer.
        number: u64,
        /// Addresses and ports.
        targets: Vec<SocketAddr>,
        /// Flows of those that leave are flushed at once.
        at_once: bool,
    },
    /// Connections go to these as soon as all have answered.
    Replace(Vec<SocketAddr>),
    /// Not any more.
    Abandon,
    /// The resource goes, and with it this thread.
    End,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The gateway does as an order of this number says.
    Balanced(u64),
    /// The new ones serve.
    Switched,
    /// They do not.
    NotSwitched(String),
    /// Something to tell the user.
    Say(String),
    /// The resource is gone, or why not.
    Ended(Result<(), String>),
}

/// The resource of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What the daemon says `TCP_URL` is; `None` where the add-on is off.
    pub url: Option<String>,
    /// Its public port.
    pub port: u16,
    /// Its plan.
    pub plan: String,
}

/// Provisions the app, or finds that it is. With another plan than before the plan is changed.
///
/// # Errors
/// [`ClientError`].
pub fn provision(daemon: &Client, app: &str, plan: &str, port: Option<NonZeroU16>) -> Result<Resource, ClientError> {
    let body = json!({"plan": plan, "port": port}).to_string();
    let target = Target::of_resource(app, "");
    let answer: Value = daemon.send("PUT", target.as_str(), &[], body.into())?.json()?;
    let resource = &answer["resource"];
    let port = resource["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    Ok(Resource {
        url: resource["url"].as_str().map(crate::escape::text),
        port: port.unwrap_or_default(),
        plan: crate::escape::text(resource["plan"].as_str().unwrap_or_default()),
    })
}

/// Removes the app's resource; one that is not there is no error.
///
/// # Errors
/// [`ClientError`].
pub fn deprovision(daemon: &Client, app: &str) -> Result<(), ClientError> {
    let target = Target::of_resource(app, "");
    match daemon.send("DELETE", target.as_str(), &[], Vec::new()) {
        Ok(answer) => answer.text().map(drop),
        Err(ClientError::Refused { status: 404 | 410, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the daemon takes orders, which it does not while it starts.
///
/// # Errors
/// [`ClientError`].
pub fn wait_until_started(daemon: &Client) -> Result<(), ClientError> {
    let begin = Instant::now();
    loop {
        let told: Value = daemon.get("/v1/daemon").and_then(Answer::json)?;
        let problems = told["problems"].as_array();
        let is_starting = problems.is_some_and(|all| all.iter().any(|problem| problem["kind"] == Kind::Starting.id()));
        // Orders say why where it cannot begin at all.
        if !is_starting || begin.elapsed() >= START {
            return Ok(());
        }
        std::thread::sleep(LOOK / 4);
    }
}

/// The thread's state.
pub struct Gateway<T: Fn(News)> {
    socket: PathBuf,
    app: String,
    grace: Duration,
    orders: Receiver<Order>,
    waiting: VecDeque<Order>,
    current: Vec<SocketAddr>,
    tell: T,
    has_failed: bool,
}

/// How a deploy ended.
enum End {
    Switched,
    Failed(String),
    /// It was taken back, because there is something else to do.
    Interrupted,
}

impl<T: Fn(News)> Gateway<T> {
    /// Returns what does the orders of an app by the daemon behind that socket. Flows of processes that leave live for `grace`.
    pub fn new(socket: PathBuf, app: String, grace: Duration, orders: Receiver<Order>, tell: T) -> Self {
        Self {
            socket,
            app,
            grace,
            orders,
            waiting: VecDeque::new(),
            current: Vec::new(),
            tell,
            has_failed: false,
        }
    }

    /// Does orders until the last.
    pub fn run(mut self) {
        while let Some(order) = self.next() {
            match order {
                Order::Balance {
                    number,
                    targets,
                    at_once,
                } => {
                    if self.balance(&targets, at_once) {
                        (self.tell)(News::Balanced(number));
                    }
                }
                Order::Replace(targets) => match self.replace(&targets) {
                    Ok(End::Switched) => {
                        // What was said of the old ones meanwhile is out of date.
                        self.waiting.retain(|order| !matches!(order, Order::Balance { .. }));
                        (self.tell)(News::Switched);
                    }
                    Ok(End::Failed(why)) => (self.tell)(News::NotSwitched(why)),
                    Ok(End::Interrupted) => {}
                    Err(error) => (self.tell)(News::NotSwitched(error.to_string())),
                },
                Order::Abandon => {}
                Order::End => {
                    (self.tell)(News::Ended(self.end()));
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Option<Order> {
        let order = self.waiting.pop_front();
        order.or_else(|| self.orders.recv().ok())
    }

    /// Takes what has been ordered meanwhile.
    fn look(&mut self, time: Duration) {
        match self.orders.recv_timeout(time) {
            Ok(order) => self.waiting.push_back(order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.waiting.push_back(Order::End),
        }
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.waiting.push_back(order),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Whether it is so; not if something else is to be done before.
    fn balance(&mut self, targets: &[SocketAddr], at_once: bool) -> bool {
        loop {
            match self.try_balance(targets, at_once) {
                Ok(done) => {
                    self.has_failed = false;
                    return done;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.has_failed, true) {
                        let why = format!("the gateway was not told where connections go, and is told again: {error}");
                        (self.tell)(News::Say(why));
                    }
                    self.look(PAUSE);
                    if !self.waiting.is_empty() {
                        return false;
                    }
                }
            }
        }
    }

    fn try_balance(&mut self, targets: &[SocketAddr], at_once: bool) -> Result<bool, ClientError> {
        let daemon = Client::connect(&self.socket)?;
        let is_added = targets.iter().any(|target| !self.current.contains(target));
        if is_added {
            match self.deploy(&daemon, targets, ADD)? {
                End::Switched => return Ok(true),
                End::Interrupted => return Ok(false),
                End::Failed(why) => (self.tell)(News::Say(format!(
                    "not every {tcp} process answers yet ({why}); each gets connections when it does: it has to listen on \
                     0.0.0.0:$PORT",
                    tcp = super::supervisor::TCP
                ))),
            }
        }
        let words: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let time = if at_once { Duration::ZERO } else { self.grace };
        let drain = duration::show(time);
        let target = Target::of_service(&self.service(), "").with("drain", Some(&drain));
        let body = json!({"backends": words}).to_string();
        daemon.send("PATCH", target.as_str(), &[], body.into())?.text()?;
        self.current = targets.to_vec();
        Ok(true)
    }

    fn replace(&mut self, targets: &[SocketAddr]) -> Result<End, ClientError> {
        let daemon = Client::connect(&self.socket)?;
        self.deploy(&daemon, targets, REPLACE)
    }

    fn deploy(&mut self, daemon: &Client, targets: &[SocketAddr], timeout: &str) -> Result<End, ClientError> {
        let words: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let body = json!({
            "targets": words,
            "timeout": timeout,
            "drain_timeout": duration::show(self.grace),
        });
        let target = Target::of_service(&self.service(), "/deploys");
        let mut deploy: Value = daemon.post(target.as_str(), body.to_string().into())?.json()?;
        let id = deploy["id"].as_u64().unwrap_or_default();
        let is_replacing = timeout == REPLACE;
        loop {
            match deploy["phase"].as_str().unwrap_or_default() {
                "switched" | "drained" => {
                    self.current = targets.to_vec();
                    return Ok(End::Switched);
                }
                "failed" | "undone" => {
                    let why = deploy["reason"].as_str().unwrap_or("no reason is known");
                    return Ok(End::Failed(crate::escape::text(why)));
                }
                _ => {}
            }
            self.look(LOOK);
            let ends = |order: &Order| match order {
                Order::Balance { .. } => !is_replacing,
                Order::Replace(_) | Order::Abandon | Order::End => true,
            };
            if self.waiting.iter().any(ends) {
                // Too late is no harm: what is to be done now says where connections go.
                let _ = daemon.post(&format!("/v1/deploys/{id}/undo"), Vec::new());
                return Ok(End::Interrupted);
            }
            deploy = daemon.get(&format!("/v1/deploys/{id}"))?.json()?;
        }
    }

    fn end(&self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let ended = Client::connect(&self.socket).and_then(|daemon| deprovision(&daemon, &self.app));
            match ended {
                Ok(()) => return Ok(()),
                Err(error) if begin.elapsed() >= END => return Err(error.to_string()),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn service(&self) -> String {
        format!("app:{}", self.app)
    }
}

/// Returns the process number of the daemon.
///
/// # Errors
/// [`ClientError`].
pub fn process_of(daemon: &Client) -> Result<Option<u32>, ClientError> {
    let told: Value = daemon.get("/v1/daemon").and_then(Answer::json)?;
    Ok(told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
}

/// Returns how many services the daemon has.
///
/// # Errors
/// [`ClientError`].
pub fn services_of(daemon: &Client) -> Result<usize, ClientError> {
    let told: Value = daemon.get("/v1/services").and_then(Answer::json)?;
    Ok(told["services"].as_array().map_or(0, Vec::len))
}
