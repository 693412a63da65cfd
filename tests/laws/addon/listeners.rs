//! The daemon's own listeners, the provider API and that for metrics, and the ports of services.

use std::time::Duration;

use serde_json::json;
use tcpgw::addon::Dialect;
use tcpgw::config::Config;
use tcpgw::config::web::WebSettings;
use tcpgw::control::core::Order;
use tcpgw::control::own_listener::ListenerRole;
use tcpgw::control::request::{EditOrder, Refused, ServiceEdit};
use tcpgw::store::Expect;
use tcpgw::transport::Transport;
use tcpgw_core::model::State;
use tcpgw_core::problem::ProblemKind;
use tcpgw_kernel::fake::ConnectOutcome;
use tokio::sync::oneshot;

use super::{Event, FIRST, LAST, World, config};
use crate::world::clients::{PEER, take};

/// A port outside of those of resources.
const OTHER: u16 = LAST + 7;

/// Returns the configuration with this listener there.
fn listening_at(role: ListenerRole, listen: &str) -> Config {
    let mut config = config();
    let listen = listen.parse().unwrap();
    match role {
        ListenerRole::Provider => config.addon.as_mut().unwrap().listen = listen,
        ListenerRole::Web => {
            config.web = Some(WebSettings {
                listen,
                transport: Transport::Plain { behind_proxy: true },
                token: None,
            });
        }
    }
    config
}

/// Returns the service of the state file.
fn state(port: u16) -> State {
    let text = json!({"version": 1, "services": [{"name": "file", "port": port, "backends": ["10.9.8.7:80"]}]});
    tcpgw_core::model::parse(text.to_string().as_bytes()).unwrap()
}

/// A listener of the daemon is not served on the public port of a service, whose containers would get the secrets that its clients
/// send, and its port is given to no resource.
#[test]
fn a_listener_and_the_services_share_no_port() {
    for role in [ListenerRole::Provider, ListenerRole::Web] {
        let mut world = World::new();
        world.does([Event::Provision(Dialect::Scalingo, 0, 0, None)]);
        let port = world.resource(0).port;
        let only = json!({"name": "only", "port": FIRST + 3, "addresses": ["192.0.2.1"], "backends": []}).to_string();
        world.edit("only", ServiceEdit::Put(only.into_bytes()));
        world.run();
        assert_eq!(world.clients.refused, []);
        for (listen, expected) in [
            (format!("0.0.0.0:{port}"), Some("the add-on of app app-0")),
            (format!("[::]:{port}"), Some("the add-on of app app-0")),
            (format!("192.0.2.9:{port}"), Some("the add-on of app app-0")),
            (format!("127.0.0.1:{port}"), None),
            (format!("[::ffff:127.0.0.1]:{port}"), None),
            (format!("0.0.0.0:{FIRST}"), Some("service \"own\"")),
            (format!("192.0.2.1:{}", FIRST + 3), Some("service \"only\"")),
            (format!("[::]:{}", FIRST + 3), Some("service \"only\"")),
            (format!("192.0.2.9:{}", FIRST + 3), None),
            (format!("0.0.0.0:{}", FIRST + 2), None),
        ] {
            for is_read_again in [true, false] {
                world.config = listening_at(role, &listen);
                if is_read_again {
                    let now = world.time();
                    world.core.reload(world.settings(), world.config.clone(), now);
                } else {
                    world.restart();
                }
                for _ in 0..2 {
                    world.run();
                    let judged = world.core.judge_listener(role);
                    match expected {
                        Some(expected) => {
                            assert!(
                                judged.is_err_and(|why| why.contains(expected) && why.contains(role.key())),
                                "{listen}"
                            );
                        }
                        None => assert_eq!(judged, Ok(()), "{listen}"),
                    }
                    assert!(
                        world.core.problems().get(ProblemKind::HeldBack).is_none(),
                        "what is served stays"
                    );
                    world.wait(Duration::from_secs(70));
                }
            }
        }
        world.reload_with(listening_at(role, &format!("0.0.0.0:{}", FIRST + 2)));
        world.does([
            Event::Provision(Dialect::Osb, 1, 0, Some(FIRST + 2)),
            Event::Provision(Dialect::Scalingo, 2, 0, None),
        ]);
        assert!(!world.clients.known.contains_key(&1), "it is refused");
        assert_eq!(world.resource(2).port.get(), LAST);
        world.edit("only", ServiceEdit::Delete);
        world.run();
        world.does([Event::Deprovision(0), Event::Provision(Dialect::Scalingo, 3, 0, None)]);
        assert_eq!(world.resource(3).port.get(), FIRST + 3);
        // None is left, and the one of the listener is said to be in use.
        let usage = world.core.resource_list(world.time()).unwrap().ports.unwrap();
        assert_eq!((usage.used, usage.free()), (4, 0));
    }
}

/// A service that comes is refused, or held back, on the port of a listener of the daemon, whether the port may be taken over or not,
/// and also after a restart and a boot.
#[test]
fn a_service_that_comes_does_not_get_the_port_of_a_listener() {
    for role in [ListenerRole::Provider, ListenerRole::Web] {
        let mut world = World::new();
        world.reload_with(listening_at(role, &format!("0.0.0.0:{OTHER}")));
        world.run();
        // The examination finds the daemon itself there.
        world.surroundings.listening.insert(OTHER);
        for (take_over, fields) in [
            (false, json!({"port": OTHER, "backends": []})),
            (true, json!({"port": OTHER, "backends": []})),
            (true, json!({"port": OTHER, "addresses": ["192.0.2.1"], "backends": []})),
        ] {
            let (reply, mut answer) = oneshot::channel();
            let order = EditOrder {
                name: "new".into(),
                edit: ServiceEdit::Put(fields.to_string().into_bytes()),
                expect: Expect::Anything,
                take_over,
                drain: None,
                by: PEER,
            };
            world.core.order(Order::Edit(order, reply));
            world.run();
            let Some(Err(Refused::Invalid(problems))) = take(&mut answer) else {
                panic!("it is refused");
            };
            let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains(role.key()) && !found[0].contains("take-over"),
                "{found:?}"
            );
        }
        // One that moves there is refused, too, and stays where it is.
        world.edit(
            "own",
            ServiceEdit::Patch(json!({"port": OTHER}).to_string().into_bytes()),
        );
        world.run();
        assert!(matches!(world.clients.refused.pop(), Some(Refused::Invalid(_))));
        // The service of a state file is held back.
        world.file.is_named = true;
        world.file.content = Some(state(OTHER));
        let port = OTHER.try_into().unwrap();
        world.reload();
        world.tell_file();
        world.wait(Duration::from_secs(10));
        for change in ["none", "restart", "boot"] {
            match change {
                "restart" => world.restart(),
                "boot" => {
                    drop(world.kill());
                    let kernel = world.boot();
                    world.start(kernel);
                }
                _ => {}
            }
            for _ in 0..2 {
                world.run();
                assert_eq!(world.core.judge_listener(role), Ok(()), "{change}");
                let told = world.core.problems().get(ProblemKind::HeldBack);
                let told = told.unwrap_or_else(|| panic!("it is told: {change}"));
                assert!(
                    told.message.contains(role.key()) && !told.message.contains("take"),
                    "{told:?}"
                );
                assert!(
                    !matches!(world.connect_to(port), ConnectOutcome::Backend(_)),
                    "{change}"
                );
                world.wait(Duration::from_secs(70));
            }
        }
        // Where the listener has moved, the service is served.
        world.surroundings.listening.clear();
        world.reload_with(listening_at(role, "0.0.0.0:9444"));
        world.wait(Duration::from_secs(70));
        assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)));
        assert!(world.core.problems().get(ProblemKind::HeldBack).is_none());
        // It has the port then, and the listener does not get it back, also after a boot.
        world.config = listening_at(role, &format!("0.0.0.0:{OTHER}"));
        let now = world.time();
        world.core.reload(world.settings(), world.config.clone(), now);
        for change in ["none", "restart", "boot"] {
            match change {
                "restart" => world.restart(),
                "boot" => {
                    drop(world.kill());
                    let kernel = world.boot();
                    world.start(kernel);
                }
                _ => {}
            }
            assert!(world.core.judge_listener(role).is_err(), "{change}");
            world.wait(Duration::from_secs(70));
            assert!(world.core.judge_listener(role).is_err(), "{change}");
            assert!(matches!(world.connect_to(port), ConnectOutcome::Backend(_)), "{change}");
        }
    }
}

/// As long as a listener is not moved, because the new address cannot be served, no service gets the port of the old one.
#[test]
fn a_listener_that_could_not_be_moved_keeps_its_port() {
    for role in [ListenerRole::Provider, ListenerRole::Web] {
        let mut world = World::new();
        world.reload_with(listening_at(role, &format!("0.0.0.0:{OTHER}")));
        let now = world.time();
        let moved = listening_at(role, &format!("0.0.0.0:{}", OTHER + 1));
        world.core.reload(world.settings(), moved, now);
        match role {
            ListenerRole::Provider => world.core.provider_api(Err("it is in use".into()), now),
            ListenerRole::Web => world.core.web(Some("it is in use"), now),
        }
        for port in [OTHER, OTHER + 1] {
            let text = json!({"name": "new", "port": port, "backends": []}).to_string();
            world.edit("new", ServiceEdit::Put(text.into_bytes()));
            world.run();
            assert!(
                matches!(world.clients.refused.pop(), Some(Refused::Invalid(_))),
                "{port}"
            );
        }
        match role {
            ListenerRole::Provider => world.core.provider_api(Ok(()), now),
            ListenerRole::Web => world.core.web(None, now),
        }
        let text = json!({"name": "new", "port": OTHER, "backends": []}).to_string();
        world.edit("new", ServiceEdit::Put(text.into_bytes()));
        world.run();
        assert_eq!(world.clients.refused, []);
    }
}
