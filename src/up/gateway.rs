//! Requests to the daemon: the app's resource, and the processes of the app that get connections.
//!
//! Runs in its own thread, so that nothing else waits for the daemon: it takes requests, and reports their results as events.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use serde_json::json;

use super::owner::{self, UpOwner};
use crate::api::answers::{DaemonAnswer, DeployAnswer, ResourceAnswer, ServiceList};
use crate::api::client::{Client, ClientError, DaemonResponse, RequestTarget};
use tcpgw_core::model::duration;

/// Maximum time for new processes to answer, when they replace others.
const REPLACE: &str = "30s";
/// Maximum time for additional processes to answer: after that they are registered all the same, and get connections when they
/// answer.
const ADD: &str = "10s";
/// Interval between questions about the progress of a deploy.
const PROGRESS: Duration = Duration::from_millis(200);
/// Pause after a failure, until the next attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// Maximum time to wait for a daemon to start.
const START: Duration = Duration::from_secs(15);
/// Time for which the removal of the resource is tried.
const END: Duration = Duration::from_secs(5);

/// A request to the gateway's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayRequest {
    /// Make these the backends of the app's service.
    Balance {
        /// Number of the request, for the answer.
        number: u64,
        /// Addresses and ports of the backends.
        targets: Vec<SocketAddr>,
        /// Whether flows of backends that leave are flushed at once.
        at_once: bool,
    },
    /// Replace the backends by these as soon as all have answered a handshake.
    Replace(Vec<SocketAddr>),
    /// Give up the replacement that is under way.
    Abandon,
    /// Remove the resource of the app, and end the thread.
    End,
}

/// Result or progress of a request to the gateway's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEvent {
    /// The backends are those of a request.
    Balanced {
        /// Number of the request.
        number: u64,
        /// Message for the user if not all backends have answered a handshake in time. They get connections when they answer.
        unanswered: Option<String>,
    },
    /// The latest request could not be given to the daemon, for this reason; it is sent again.
    NotTold(String),
    /// The replacement is done: new connections go to the new backends.
    Switched,
    /// The replacement failed, for this reason; connections go where they went before.
    NotSwitched(String),
    /// A line for the user.
    Say(String),
    /// The resource was removed, or why it could not be.
    Ended(Result<(), String>),
}

/// The resource of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppResource {
    /// Value of `TCP_URL`; `None`: the add-on is off.
    pub url: Option<String>,
    /// Its public port.
    pub port: u16,
    /// Plan of the resource.
    pub plan: String,
    /// The name of its service.
    pub service: String,
}

/// Provisions the app, unless it is provisioned already. Changes the plan if it is another one.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses because it has no add-on, no such plan, or no free port.
pub fn provision(daemon: &Client, app: &str, plan: &str, port: Option<NonZeroU16>) -> Result<AppResource, ClientError> {
    let body = json!({"plan": plan, "port": port}).to_string();
    let target = RequestTarget::of_resource(app, "");
    let answer: ResourceAnswer = daemon.send("PUT", target.as_str(), &[], body.into())?.json()?;
    let resource = answer
        .resource
        .ok_or_else(|| daemon.odd("it provisioned no resource"))?;
    Ok(AppResource {
        url: resource.url.as_deref().map(tcpgw_core::escape::text),
        port: resource.port.get(),
        plan: tcpgw_core::escape::text(resource.plan.as_str()),
        service: resource.service,
    })
}

/// Labels the app's service with its owner.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses.
pub fn label(daemon: &Client, app: &str, owner: &UpOwner) -> Result<(), ClientError> {
    let body = json!({"labels": {owner::LABEL: owner.to_string()}}).to_string();
    let target = RequestTarget::of_service(&format!("app:{app}"), "");
    daemon
        .send("PATCH", target.as_str(), &[], body.into())?
        .text()
        .map(drop)
}

/// Removes the app's resource; one that is not there is no error.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses for another reason than that there is no resource.
pub fn deprovision(daemon: &Client, app: &str) -> Result<(), ClientError> {
    let target = RequestTarget::of_resource(app, "");
    match daemon.send("DELETE", target.as_str(), &[], Vec::new()) {
        Ok(answer) => answer.text().map(drop),
        Err(ClientError::Refused { status: 404 | 410, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the daemon takes orders, which it does not while it starts.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses.
pub fn wait_until_started(daemon: &Client) -> Result<(), ClientError> {
    let begin = Instant::now();
    loop {
        let is_starting = self::daemon(daemon)?.is_starting();
        // Orders say why where it cannot begin at all.
        if !is_starting || begin.elapsed() >= START {
            return Ok(());
        }
        std::thread::sleep(PROGRESS / 4);
    }
}

/// The thread's state.
pub struct GatewayThread<T: Fn(GatewayEvent)> {
    socket: PathBuf,
    app: String,
    grace: Duration,
    orders: Receiver<GatewayRequest>,
    waiting: VecDeque<GatewayRequest>,
    current: Vec<SocketAddr>,
    tell: T,
    has_failed: bool,
}

/// Result of a [`GatewayRequest::Balance`].
enum BalanceOutcome {
    /// The backends are these; `unanswered` as in [`GatewayEvent::Balanced`].
    Balanced { unanswered: Option<String> },
    /// Another request came before.
    Interrupted,
}

/// Result of a deploy.
enum DeployOutcome {
    Switched,
    Failed(String),
    /// The deploy was undone, because another request came.
    Interrupted,
}

impl<T: Fn(GatewayEvent)> GatewayThread<T> {
    /// Returns the gateway of an app, which carries out its requests by the daemon behind that socket. Flows of processes that
    /// leave live for `grace`.
    pub fn new(socket: PathBuf, app: String, grace: Duration, orders: Receiver<GatewayRequest>, tell: T) -> Self {
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

    /// Carries out requests until [`GatewayRequest::End`].
    pub fn run(mut self) {
        while let Some(order) = self.next() {
            match order {
                GatewayRequest::Balance {
                    number,
                    targets,
                    at_once,
                } => {
                    if let BalanceOutcome::Balanced { unanswered } = self.balance(&targets, at_once) {
                        (self.tell)(GatewayEvent::Balanced { number, unanswered });
                    }
                }
                GatewayRequest::Replace(targets) => match self.replace(&targets) {
                    Ok(DeployOutcome::Switched) => {
                        // Requests about the old backends that came meanwhile are out of date.
                        self.waiting
                            .retain(|order| !matches!(order, GatewayRequest::Balance { .. }));
                        (self.tell)(GatewayEvent::Switched);
                    }
                    Ok(DeployOutcome::Failed(why)) => (self.tell)(GatewayEvent::NotSwitched(why)),
                    Ok(DeployOutcome::Interrupted) => {}
                    Err(error) => (self.tell)(GatewayEvent::NotSwitched(error.to_string())),
                },
                GatewayRequest::Abandon => {}
                GatewayRequest::End => {
                    (self.tell)(GatewayEvent::Ended(self.end()));
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Option<GatewayRequest> {
        let order = self.waiting.pop_front();
        order.or_else(|| self.orders.recv().ok())
    }

    /// Collects requests that come within this time.
    fn collect(&mut self, time: Duration) {
        match self.orders.recv_timeout(time) {
            Ok(order) => self.waiting.push_back(order),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.waiting.push_back(GatewayRequest::End),
        }
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.waiting.push_back(order),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Makes these the backends, and tries again until that has succeeded or another request comes.
    fn balance(&mut self, targets: &[SocketAddr], at_once: bool) -> BalanceOutcome {
        loop {
            match self.try_balance(targets, at_once) {
                Ok(outcome) => {
                    self.has_failed = false;
                    return outcome;
                }
                Err(error) => {
                    (self.tell)(GatewayEvent::NotTold(error.to_string()));
                    if !std::mem::replace(&mut self.has_failed, true) {
                        let why = format!(
                            "failed to tell the gateway which processes get connections, and trying again: {error}"
                        );
                        (self.tell)(GatewayEvent::Say(why));
                    }
                    self.collect(PAUSE);
                    if !self.waiting.is_empty() {
                        return BalanceOutcome::Interrupted;
                    }
                }
            }
        }
    }

    fn try_balance(&mut self, targets: &[SocketAddr], at_once: bool) -> Result<BalanceOutcome, ClientError> {
        let daemon = Client::connect(&self.socket)?;
        let mut unanswered = None;
        let is_added = targets.iter().any(|target| !self.current.contains(target));
        if is_added {
            match self.deploy(&daemon, targets, ADD)? {
                DeployOutcome::Switched => return Ok(BalanceOutcome::Balanced { unanswered: None }),
                DeployOutcome::Interrupted => return Ok(BalanceOutcome::Interrupted),
                DeployOutcome::Failed(why) => {
                    let text = format!(
                        "not every {tcp} process answers yet ({why}); each gets connections when it does: it has to \
                         listen on 0.0.0.0:$PORT",
                        tcp = super::supervisor::TCP
                    );
                    (self.tell)(GatewayEvent::Say(text.clone()));
                    unanswered = Some(text);
                }
            }
        }
        let words: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let time = if at_once { Duration::ZERO } else { self.grace };
        let drain = duration::show(time);
        let target = RequestTarget::of_service(&self.service(), "").with("drain", Some(&drain));
        let body = json!({"backends": words}).to_string();
        daemon.send("PATCH", target.as_str(), &[], body.into())?.text()?;
        self.current = targets.to_vec();
        Ok(BalanceOutcome::Balanced { unanswered })
    }

    fn replace(&mut self, targets: &[SocketAddr]) -> Result<DeployOutcome, ClientError> {
        let daemon = Client::connect(&self.socket)?;
        self.deploy(&daemon, targets, REPLACE)
    }

    fn deploy(&mut self, daemon: &Client, targets: &[SocketAddr], timeout: &str) -> Result<DeployOutcome, ClientError> {
        let words: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let body = json!({
            "targets": words,
            "timeout": timeout,
            "drain_timeout": duration::show(self.grace),
        });
        let target = RequestTarget::of_service(&self.service(), "/deploys");
        let mut deploy: DeployAnswer = daemon.post(target.as_str(), body.to_string().into())?.json()?;
        let id = deploy.id;
        let is_replacing = timeout == REPLACE;
        loop {
            if deploy.has_failed() {
                let why = deploy.reason.as_deref().unwrap_or("no reason is known");
                return Ok(DeployOutcome::Failed(tcpgw_core::escape::text(why)));
            }
            if deploy.has_switched() {
                self.current = targets.to_vec();
                return Ok(DeployOutcome::Switched);
            }
            self.collect(PROGRESS);
            let ends = |order: &GatewayRequest| match order {
                GatewayRequest::Balance { .. } => !is_replacing,
                GatewayRequest::Replace(_) | GatewayRequest::Abandon | GatewayRequest::End => true,
            };
            if self.waiting.iter().any(ends) {
                // Too late is no harm: what is to be done now says where connections go.
                let _ = daemon.post(&format!("/v1/deploys/{id}/undo"), Vec::new());
                return Ok(DeployOutcome::Interrupted);
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
                Err(_) => std::thread::sleep(PROGRESS),
            }
        }
    }

    fn service(&self) -> String {
        format!("app:{}", self.app)
    }
}

/// Returns what the daemon reports about itself.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses.
pub fn daemon(daemon: &Client) -> Result<DaemonAnswer, ClientError> {
    daemon.get("/v1/daemon").and_then(DaemonResponse::json)
}

/// Returns the number of the daemon's services.
///
/// # Errors
/// Fails when the daemon does not answer, or refuses.
pub fn services_of(daemon: &Client) -> Result<usize, ClientError> {
    let list: ServiceList = daemon.get("/v1/services").and_then(DaemonResponse::json)?;
    Ok(list.services.len())
}
