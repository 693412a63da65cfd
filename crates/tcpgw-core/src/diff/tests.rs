use super::*;

fn added(fields: &str) -> String {
    let text = format!(r#"{{"version":1,"services":[{{"name":"a","port":2000,"backends":["10.0.0.1:1"]{fields}}}]}}"#);
    let state = crate::model::parse(text.as_bytes()).expect("a valid state");
    let changes = Changes::between(&Summary::default(), &Summary::from(&state), &BTreeMap::new());
    changes.services[0].settings.join(", ")
}

#[test]
fn a_new_service_is_told_with_all_that_is_not_default() {
    assert_eq!(added(""), "client-hash");
    assert_eq!(
        added(
            r#","balance":"round-robin","limit":{"pps":5,"burst":7},"idle_timeout":"5m","on_retire":"reset","on_empty":"drop",
            "source":"preserve","allow":["192.0.2.0/24"],"deny":["192.0.2.1"]"#
        ),
        "round-robin, limit 5 packets/s, burst 7, idle_timeout 5m, on_retire reset, on_empty drop, \
         source preserve, allow 192.0.2.0/24, deny 192.0.2.1/32"
    );
}

fn summary(services: &str) -> Summary {
    let text = format!(r#"{{"version":1,"services":[{services}]}}"#);
    Summary::from(&crate::model::parse(text.as_bytes()).unwrap())
}

fn app(rest: &str) -> String {
    format!(r#"{{"name":"my-app","port":20003,{rest}}}"#)
}

fn told(old: &str, new: &str) -> Vec<String> {
    let changes = Changes::between(&summary(old), &summary(new), &BTreeMap::new());
    let changes = changes.services.iter();
    changes.map(|change| change.settings.join(", ")).collect()
}

#[test]
fn settings_change() {
    let cases = [
        (
            "\"balance\":\"client-hash\"",
            "\"balance\":\"round-robin\"",
            "balance client-hash -> round-robin",
        ),
        (
            "\"limit\":{\"pps\":10}",
            "\"limit\":{\"pps\":10,\"burst\":7,\"mtu\":9000,\"direction\":\"shared\"}",
            "limit 10 packets/s -> 10 packets/s, burst 7, mtu 9000, shared",
        ),
        ("\"limit\":{\"pps\":10}", "\"limit\":null", "limit 10 packets/s -> none"),
        ("\"max_flows\":10", "\"max_flows\":20", "max_flows 10 -> 20"),
        (
            "\"client\":{\"flows\":10}",
            "\"client\":{\"handshakes_per_second\":5}",
            "client.flows 10 -> none, client.handshakes_per_second none -> 5",
        ),
        (
            "\"idle_timeout\":\"60s\"",
            "\"idle_timeout\":\"2h\"",
            "idle_timeout 1m -> 2h",
        ),
        ("\"idle_timeout\":\"90s\"", "\"deny\":[]", "idle_timeout 90s -> none"),
        (
            "\"on_retire\":\"drop\"",
            "\"on_retire\":\"reset\"",
            "on_retire drop -> reset",
        ),
        (
            "\"on_empty\":\"reset\"",
            "\"on_empty\":\"drop\"",
            "on_empty reset -> drop",
        ),
        (
            "\"source\":\"preserve\"",
            "\"source\":\"masquerade\"",
            "source preserve -> masquerade",
        ),
        (
            "\"source_addresses\":[\"10.2.0.2\",\"10.2.0.1\"]",
            "\"source_addresses\":[\"10.2.0.3\"]",
            "source_addresses 10.2.0.1, 10.2.0.2 -> 10.2.0.3",
        ),
        (
            "\"source_addresses\":[\"fd00:2::1\"]",
            "\"deny\":[]",
            "source_addresses fd00:2::1 -> none",
        ),
        (
            "\"deny\":[]",
            "\"deny\":[\"192.0.2.0/24\"]",
            "deny nobody -> 192.0.2.0/24",
        ),
        (
            "\"deny\":[]",
            "\"allow\":[\"10.1.0.0/16\",\"10.3.0.0/16\",\"10.5.0.0/16\",\"10.7.0.0/16\",\"10.9.0.0/16\",\"::1/128\"]",
            "allow everyone -> 10.1.0.0/16, 10.3.0.0/16, 10.5.0.0/16, 10.7.0.0/16, 2 more",
        ),
    ];
    for (old, new, words) in cases {
        let with = |setting: &str| app(&format!(r#""backends":[],{setting}"#)).replace(",\"limit\":null", "");
        assert_eq!(told(&with(old), &with(new)), [words]);
    }
    let renamed = app(r#""backends":[]"#).replace("my-app", "other");
    assert_eq!(told(&app(r#""backends":[]"#), &renamed), ["name my-app -> other"]);
}

#[test]
fn what_only_one_side_knows_is_no_change() {
    let new = summary(&app(r#""backends":[{"address":"10.2.0.11","port":3000,"weight":3}]"#));
    let mut old = new.clone();
    let service = &mut old.services[0];
    service.name = None;
    service.settings.balance = None;
    service.active.values_mut().for_each(|weight| *weight = 1);
    assert!(Changes::between(&old, &new, &BTreeMap::new()).is_empty());
}

#[test]
fn a_backend_that_drains_changes_and_is_not_removed() {
    let with = |state: &str| {
        app(&format!(
            r#""backends":[{{"address":"10.2.0.11","port":3000,"state":"{state}"}}]"#
        ))
    };
    let (active, draining) = (summary(&with("active")), summary(&with("draining")));
    let one = ChangeCounts {
        changed: 1,
        ..ChangeCounts::default()
    };
    assert_eq!(ChangeCounts::between(&active, &draining), (one, one));
    let changes = Changes::between(&active, &draining, &BTreeMap::new()).services;
    let kinds: Vec<BackendChangeKind> = changes[0].backends.iter().map(|backend| backend.change).collect();
    assert_eq!(kinds, [BackendChangeKind::Draining]);
}
