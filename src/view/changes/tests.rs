use super::*;
use tcpgw_core::diff::Changes;
use tcpgw_core::summary::Summary;

fn summary(services: &str) -> Summary {
    let text = format!(r#"{{"version":1,"services":[{services}]}}"#);
    Summary::from(&tcpgw_core::model::parse(text.as_bytes()).unwrap())
}

fn app(rest: &str) -> String {
    format!(r#"{{"name":"my-app","port":20003,{rest}}}"#)
}

fn told(old: &str, new: &str, flows: &[(u16, &str, u64)]) -> Vec<String> {
    let flows = flows
        .iter()
        .map(|(port, b, count)| ((*port, b.parse().unwrap()), *count));
    let changes = Changes::between(&summary(old), &summary(new), &flows.collect());
    changes.services.iter().map(line).collect()
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
}
