//! The JSON Schema of the state file and the parser agree: what the parser accepts is valid, and what is valid is accepted but for
//! reasons that a schema cannot express.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tcpgw_core::model::parse;

use crate::json_schema::validate;

/// Returns the schema, as it is kept in the documentation and the package.
pub(crate) fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/reference/tcpgw.schema.json")).expect("JSON")
}

/// Messages of the parser about rules that a schema cannot express: relations between values, kinds of addresses, the size of
/// durations, and numbers that JSON writes in two ways.
const BEYOND: &[&str] = &[
    "must be a duration from ",
    "must be a shorter duration",
    "must be a number of whole seconds",
    "must be a whole number",
    "address; must be ",
    "a loopback address",
    "a multicast address",
    "the unspecified address",
    "the broadcast address",
    "a link-local address",
    "a reserved address",
    "of \"this network\"",
    "an IPv4-mapped",
    "is not an IP address",
    "is not a port",
    "has no prefix length",
    "is an address inside a network",
    "is given twice",
    "is already ",
    "is also ",
    "is for source masquerade",
    "the kernel can count",
    "is taken by",
    "is the same",
    "bytes, not ",
    "must be pairs of hexadecimal digits",
];

fn accepted(state: &Value) -> Result<(), Vec<String>> {
    match parse(state.to_string().as_bytes()) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

fn compare(schema: &Value, state: &Value) -> Result<(), TestCaseError> {
    let wrong = validate(schema, schema, state);
    match accepted(state) {
        Ok(()) => prop_assert!(wrong.is_empty(), "{state} is accepted: {wrong:#?}"),
        Err(problems) if wrong.is_empty() => {
            let unexpected = problems
                .iter()
                .find(|problem| !BEYOND.iter().any(|words| problem.contains(words)));
            prop_assert!(unexpected.is_none(), "{state} is valid by the schema: {problems:#?}");
        }
        Err(_) => {}
    }
    Ok(())
}

/// Returns a value for one field: mostly the first one, which is good.
fn of(values: &[Value]) -> BoxedStrategy<Value> {
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.5),
        json!(4_294_967_296_u64),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!({"no-such-field": 1}),
    ];
    if values.is_empty() {
        return proptest::sample::select(odd.to_vec()).boxed();
    }
    let (first, all) = (Just(values[0].clone()), proptest::sample::select(values.to_vec()));
    prop_oneof![20 => first, 8 => all, 1 => proptest::sample::select(odd.to_vec())].boxed()
}

fn texts(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| json!(text)).collect()
}

const ADDRESSES: &[&str] = &[
    "192.0.2.1",
    "2001:db8::1",
    "::1",
    "127.0.0.1",
    "::ffff:10.0.0.1",
    "010.0.0.1",
    "256.1.1.1",
    "fe80::1%eth0",
    "[2001:db8::1]",
    "1:2:3:4:5:6:7:8",
    "2001:db8::10.0.0.1",
    "::",
    "1::2::3",
    "a.example",
    "10.0.0.0/8",
];
const NETWORKS: &[&str] = &[
    "198.18.0.0/15",
    "2001:db8::/32",
    "198.18.7.1",
    "10.0.0.1/8",
    "10.0.0.0/33",
    "10.0.0.0/08",
    "::/0",
    "0.0.0.0/0",
    "10.0.0.0/",
    "x/8",
];
const BACKENDS: &[&str] = &[
    "10.2.0.11:3000",
    "[fd00:2::11]:3000",
    "10.2.0.12:0",
    "10.2.0.12:65536",
    "10.2.0.12:080",
    "10.2.0.12",
    "[10.2.0.1]:80",
    "fd00::1:80",
    "127.0.0.1:80",
    "app:80",
    "10.2.0.13:65535",
];
const DURATIONS: &[&str] = &[
    "500ms",
    "30s",
    "5m",
    "1h",
    "0s",
    "25h",
    "1d",
    "30",
    "1.5s",
    " 1s",
    "99999999999999999999s",
    "1500ms",
];

fn list(values: &[Value]) -> BoxedStrategy<Value> {
    prop_oneof![
        9 => prop::collection::vec(of(values), 0..3).prop_map(Value::Array),
        1 => of(&[]),
    ]
    .boxed()
}

/// Returns an object with some of these fields.
fn object(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let fields = fields.into_iter().map(|(name, value)| {
        prop_oneof![2 => value.prop_map(Some), 1 => Just(None)]
            .prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    });
    let fields: Vec<_> = fields.collect();
    fields
        .prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
        .boxed()
}

fn durations() -> BoxedStrategy<Value> {
    of(&texts(DURATIONS))
}

fn numbers(values: &[u64]) -> BoxedStrategy<Value> {
    of(&values.iter().map(|number| json!(number)).collect::<Vec<_>>())
}

fn backend() -> BoxedStrategy<Value> {
    let fields = object(vec![
        ("address", of(&texts(ADDRESSES))),
        ("port", numbers(&[1, 80, 65_535, 65_536])),
        ("weight", numbers(&[1, 256, 257])),
        ("state", of(&texts(&["active", "draining", "gone"]))),
    ]);
    prop_oneof![of(&texts(BACKENDS)), fields].boxed()
}

/// Returns some of the fields that a service may leave out.
fn others() -> BoxedStrategy<Value> {
    let limit = object(vec![
        ("pps", numbers(&[1, 1000, 1_000_000, 1_000_001])),
        ("burst", numbers(&[1, 4_294_967_295])),
        ("direction", of(&texts(&["each", "shared", "none"]))),
        ("mtu", numbers(&[67, 68, 1500, 65_535, 65_536])),
    ]);
    let client = object(vec![
        ("flows", numbers(&[1, 1000, 1001])),
        ("handshakes_per_second", numbers(&[1, 100_000, 100_001])),
    ]);
    let http = object(vec![
        (
            "path",
            of(&texts(&[
                "/healthz", "/a?b=%20", "healthz", "/a b", "/a#b", "/\r\n", "/ä",
            ])),
        ),
        ("host", of(&texts(&["app.example.com", "[::1]:80", "a b", "a\r\nb"]))),
        (
            "status",
            of(&[
                json!("200-299"),
                json!(204),
                json!(99),
                json!(600),
                json!("600-700"),
                json!("200"),
                json!("2xx-300"),
            ]),
        ),
    ]);
    let expect = object(vec![
        ("send", of(&texts(&["PING", "10 0c", "ping\r\n"]))),
        ("expect", of(&texts(&["+PONG", "20 02", "200", "ok\n"]))),
        ("encoding", of(&texts(&["text", "hex", "base64"]))),
    ]);
    let health = object(vec![
        ("interval", durations()),
        ("timeout", durations()),
        ("rise", numbers(&[1, 1000, 1001])),
        ("fall", numbers(&[1, 3])),
        ("http", http),
        ("expect", expect),
    ]);
    let labels = object(vec![
        ("app", of(&texts(&["broker", "ä"]))),
        ("", of(&texts(&["x"]))),
        (
            "a key of more than sixty-three bytes, which is more than is accepted",
            of(&texts(&["x"])),
        ),
    ]);
    object(vec![
        ("addresses", list(&texts(ADDRESSES))),
        (
            "balance",
            of(&texts(&[
                "client-hash",
                "random",
                "source-hash",
                "round-robin",
                "least",
            ])),
        ),
        ("limit", limit),
        ("max_flows", numbers(&[1, 1_000_000, 1_000_001])),
        ("client", client),
        ("idle_timeout", durations()),
        ("on_retire", of(&texts(&["drop", "reset", "reject"]))),
        ("on_empty", of(&texts(&["drop", "reset"]))),
        ("source", of(&texts(&["masquerade", "preserve"]))),
        ("source_addresses", list(&texts(ADDRESSES))),
        ("allow", list(&texts(NETWORKS))),
        ("deny", list(&texts(NETWORKS))),
        ("drain_timeout", durations()),
        ("health", health),
        ("labels", labels),
        ("no-such-field", of(&[])),
    ])
}

/// Returns a service of which at most one of the fields that may be left out is there, so that most are good.
fn one_service(name: &'static str, port: u64) -> BoxedStrategy<Value> {
    let names = of(&texts(&[name, "a.b-c_9", "-a", "A"]));
    let backends = prop_oneof![9 => prop::collection::vec(backend(), 0..3).prop_map(Value::Array), 1 => of(&[])];
    (
        names,
        numbers(&[port, 65_535]),
        backends,
        others(),
        any::<prop::sample::Index>(),
        0..4_usize,
    )
        .prop_map(|(name, port, backends, others, which, left_out)| {
            let mut service = json!({"name": name, "port": port, "backends": backends});
            let others: Vec<(String, Value)> = others.as_object().expect("fields").clone().into_iter().collect();
            if !others.is_empty() {
                let (field, value) = others[which.index(others.len())].clone();
                service[field] = value;
            }
            let members = service.as_object_mut().expect("fields");
            if left_out == 0 {
                members.remove(["name", "port", "backends"][which.index(3)]);
            }
            service
        })
        .boxed()
}

fn state() -> BoxedStrategy<Value> {
    let services = (one_service("a", 2000), one_service("b", 2001)).prop_map(|(a, b)| json!([a, b]));
    let services = prop_oneof![9 => services, 1 => of(&[json!([])])];
    let extra = prop_oneof![
        3 => Just(None),
        1 => of(&texts(&["https://example.com/tcpgw.schema.json"])).prop_map(|value| Some(("$schema", value))),
        1 => of(&[]).prop_map(|value| Some(("no-such-field", value))),
    ];
    (services, of(&[json!(1), json!(2)]), extra)
        .prop_map(|(services, version, extra)| {
            let mut state = json!({"version": version, "services": services});
            if let Some((name, value)) = extra {
                state[name] = value;
            }
            state
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_and_the_schema_agree(state in state()) {
        compare(&schema(), &state)?;
    }
}

/// Generated states include accepted and refused ones, without which the property above would prove nothing.
#[test]
fn states_are_generated_that_both_accept_and_that_both_refuse() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (schema, strategy) = (schema(), state());
    let mut counts = [[0_u32; 2]; 2];
    for _ in 0..1000 {
        let state = strategy.new_tree(&mut runner).expect("a state").current();
        let is_valid = validate(&schema, &schema, &state).is_empty();
        counts[usize::from(is_valid)][usize::from(accepted(&state).is_ok())] += 1;
    }
    assert!(counts[0][0] > 100 && counts[1][1] > 50, "{counts:?}");
}

#[test]
fn the_examples_are_valid() {
    let schema = schema();
    for text in [
        include_str!("../../examples/all-fields.json"),
        include_str!("../../examples/minimal.json"),
    ] {
        let mut state: Value = serde_json::from_str(text).expect("JSON");
        compare(&schema, &state).expect("an example");
        state["$schema"] = json!("tcpgw.schema.json");
        compare(&schema, &state).expect("an example with its schema");
        accepted(&state).expect("the parser takes it");
    }
}
