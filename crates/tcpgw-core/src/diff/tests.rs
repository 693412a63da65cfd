use super::*;

fn added(fields: &str) -> String {
    let text = format!(r#"{{"version":1,"services":[{{"name":"a","port":2000,"backends":["10.0.0.1:1"]{fields}}}]}}"#);
    let state = crate::model::parse(text.as_bytes()).expect("a valid state");
    let changes = Changes::between(&Summary::default(), &Summary::from(&state), &BTreeMap::new());
    changes.services[0].to_string()
}

#[test]
fn a_new_service_is_told_with_all_that_is_not_default() {
    assert_eq!(added(""), "+ a :2000  + 10.0.0.1:1  client-hash");
    assert_eq!(
        added(
            r#","balance":"round-robin","limit":{"pps":5,"burst":7},"idle_timeout":"5m","on_retire":"reset","on_empty":"drop",
            "source":"preserve","allow":["192.0.2.0/24"],"deny":["192.0.2.1"]"#
        ),
        "+ a :2000  + 10.0.0.1:1  round-robin, limit 5 packets/s, burst 7, idle_timeout 5m, on_retire reset, on_empty drop, \
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

fn told(old: &str, new: &str, flows: &[(u16, &str, u64)]) -> Vec<String> {
    let flows = flows
        .iter()
        .map(|(port, b, count)| ((*port, b.parse().unwrap()), *count));
    let changes = Changes::between(&summary(old), &summary(new), &flows.collect());
    changes.services.iter().map(ToString::to_string).collect()
}

#[test]
fn a_swap_reads_as_promised() {
    let old = app(r#""backends":["10.2.0.11:3000","10.2.0.12:3000"]"#);
    let new = app(r#""backends":["10.2.0.12:3000","10.2.0.13:3000"]"#);
    assert_eq!(
        told(&old, &new, &[(20003, "10.2.0.11:3000", 12)]),
        ["~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (12 flows will be flushed)"]
    );
    assert_eq!(
        told(
            &old,
            &new,
            &[(20003, "10.2.0.11:3000", 1), (20004, "10.2.0.12:3000", 5)]
        ),
        ["~ my-app :20003  + 10.2.0.13:3000  - 10.2.0.11:3000 (1 flow will be flushed)"]
    );
    assert!(told(&old, &old, &[]).is_empty());
}

#[test]
fn services_come_and_go() {
    let one = app(r#""backends":["10.2.0.11:3000"],"limit":{"pps":1000}"#);
    assert_eq!(
        told("", &one, &[]),
        ["+ my-app :20003  + 10.2.0.11:3000  client-hash, limit 1000 packets/s"]
    );
    assert_eq!(
        told(&one, "", &[(20003, "10.2.0.11:3000", 2)]),
        ["- my-app :20003  - 10.2.0.11:3000 (2 flows will be flushed)"]
    );
    let addresses = app(r#""backends":[],"addresses":["192.0.2.1","2001:db8::1"]"#);
    assert_eq!(
        told("", &addresses, &[]),
        ["+ my-app 192.0.2.1:20003,[2001:db8::1]:20003  client-hash"]
    );
}

#[test]
fn backends_change() {
    let with = |backend: &str| {
        app(&format!(
            r#""backends":[{{"address":"10.2.0.11","port":3000{backend}}}]"#
        ))
    };
    let (active, draining, heavy) = (with(""), with(r#","state":"draining""#), with(r#","weight":3"#));
    assert_eq!(
        told(&active, &draining, &[]),
        ["~ my-app :20003  10.2.0.11:3000 drains"]
    );
    assert_eq!(
        told(&draining, &active, &[]),
        ["~ my-app :20003  10.2.0.11:3000 is active again"]
    );
    assert_eq!(told(&active, &heavy, &[]), ["~ my-app :20003  10.2.0.11:3000 weight 3"]);
    let counted = ChangeCounts::between(&summary(&active), &summary(&draining));
    let counts = |added, changed, removed| ChangeCounts {
        added,
        changed,
        removed,
    };
    assert_eq!(counted, (counts(0, 1, 0), counts(0, 1, 0)));
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
        assert_eq!(told(&with(old), &with(new), &[]), [format!("~ my-app :20003  {words}")]);
    }
    let renamed = app(r#""backends":[]"#).replace("my-app", "other");
    assert_eq!(
        told(&app(r#""backends":[]"#), &renamed, &[]),
        ["~ other :20003  name my-app -> other"]
    );
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
