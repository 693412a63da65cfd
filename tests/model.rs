//! The model of states as a whole: large states, arbitrary bytes, broken documents, other orders.

use std::fmt::Write as _;

use proptest::prelude::*;
use tcpgw_core::model::{self, State};

const SERVICES: usize = 50_000;
const BACKENDS: usize = 4;

#[test]
fn fifty_thousand_services_are_read() {
    let state = model::parse(large(SERVICES).as_bytes()).unwrap();
    assert_eq!(state.services.len(), SERVICES);
    assert!(state.services.iter().all(|service| service.backends.len() == BACKENDS));
    assert!(state.services.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn fifty_thousand_wrong_services_give_a_short_list() {
    let text = large(SERVICES).replace("\"pps\":1000", "\"pps\":0");
    let problems = model::parse(text.as_bytes()).unwrap_err();
    assert_eq!(problems.total(), SERVICES);
    assert_eq!(problems.iter().count(), model::MAX_PROBLEMS);
}

#[test]
fn everything_clashing_with_everything_takes_no_quadratic_time() {
    let mut text = String::from(r#"{"version":1,"services":["#);
    for i in 0..SERVICES {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            text,
            r#"{comma}{{"name":"a","port":1,"backends":["10.0.0.1:1"],"balance":"round-robin","limit":{{"pps":{}}}}}"#,
            i + 1
        );
    }
    text.push_str("]}");
    let problems = model::parse(text.as_bytes()).unwrap_err();
    assert_eq!(problems.total(), 3 * (SERVICES - 1) + 1);
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = model::parse(&bytes);
    }

    #[test]
    fn any_json_gives_an_answer(text in "[\\[\\]{},:\"a0-9.e \\\\-]{0,80}") {
        let _ = model::parse(text.as_bytes());
        let _ = model::parse(format!("{{\"version\":1,\"services\":[{text}]}}").as_bytes());
    }

    #[test]
    fn a_broken_document_gives_an_answer(
        services in services(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), edit()), 1..6),
    ) {
        let mut bytes = document(&services).into_bytes();
        for (at, edit) in edits {
            let at = at.index(bytes.len().max(1));
            apply(&mut bytes, at, edit);
        }
        if let Err(problems) = model::parse(&bytes) {
            prop_assert!(problems.total() > 0);
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn any_value_in_any_field_gives_an_answer(field in field(), value in value()) {
        let text = format!(
            r#"{{"version":1,"services":[{{"name":"a","port":1,"backends":[],"{field}":{value}}}]}}"#
        );
        let _ = model::parse(text.as_bytes());
    }

    #[test]
    fn order_does_not_matter(
        (services, shuffled) in services().prop_flat_map(|services| {
            let inner: Vec<_> = services.iter().cloned().map(shuffle_backends).collect();
            (Just(services), inner.prop_shuffle())
        })
    ) {
        let parsed = parse(&services);
        prop_assert_eq!(parsed.services.len(), services.len());
        prop_assert_eq!(parsed, parse(&shuffled));
    }
}

#[derive(Debug, Clone)]
struct Sketch {
    name: String,
    port: usize,
    backends: Vec<String>,
    extra: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Edit {
    Flip(u8),
    Insert(u8),
    Remove,
    Cut,
    Double,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<u8>().prop_map(Edit::Flip),
        prop::sample::select(b"{}[],:\"0-.e9\\n".to_vec()).prop_map(Edit::Insert),
        Just(Edit::Remove),
        Just(Edit::Cut),
        Just(Edit::Double),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: usize, edit: Edit) {
    if at >= bytes.len() {
        return;
    }
    match edit {
        Edit::Flip(byte) => bytes[at] = byte,
        Edit::Insert(byte) => bytes.insert(at, byte),
        Edit::Remove => drop(bytes.remove(at)),
        Edit::Cut => bytes.truncate(at),
        Edit::Double => bytes.extend_from_within(at..),
    }
}

fn services() -> impl Strategy<Value = Vec<Sketch>> {
    let extra = prop::sample::select(vec![
        "",
        r#","limit":{"pps":1000,"burst":5}"#,
        r#","balance":"source-hash","allow":["10.0.0.0/8","192.0.2.1"]"#,
        r#","health":{"interval":"1s"},"drain_timeout":"5m","labels":{"b":"1","a":"2"}"#,
        r#","addresses":["2001:db8::1","192.0.2.1"],"on_empty":"drop""#,
    ]);
    proptest::collection::vec((0..5usize, extra), 0..6).prop_map(|shapes| {
        shapes
            .into_iter()
            .enumerate()
            .map(|(i, (count, extra))| sketch(i, count, extra))
            .collect()
    })
}

fn sketch(i: usize, count: usize, extra: &'static str) -> Sketch {
    let backend = |k: usize| match k % 3 {
        0 => format!(r#""10.0.{i}.{}:80""#, k + 1),
        1 => format!(r#""[2001:db8::{i}:{}]:80""#, k + 1),
        _ => format!(
            r#"{{"address":"10.0.{i}.{}","port":80,"weight":{k},"state":"draining"}}"#,
            k + 1
        ),
    };
    Sketch {
        name: format!("s{i}"),
        port: 1000 + i,
        backends: (0..count).map(backend).collect(),
        extra,
    }
}

fn shuffle_backends(service: Sketch) -> impl Strategy<Value = Sketch> {
    Just(service.backends.clone())
        .prop_shuffle()
        .prop_map(move |backends| Sketch {
            backends,
            ..service.clone()
        })
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "addresses",
        "balance",
        "limit",
        "on_retire",
        "source",
        "allow",
        "deny",
        "drain_timeout",
        "health",
        "labels",
    ])
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has no infinities", |value| value.is_finite())
            .prop_map(|v| format!("{v:?}")),
        "[a-f0-9:./%\\[\\]smh-]{0,20}".prop_map(|text| format!("{text:?}")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop::sample::select(vec!["pps", "burst", "mtu", "interval", "rise", "x", ""]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((key, inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(key, value)| format!("\"{key}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn parse(services: &[Sketch]) -> State {
    let text = document(services);
    model::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn document(services: &[Sketch]) -> String {
    let one = |s: &Sketch| {
        format!(
            r#"{{"name":"{}","port":{},"backends":[{}]{}}}"#,
            s.name,
            s.port,
            s.backends.join(","),
            s.extra
        )
    };
    let services: Vec<String> = services.iter().map(one).collect();
    format!(r#"{{"version":1,"services":[{}]}}"#, services.join(","))
}

fn large(services: usize) -> String {
    let mut text = String::from("{\"version\":1,\"services\":[");
    for i in 0..services {
        let comma = if i == 0 { "" } else { "," };
        let backends: Vec<String> = (0..BACKENDS)
            .map(|k| format!("\"10.{}.{}.{}:{}\"", i / 10_000, i / 100 % 100, i % 100, 3000 + k))
            .collect();
        let port = i + 1024;
        let _ = write!(
            text,
            r#"{comma}{{"name":"service-{i}","port":{port},"limit":{{"pps":1000}},"backends":[{}]}}"#,
            backends.join(",")
        );
    }
    text.push_str("]}");
    text
}
