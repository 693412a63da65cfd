use super::*;
use std::sync::Arc;

fn state(text: &str) -> State {
    let text = format!(r#"{{"version": 1, "services": [{text}]}}"#);
    tcpgw_core::model::parse(text.as_bytes()).unwrap()
}

const OWN: &str = r#"{"name": "own", "port": 20005, "backends": ["10.2.0.11:3000", "10.2.0.12:3000"]}"#;

fn settled(owner: Owner, found: &str, beside: &str, prune: bool) -> (Result<Others, String>, State) {
    let found = state(found).services;
    let found = found.iter().map(|service| {
        let adopted = AdoptedService {
            serving: Service::clone(service),
            wanted: Service::clone(service),
            owner: Some(owner),
            is_whole: true,
            is_suspended: false,
        };
        (owner, adopted)
    });
    let mut state = state(beside);
    let others = Others::settle(found, &BTreeMap::new(), &mut state, prune).map_err(|problems| problems.to_string());
    (others, state)
}

#[test]
fn an_endpoint_is_shared_with_a_service_of_the_api() {
    let web = r#"{"name": "web", "port": 20003, "backends": ["10.2.0.11:3000"]}"#;
    let others = settled(Owner::Api, OWN, web, false).0.unwrap();
    assert_eq!(others.services, [Service::clone(&state(OWN).services[0])]);
    assert_eq!(others.displaced, Vec::<String>::new());
}

/// The kernel has lost the services of the API, and a daemon that starts will serve them, so their ports are still taken.
#[test]
fn a_port_of_the_api_is_taken_on_a_machine_that_has_booted_too() {
    let last = LastServices {
        boot: "earlier".into(),
        services: vec![(Owner::Api, Arc::clone(&state(OWN).services[0]))],
        ..LastServices::default()
    };
    let port = r#"{"name": "web", "port": 20005, "backends": ["10.2.0.12:3000"]}"#;
    let mut web = state(port);
    assert_eq!(waiting(&last, &[], &web), [(Owner::Api, "own".into())]);
    let nothing = BTreeSet::new();
    let defined = said_through_api(&last, &[], &nothing, "now").map(|of| (of.name.clone(), Service::clone(of)));
    let defined: BTreeMap<Box<str>, Service> = defined.collect();
    let refused = Others::settle([].into_iter(), &defined, &mut web, false).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("port 20005 is already taken by service \"own\""),
        "{refused}"
    );
    Others::settle([].into_iter(), &defined, &mut web, true).unwrap();
    // In the boot that served it, it was removed.
    assert_eq!(said_through_api(&last, &[], &BTreeSet::new(), "earlier").count(), 0);
    // The kernel may have lost the services because the table was removed.
    let not_held = BTreeSet::from(["own".into()]);
    assert_eq!(said_through_api(&last, &[], &not_held, "earlier").count(), 1);
}

/// The kernel does not show the backends of a suspended service of the API.
#[test]
fn what_a_suspended_service_has_is_not_replaced() {
    let suspended = r#"{"name": "own", "port": 20005, "backends": []}"#;
    let wanted = state(OWN);
    let wanted = [("own".into(), Service::clone(&wanted.services[0]))].into();
    let adopted = || {
        let serving = Service::clone(&state(suspended).services[0]);
        (
            Owner::Api,
            AdoptedService {
                wanted: serving.clone(),
                serving,
                owner: Some(Owner::Api),
                is_whole: true,
                is_suspended: true,
            },
        )
    };
    let settle = |found: Vec<(Owner, AdoptedService)>, beside: &str| {
        let mut state = state(beside);
        let settled = Others::settle(found.into_iter(), &wanted, &mut state, false);
        settled
            .map(|_| state.services.len())
            .map_err(|problems| problems.to_string())
    };
    let other = r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#;
    let same = r#"{"name": "web", "port": 20003, "backends": ["10.2.0.12:3000"]}"#;
    // Also when it is held back, and not in the kernel at all.
    for found in [vec![adopted()], Vec::new()] {
        let refused = settle(found.clone(), other).unwrap_err();
        assert_eq!(
            refused.matches("10.2.0.12:3000 is also a backend").count(),
            1,
            "{refused}"
        );
        settle(found.clone(), same).unwrap();
        // The same definition leaves a service to the API, or serves it if it is not served.
        let is_held = !found.is_empty();
        assert_eq!(settle(found, OWN).unwrap(), usize::from(!is_held));
    }
}

#[test]
fn a_service_of_the_api_is_not_replaced() {
    for (beside, why) in [
        (
            r#"{"name": "own", "port": 20009, "backends": ["10.2.0.13:3000"]}"#,
            "service \"own\": is a service of the daemon's API",
        ),
        (
            r#"{"name": "web", "port": 20005, "backends": ["10.2.0.13:3000"]}"#,
            "service \"web\": port 20005 is already taken by service \"own\"",
        ),
        (
            r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#,
            "service \"web\": 10.2.0.12:3000 is also a backend of service \"own\"",
        ),
    ] {
        let refused = settled(Owner::Api, OWN, beside, false).0.unwrap_err();
        assert!(
            refused.contains(why) && refused.contains("tcpgw service set own"),
            "{refused}"
        );
        let (pruned, _) = settled(Owner::Api, OWN, beside, true);
        let pruned = pruned.unwrap();
        assert_eq!(pruned.services, []);
        assert_eq!(pruned.pruned, [(Owner::Api, "own".into())]);
    }
}

/// Warnings name the services that are removed, the provider that brings them back, and the way to remove them for good.
#[test]
fn services_that_a_daemon_serves_again_are_warned_of() {
    for (owner, stays, comes_back) in [
        (
            Owner::Docker,
            "1 service of Docker's containers stays: own; --prune removes it",
            "a daemon that starts serves services of Docker's containers again: own; they end when their containers are removed",
        ),
        (
            Owner::Api,
            "1 service of the daemon's API stays: own; --prune removes it",
            "a daemon that starts serves its API's services again: own; `tcpgw service rm NAME` removes them for good",
        ),
    ] {
        let web = r#"{"name": "web", "port": 20003, "backends": ["10.2.0.13:3000"]}"#;
        for (prune, warning) in [(false, stays), (true, comes_back)] {
            let (others, _) = settled(owner, OWN, web, prune);
            assert_eq!(others.unwrap().warnings(), [warning]);
        }
    }
    let (others, _) = settled(Owner::Orphan, OWN, "", true);
    assert_eq!(others.unwrap().warnings(), Vec::<String>::new());
}

/// An export that is applied again leaves the services to the API.
#[test]
fn what_says_the_same_leaves_it_to_the_api() {
    let (others, left) = settled(Owner::Api, OWN, OWN, false);
    let others = others.unwrap();
    assert_eq!(others.services.len(), 1);
    assert_eq!(others.details["own"].owner, Owner::Api);
    assert_eq!(left.services, []);
}

#[test]
fn what_a_state_takes_from_an_orphan_is_said() {
    let port = r#"{"name": "web", "port": 20005, "backends": []}"#;
    let others = settled(Owner::Orphan, OWN, port, false).0.unwrap();
    assert!(
        others.services.is_empty() && others.displaced[0].contains("\"web\" listens there"),
        "{others:?}"
    );
    let limit = r#"{"name": "web", "port": 20003, "limit": {"pps": 9}, "backends": ["10.2.0.12:3000"]}"#;
    let others = settled(Owner::Orphan, OWN, limit, false).0.unwrap();
    assert_eq!(others.services[0].backends.len(), 1);
    assert!(others.displaced[0].contains("10.2.0.12:3000"), "{others:?}");
    // The state defines another service of the same name.
    let name = r#"{"name": "own", "port": 20006, "backends": []}"#;
    let others = settled(Owner::Orphan, OWN, name, false).0.unwrap();
    assert!(others.services.is_empty() && others.displaced.is_empty(), "{others:?}");
}
