//! Checks against the gateway itself before anything is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::arguments::FileArgument;
use super::failure::Failure;
use super::gateway::Gateway;
use super::global::Global;
use crate::config::Config;
use crate::control::obstacle::{Obstacle, add_own_listeners};
use crate::control::own_listener::OwnListener;
use crate::preflight;
use tcpgw_core::model::{Service, State};
use tcpgw_core::summary::Summary;

/// Returns the obstacles to serving services here, except listeners; warns of obstacles that do not keep services from being
/// served.
pub(super) fn obstacles(global: &Global, gateway: &mut Gateway, state: &State) -> Result<Vec<Obstacle>, Failure> {
    let obstacles = preflight::obstacles(&mut gateway.routes, state)?;
    for warning in preflight::warnings(&mut gateway.routes, state)? {
        global.warn(&warning);
    }
    Ok(obstacles)
}

/// Fails when there are obstacles.
pub(super) fn refuse(file: &FileArgument, obstacles: &[Obstacle]) -> Result<(), Failure> {
    let problems = obstacles.iter().map(|obstacle| obstacle.problem.clone()).collect();
    tcpgw_core::model::InputProblems::into_result(problems).map_err(|problems| Failure::Invalid {
        file: file.file.clone(),
        problems,
    })
}

/// Returns new services on ports where a local program listens, or a daemon will by the configuration.
pub(super) fn listeners(
    state: &State,
    config: &Config,
    known: &Summary,
    take_over: bool,
) -> Result<Vec<Obstacle>, Failure> {
    let is_known = |service: &_| take_over || known.has_listen_key(service);
    let mut taken = preflight::taken_ports(state, &is_known)?;
    for service in state.services.iter().filter(|service| !known.has_listen_key(service)) {
        add_own_listeners(service, OwnListener::configured(config), &mut taken);
    }
    Ok(taken)
}

/// Fails when a port is taken.
pub(super) fn refuse_taken(taken: &[Obstacle]) -> Result<(), Failure> {
    let lines: Vec<String> = taken.iter().map(|taken| taken.message_with("--take-over")).collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(Failure::Refused(lines.join("\n")))
    }
}

/// The part of a state that can be served, and the services that are held back.
pub(super) struct Possible {
    /// The state without the services that are held back, but with their definitions that are in effect already, or were before
    /// the machine booted.
    pub(super) state: State,
    /// Names of the services that are held back.
    pub(super) held: BTreeSet<Box<str>>,
}

/// Returns the part of a state that can be served; `None`: all of it can. Warns of each service that is held back. `before`:
/// services as [`Others::before`](super::others::Others::before) returns them.
pub(super) fn possible(
    global: &Global,
    state: &State,
    obstacles: impl Iterator<Item = Obstacle>,
    known: &Summary,
    before: &[Arc<Service>],
) -> Option<Possible> {
    let (possible, held_back) = preflight::possible(state, obstacles, known, before);
    for obstacle in &held_back {
        let name = &obstacle.service;
        let is_kept = possible.get(name).is_some();
        let meanwhile = if is_kept { " (and served as before)" } else { "" };
        global.warn(&format_args!(
            "held back{meanwhile}: {}",
            obstacle.message_with("--take-over")
        ));
    }
    let held: BTreeSet<Box<str>> = held_back.into_iter().map(|obstacle| obstacle.service).collect();
    (!held.is_empty()).then_some(Possible { state: possible, held })
}

/// Returns the services that no obstacle keeps from being served here.
pub(super) fn unhindered(
    gateway: &mut Gateway,
    config: &Config,
    mut services: Vec<Arc<Service>>,
    known: &Summary,
    take_over: bool,
) -> Result<Vec<Arc<Service>>, Failure> {
    services.retain(|service| config.check_service(service).next().is_none());
    let state = State { services };
    let obstacles = preflight::obstacles(&mut gateway.routes, &state)?;
    let taken = listeners(&state, config, known, take_over)?;
    let hindered: BTreeSet<Box<str>> = obstacles.into_iter().chain(taken).map(|of| of.service).collect();
    let State { mut services } = state;
    services.retain(|service| !hindered.contains(&service.name));
    Ok(services)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Without a daemon, a service on the port of a daemon that will start is refused, whether ports may be taken over or not.
    #[test]
    fn a_service_does_not_get_the_port_of_a_listener_of_the_daemon() {
        let config = "[web]\nlisten = '0.0.0.0:9464'\ntoken_file = '/nowhere'\nbehind_proxy = true";
        let config = Config::parse(Path::new("config.toml"), config.as_bytes()).unwrap();
        let services = [("a", 9464), ("b", 9465)];
        let services = services.map(|(name, port)| serde_json::json!({"name": name, "port": port, "backends": []}));
        let text = serde_json::json!({"version": 1, "services": services}).to_string();
        let state = tcpgw_core::model::parse(text.as_bytes()).unwrap();
        let taken = listeners(&state, &config, &Summary::default(), true).unwrap();
        let Err(Failure::Refused(told)) = refuse_taken(&taken) else {
            panic!("it is refused");
        };
        assert!(
            told.starts_with("service \"a\": port 9464 is that of web.listen"),
            "{told}"
        );
        assert!(!told.contains('\n') && !told.contains("take-over"), "{told}");
        // What is served there stays.
        let known = Summary::from(&state);
        assert_eq!(listeners(&state, &config, &known, true).unwrap(), []);
    }
}
