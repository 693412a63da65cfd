//! Requests that no platform should send get the error of their dialect and change nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use super::platform::{
    DIALECTS, LARGE, SERVICE, SMALL, address, ask, ask_with, authorization, change_plan, configure, daemon,
    deprovision, listens, provision, provisioned, request, send, services, standard_headers,
};
use crate::harness::Net;
use crate::harness::daemon::Daemon;

/// Asserts that a body has a message in the member that the dialect's platform shows.
#[track_caller]
fn explains(dialect: Dialect, body: &Value) {
    let member = if dialect == Dialect::Osb {
        "description"
    } else {
        "message"
    };
    assert!(body[member].as_str().is_some_and(|text| text.len() > 10), "{body}");
    assert!(body["error"].is_string(), "{body}");
}

#[test]
fn who_has_no_credentials_gets_nothing() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let version = "x-broker-api-version: 2.17\r\n";
    let wrong = [
        String::new(),
        authorization("password-of-others"),
        "authorization: Bearer abc\r\n".into(),
        "authorization: Basic !!!\r\n".into(),
        "authorization: Basic cGxhdGZvcm0=\r\n".into(),
        "authorization: \r\n".into(),
    ];
    for (at, header) in wrong.iter().enumerate() {
        let dialect = DIALECTS[at % 4];
        let (method, path, body) = provision(dialect, "my-app", "small");
        let refused = ask_with(&net, method, &path, &format!("{header}{version}"), &body.to_string());
        explains(dialect, &refused.is(401));
        assert!(refused.header("www-authenticate").is_some(), "{refused:?}");
    }
    // Requests without any are not counted: they guess nothing.
    for _ in 0..12 {
        ask_with(&net, "GET", "/v2/catalog", version, "").is(401);
    }
    // Too many wrong ones wait; the right ones from the same address do not.
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(ask_with(&net, "GET", "/v2/catalog", &format!("{}{version}", wrong[1]), "").status);
    }
    assert!(statuses.contains(&429) && statuses[11] == 429, "{statuses:?}");
    ask(&net, "GET", "/v2/catalog", "").is(200);
    assert!(services(&daemon).is_empty());
}

#[test]
fn versions_that_are_not_supported_are_refused() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    for version in [
        None,
        Some("2.12"),
        Some("2.18"),
        Some("3.0"),
        Some("1"),
        Some(""),
        Some("2.x"),
        Some("2.17\r\nx-broker-api-version: 2.12"),
    ] {
        let header = version.map_or_else(String::new, |version| format!("x-broker-api-version: {version}\r\n"));
        let auth = authorization(super::platform::PASSWORD);
        let refused = ask_with(&net, "GET", "/v2/catalog", &format!("{auth}{header}"), "");
        explains(Dialect::Osb, &refused.is(412));
    }
    for version in ["2.13", "2.14", "2.17"] {
        let auth = authorization(super::platform::PASSWORD);
        let header = format!("{auth}x-broker-api-version: {version}\r\n");
        ask_with(&net, "GET", "/v2/catalog", &header, "").is(200);
    }
}

#[test]
fn what_makes_no_sense_is_refused_as_the_dialect_says() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    for dialect in DIALECTS {
        refuses_bodies(&net, dialect);
    }
    is_untouched(&daemon);
}

/// Asserts that no service was made, that the store was not written, and that the log has no escape character.
#[track_caller]
fn is_untouched(daemon: &Daemon<'_>) {
    assert_eq!(services(daemon), Vec::<Value>::new());
    assert_eq!(daemon.get("/v1/services")["revision"], 0, "nothing was written");
    assert!(!daemon.logged().contains('\u{1b}'));
}

fn refuses_bodies(net: &Net, dialect: Dialect) {
    let refusal = if dialect == Dialect::Osb { 400 } else { 422 };
    let (method, path, good) = provision(dialect, "my-app", "small");
    let plan = if dialect == Dialect::Osb { "plan_id" } else { "plan" };
    let options = if dialect == Dialect::Osb {
        "parameters"
    } else {
        "options"
    };
    for (member, value) in [
        (plan, json!("none")),
        (plan, Value::Null),
        (plan, json!(7)),
        (options, json!({"port": 0})),
        (options, json!({"port": "x"})),
        (options, json!({"port": 65536})),
        (options, json!([])),
    ] {
        let mut body = good.clone();
        body[member] = value;
        explains(dialect, &ask(net, method, &path, &body).is(refusal));
    }
    // A port outside of the range, which is not this gateway's to give.
    let mut body = good.clone();
    body[options] = json!({"port": 22});
    explains(dialect, &ask(net, method, &path, &body).is(422));
    for text in ["", "{}", "[]", "{", "\u{0}", "null", "\"x\"", "{\"plan\":"] {
        let refused = ask(net, method, &path, text);
        assert!([400, 422].contains(&refused.status), "{text:?}: {refused:?}");
        explains(dialect, &refused.json());
    }
    let id = match dialect {
        Dialect::Osb => "organization_guid",
        Dialect::Scalingo | Dialect::Local => "app_id",
        Dialect::Heroku => "uuid",
        Dialect::CleverCloud => "addon_id",
    };
    for hostile in [
        "a/b",
        "a\nb",
        "<b>x</b>",
        "..",
        "",
        "\u{202e}x",
        "\u{1b}[31m",
        &"x".repeat(256),
    ] {
        // An organization is any text, which is part of no path.
        if dialect == Dialect::Osb && !hostile.is_empty() {
            continue;
        }
        let mut body = good.clone();
        body[id] = hostile.into();
        explains(dialect, &ask(net, method, &path, &body).is(refusal));
    }
    let mut body = good.clone();
    body.as_object_mut().expect("an object").remove(id);
    explains(dialect, &ask(net, method, &path, &body).is(refusal));
    // Options of 10 MB are not read.
    let mut body = good.clone();
    body[options] = json!({"x": "x".repeat(10 << 20)});
    let text = request(method, &path, &standard_headers(), &body.to_string());
    let refused = net.within("gateway", || send(text.as_bytes()));
    explains(dialect, &refused.expect("an answer, and no reset in its place").is(413));
    explains(
        dialect,
        &ask_with(
            net,
            method,
            &path,
            &format!("{}content-encoding: gzip\r\n", standard_headers()),
            "x",
        )
        .is(415),
    );
}

#[test]
fn paths_that_lead_nowhere_are_refused() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    for (method, path, status) in [
        ("PUT", "/v2/service_instances/a%2fb", 400),
        ("PUT", "/v2/service_instances/a%0ab", 400),
        ("GET", "/v2/service_instances/..%2f..%2fetc", 400),
        ("GET", "/v2/service_instances", 404),
        ("POST", "/v2/catalog", 405),
        ("GET", "/scalingo/resources/a%2fb", 404),
        ("GET", "/scalingo/resources/%00", 404),
        ("DELETE", "/scalingo/resources", 405),
        ("PATCH", "/scalingo/resources", 405),
        ("OPTIONS", "/scalingo/resources", 405),
        ("GET", "/heroku/resources/none", 404),
        ("DELETE", "/heroku/resources/none", 410),
        ("DELETE", "/clever-cloud/resources/none", 404),
        ("DELETE", "/scalingo/resources/none", 404),
        ("GET", "/none", 404),
        ("GET", "/", 404),
    ] {
        let (_, _, body) = provision(Dialect::Osb, "x", "small");
        let refused = ask(&net, method, path, body);
        assert_eq!(refused.status, status, "{method} {path}: {refused:?}");
    }
    let long = format!("/scalingo/resources/{}", "x".repeat(20 << 10));
    assert_eq!(ask(&net, "GET", &long, "").status, 414);
    is_untouched(&daemon);
}

#[test]
fn bindings_and_plans_that_make_no_sense_are_refused() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (method, path, body) = provision(Dialect::Osb, "my-app", "small");
    ask(&net, method, &path, body).is(201);
    let binding = format!("{path}/service_bindings/b");
    for body in [
        json!({"service_id": SERVICE, "plan_id": "none"}),
        json!({"service_id": "none", "plan_id": SMALL}),
        json!({"plan_id": SMALL}),
        json!({"service_id": SERVICE, "plan_id": SMALL, "bind_resource": {"app_guid": "a/b"}}),
    ] {
        explains(Dialect::Osb, &ask(&net, "PUT", &binding, &body).is(400));
    }
    explains(
        Dialect::Osb,
        &ask(&net, "PATCH", &path, json!({"service_id": SERVICE, "plan_id": "none"})).is(400),
    );
    explains(
        Dialect::Osb,
        &ask(&net, "PATCH", &path, json!({"plan_id": LARGE})).is(400),
    );
}

/// A suspended resource can get another plan, and stays suspended.
#[test]
fn a_suspended_resource_takes_another_plan() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    for dialect in DIALECTS {
        let (path, _) = provisioned(&net, dialect, "my-app");
        if dialect == Dialect::Scalingo {
            ask(&net, "POST", &format!("{path}/suspend"), "").is(204);
        } else {
            net.cli(&["addon", "suspend", "my-app"]).ok();
        }
        change_plan(&net, dialect, &path).is(200);
        let there = services(&daemon).remove(0);
        assert_eq!(
            (&there["addon"]["state"], &there["service"]["limit"]["pps"]),
            (&json!("suspended"), &json!(5000)),
            "{dialect:?}"
        );
        assert!([200, 204].contains(&deprovision(&net, &path).status));
        assert!(services(&daemon).is_empty());
    }
}

/// An OSB request that is repeated with other values is a conflict, and one with the same values is not, also after a restart.
#[test]
fn other_parameters_of_the_same_id_are_a_conflict() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let (method, path, good) = provision(Dialect::Osb, "my-app", "small");
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let binding = format!("{path}/service_bindings/b");
    let bind =
        |plan: &str, parameters: Value| json!({"service_id": SERVICE, "plan_id": plan, "parameters": parameters});
    let mut first = daemon(&net, &config);
    let made = with("parameters", json!({"foo": 1}));
    ask(&net, method, &path, &made).is(201);
    ask(&net, "PUT", &binding, bind(SMALL, json!({"a": [1]}))).is(201);
    let again = || {
        ask(&net, method, &path, &made).is(200);
        ask(&net, "PUT", &binding, bind(SMALL, json!({"a": [1]}))).is(200);
        for parameters in [
            json!({"foo": 2}),
            json!({}),
            Value::Null,
            json!({"foo": 1, "port": 20000}),
        ] {
            let refused = ask(&net, method, &path, with("parameters", parameters)).is(409);
            explains(Dialect::Osb, &refused);
        }
        for body in [
            bind(SMALL, json!({"a": [2]})),
            bind(SMALL, Value::Null),
            bind(LARGE, json!({"a": [1]})),
        ] {
            explains(Dialect::Osb, &ask(&net, "PUT", &binding, body).is(409));
        }
    };
    again();
    first.stop();
    first.start();
    listens(&net);
    again();
}

/// An instance whose plan left the catalog keeps the plan and can be bound: its platform knows the plan by an id that is stored
/// with the instance only.
#[test]
fn an_instance_whose_plan_left_the_catalog_is_bound_still() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let daemon = daemon(&net, &config);
    let (method, path, body) = provision(Dialect::Osb, "my-app", "small");
    ask(&net, method, &path, &body).is(201);
    let other = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c13";
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("name = \"small\"", "name = \"new\"").replace(SMALL, other);
    std::fs::write(&config, text).expect("failed to write a configuration");
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let has_left = || !ask(&net, "GET", "/v2/catalog", "").body.contains(SMALL);
    assert!(crate::harness::wait_until(Duration::from_secs(10), has_left));

    ask(&net, method, &path, &body).is(200);
    let binding = format!("{path}/service_bindings/b");
    let bind = json!({"service_id": SERVICE, "plan_id": SMALL, "bind_resource": {"app_guid": "bound"}});
    let credentials = ask(&net, "PUT", &binding, &bind).is(201);
    assert_eq!(ask(&net, "PUT", &binding, &bind).is(200), credentials);
    ask(&net, "PATCH", &path, json!({"service_id": SERVICE, "plan_id": SMALL})).is(200);
    assert_eq!(
        services(&daemon)[0]["service"]["limit"]["pps"],
        500,
        "it keeps its plan"
    );
    // No new resource gets the old plan.
    let (method, other_path, body) = provision(Dialect::Osb, "other", "small");
    explains(Dialect::Osb, &ask(&net, method, &other_path, body).is(400));
    ask(&net, "PATCH", &path, json!({"service_id": SERVICE, "plan_id": LARGE})).is(200);
    explains(
        Dialect::Osb,
        &ask(&net, "PATCH", &path, json!({"service_id": SERVICE, "plan_id": SMALL})).is(400),
    );
    assert_eq!(deprovision(&net, &path).status, 200);
}

/// Slow clients are cut off, many connections from one address leave room for other addresses, and input that is not HTTP does no
/// harm.
#[test]
fn slow_clients_and_many_are_borne() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    net.within("gateway", || {
        let connect = || TcpStream::connect(address()).expect("it listens");
        for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", &[0xff; 4096]] {
            let mut stream = connect();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .expect("a timeout");
            drop(stream.write_all(garbage));
            drop(stream.shutdown(std::net::Shutdown::Write));
            drop(stream.read_to_end(&mut Vec::new()));
        }
        // More than one address may have: they wait, and keep no other client waiting.
        let begin = Instant::now();
        let mut idle: Vec<TcpStream> = (0..150).map(|_| connect()).collect();
        let (method, path, body) = provision(Dialect::Heroku, "an-app", "small");
        let text = request(method, &path, &standard_headers(), &body.to_string());
        assert_eq!(send(text.as_bytes()).expect("an answer").status, 200);
        for stream in &mut idle {
            stream.set_nonblocking(true).expect("a stream");
            let closed = matches!(stream.read(&mut [0]), Ok(0));
            // A connection without data for 10 s is closed, which can happen here on a machine that is that slow.
            assert!(
                !closed || begin.elapsed() > Duration::from_secs(9),
                "one is closed before its time"
            );
        }
        idle.clear();
    });
    let (method, path, body) = provision(Dialect::Scalingo, "my-app", "small");
    let is_answered = || {
        let text = request(method, &path, &standard_headers(), &body.to_string());
        net.within("gateway", || send(text.as_bytes()))
            .is_ok_and(|reply| [200, 201].contains(&reply.status))
    };
    assert!(crate::harness::wait_until(Duration::from_secs(10), is_answered));
}
