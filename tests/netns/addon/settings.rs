//! Settings of the operator: ports, files, encryption; and the messages about errors in them.

use std::fs;
use std::io::BufReader;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use nix::sys::signal::Signal;
use serde_json::json;
use tcpgw::addon::Dialect;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

use super::platform::{
    DIALECTS, Line, PASSWORD, SMALL, ask, ask_with, authorization, change_plan, configure, daemon, deprovision,
    listens, provision, provisioned, read, request, services, standard_headers, write_credentials,
};
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::at;
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};
use crate::store::{tmpfs, unmount, with_own_mounts};

/// Returns the problem of the provider API, if there is one.
fn trouble(daemon: &Daemon<'_>) -> Option<String> {
    trouble_of(daemon, "provider_api")
}

fn trouble_of(daemon: &Daemon<'_>, kind: &str) -> Option<String> {
    let problems = daemon.get("/v1/daemon")["problems"].clone();
    let mut problems = problems.as_array().into_iter().flatten();
    let problem = problems.find(|problem| problem["kind"] == kind)?;
    assert_eq!(problem["severity"], "warning");
    problem["message"].as_str().map(str::to_owned)
}

#[test]
fn a_range_of_one_port_has_room_for_one() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000", "quarantine = \"1h\""));
    let (path, port) = provisioned(&net, Dialect::Scalingo, "first");
    assert_eq!(port, 20000);
    let refuse_all = || {
        for dialect in DIALECTS {
            let (method, path, body) = provision(dialect, "second", "small");
            let refused = ask(&net, method, &path, body);
            let body = refused.is(422);
            assert!(refused.body.contains("no public port is left in 20000"), "{body}");
            // A platform's users read it.
            let is_the_operators = ["addon.ports", "systemctl", "tcpgw"]
                .iter()
                .any(|word| refused.body.contains(word));
            assert!(!is_the_operators, "{body}");
        }
    };
    refuse_all();
    let warned = || trouble_of(&daemon, "addon_ports").is_some_and(|why| why.contains("1 of 1 is in use;"));
    assert!(wait_until(PATIENCE, warned), "{:?}", trouble_of(&daemon, "addon_ports"));
    let status = net.cli(&["status", "--interval", "0s"]).ok();
    assert!(status.contains("no public port is left"), "a warning: {status}");
    assert_eq!(services(&daemon).len(), 1);
    // A returned port rests for its quarantine.
    assert_eq!(deprovision(&net, &path).status, 204);
    refuse_all();
    assert!(services(&daemon).is_empty());
    let list = net.cli(&["addon", "ls"]).ok();
    assert!(
        list.contains("ports 20000: 0 of 1 in use, 0 free\n  20000 rests until "),
        "{list}"
    );
    let rests = || trouble_of(&daemon, "addon_ports").is_some_and(|why| why.contains("1 rests since"));
    assert!(wait_until(PATIENCE, rests), "{:?}", trouble_of(&daemon, "addon_ports"));
    // The advice of the message takes effect at once.
    configure(&net, "20000", "quarantine = \"0s\"");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || trouble_of(&daemon, "addon_ports").is_none()));
    assert!(wait_until(PATIENCE, || {
        let (method, path, body) = provision(Dialect::Scalingo, "second", "small");
        ask(&net, method, &path, body).status == 201
    }));
}

#[test]
fn ports_of_others_are_skipped() {
    let net = Net::new();
    let daemon = daemon(&net, &configure(&net, "20000-20003", "quarantine = \"0s\""));
    let _own = net.serve("gateway", 20000, Behaviour::Greet);
    let service = crate::harness::brief::service("own", 20001, &["b1"], 3000, json!({}));
    daemon.post("/v1/apply", crate::harness::brief::state([service])).ok();
    let (path, port) = provisioned(&net, Dialect::Heroku, "one");
    assert_eq!(port, 20002);
    let (method, scalingo, mut body) = provision(Dialect::Scalingo, "two", "small");
    for (port, why) in [
        (20000, "in use"),
        (20001, "in use"),
        (20002, "in use"),
        (20004, "not in"),
    ] {
        body["options"] = json!({"port": port});
        let refused = ask(&net, method, &scalingo, &body);
        refused.is(422);
        assert!(refused.body.contains(why), "{port}: {refused:?}");
    }
    body["options"] = json!({"port": "20003"});
    let made = ask(&net, method, &scalingo, &body).is(201);
    assert_eq!(made["config"]["TCP_URL"], "tcp://gateway.example.com:20003");
    // Without a quarantine it is given again at once.
    assert_eq!(deprovision(&net, &path).status, 204);
    assert!(wait_until(PATIENCE, || {
        let (method, path, body) = provision(Dialect::CleverCloud, "three", "small");
        let reply = ask(&net, method, &path, body);
        reply.status == 200 && reply.body.contains(":20002")
    }));
}

/// An unusable file of the provider API is reported and stops the provider API only.
#[test]
fn files_that_cannot_be_used_stop_the_provider_api_only() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = configure(&net, "20000-20009", "");
    let credentials = net.file("credentials.toml");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).expect("failed to set a mode");
    let daemon = net.daemon_without_state(&["--config", &config]);
    let own = crate::harness::brief::service("own", 2001, &["b1"], 3000, json!({}));
    daemon.post("/v1/apply", crate::harness::brief::state([own])).ok();
    daemon.settles(2);
    let is_told = |word: &str| wait_until(PATIENCE * 2, || trouble(&daemon).is_some_and(|why| why.contains(word)));
    assert!(is_told("0644"), "{:?}", trouble(&daemon));
    assert_eq!(net.spread("client", at("203.0.113.1", 2001), 5)["b1"], 5);
    assert_eq!(daemon.ask("GET", "/v1/healthz", "").expect("an answer").status, 200);
    assert!(!daemon.logged().contains(PASSWORD));

    // Once it is mended the daemon finds out by itself.
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).expect("failed to set a mode");
    assert!(
        wait_until(PATIENCE * 3, || trouble(&daemon).is_none()),
        "{:?}",
        trouble(&daemon)
    );
    provisioned(&net, Dialect::Scalingo, "my-app");

    // At a reload too: what was read before stays until it is mended.
    fs::write(&credentials, "username = 7").expect("failed to write credentials");
    daemon.signal(Signal::SIGHUP);
    assert!(is_told("username, password and sso_salt"), "{:?}", trouble(&daemon));
    ask(&net, "GET", "/v2/catalog", "").is(200);
}

#[test]
fn plans_and_credentials_are_read_again() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let daemon = daemon(&net, &config);
    let (path, _) = provisioned(&net, Dialect::Scalingo, "my-app");
    let (instance, _) = provisioned(&net, Dialect::Osb, "instance");
    let catalog = request("GET", "/v2/catalog", &standard_headers(), "");
    let mut kept = net.within("gateway", Line::new).expect("a connection");
    kept.exchange(catalog.as_bytes()).expect("an answer").is(200);
    write_credentials(&net, "another-password-of-tests");
    let text = fs::read_to_string(&config).expect("a configuration");
    let plan = "[[addon.plans]]\nname = \"huge\"\nid = \"5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c13\"\npps = 50000\n";
    let text = text
        .replace("pps = 500\n", "pps = 501\n")
        .replace("name = \"small\"", "name = \"tiny\"");
    fs::write(&config, format!("{text}{plan}")).expect("failed to write");
    daemon.signal(Signal::SIGHUP);
    let headers = format!(
        "{}x-broker-api-version: 2.17\r\n",
        authorization("another-password-of-tests")
    );
    let is_new = || ask_with(&net, "GET", "/v2/catalog", &headers, "").status == 200;
    assert!(wait_until(PATIENCE, is_new));
    assert_eq!(ask(&net, "GET", "/v2/catalog", "").status, 401, "the old password");
    // The idle connection may have been closed meanwhile.
    let of_kept = kept.exchange(catalog.as_bytes());
    assert!(
        of_kept.as_ref().map_or(true, |reply| reply.status == 401),
        "{of_kept:?}"
    );
    // A plan with another name is the same plan.
    let (method, of_instance, body) = provision(Dialect::Osb, "instance", "small");
    ask_with(&net, method, &of_instance, &headers, &body.to_string()).is(200);
    assert_eq!(ask_with(&net, "GET", &instance, &headers, "").is(200)["plan_id"], SMALL);
    ask_with(&net, "PUT", &path, &headers, "{\"plan\":\"tiny\"}").is(200);
    let limits = || {
        let limits = services(&daemon).into_iter();
        let mut limits: Vec<u64> = limits
            .filter_map(|service| service["service"]["limit"]["pps"].as_u64())
            .collect();
        limits.sort_unstable();
        limits
    };
    assert_eq!(limits(), [500, 500], "until its plan is changed");
    ask_with(&net, "PUT", &path, &headers, "{\"plan\":\"huge\"}").is(200);
    assert_eq!(limits(), [500, 50_000]);
}

#[test]
fn platforms_come_by_tls() {
    let net = Net::new();
    let made = rcgen::generate_simple_self_signed(["gateway.example.com".to_owned()]).expect("a certificate");
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| net.file(name));
    fs::write(&certificate, made.cert.pem()).expect("failed to write a certificate");
    fs::write(&key, made.signing_key.serialize_pem()).expect("failed to write a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("failed to set a mode");
    let more = format!(
        "tls_cert = \"{}\"\ntls_key = \"{}\"",
        certificate.to_string_lossy(),
        key.to_string_lossy()
    );
    let config = configure(&net, "20000-20009", &more);
    let text = fs::read_to_string(&config).expect("a configuration");
    // On an address that others reach.
    fs::write(&config, text.replace("127.0.0.1:9443", "203.0.113.1:9443")).expect("failed to write");
    let daemon = net.daemon_without_state(&["--config", &config]);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let exchange = |text: &str| {
        net.within("client", || {
            let stream = TcpStream::connect(at("203.0.113.1", 9443))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let name = "gateway.example.com".try_into().expect("a name");
            let session = ClientConnection::new(Arc::clone(&client), name).map_err(std::io::Error::other)?;
            let mut stream = BufReader::new(StreamOwned::new(session, stream));
            std::io::Write::write_all(stream.get_mut(), text.as_bytes())?;
            read(&mut stream)
        })
    };
    let (method, path, body) = provision(Dialect::Scalingo, "my-app", "small");
    let text = request(method, &path, &standard_headers(), &body.to_string());
    let mut reply = exchange(&text);
    assert!(
        wait_until(PATIENCE, || {
            if reply.is_err() {
                reply = exchange(&text);
            }
            reply.is_ok()
        }),
        "{reply:?}: {:?}",
        trouble(&daemon)
    );
    let made = reply.expect("an answer");
    assert!([200, 201].contains(&made.status), "{made:?}");
    // A client that does not speak TLS gets no answer, and disturbs no other client.
    let plain = net.within("client", || {
        let mut stream = TcpStream::connect(at("203.0.113.1", 9443)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        drop(std::io::Write::write_all(&mut stream, text.as_bytes()));
        let mut answer = Vec::new();
        drop(std::io::Read::read_to_end(&mut stream, &mut answer));
        answer
    });
    assert!(!plain.starts_with(b"HTTP/"), "{plain:?}");
    assert_eq!(exchange(&text).expect("an answer").status, 200);

    // A key that does not fit is a problem, and the old one is used on.
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate");
    fs::write(&key, other.signing_key.serialize_pem()).expect("failed to write a key");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || trouble(&daemon).is_some()));
    let problem = trouble(&daemon).expect("a problem");
    assert!(
        problem.contains("is not the certificate of the key in addon.tls_key"),
        "{problem}"
    );
    assert_eq!(exchange(&text).expect("an answer").status, 200);
    listens_not_in_plain(&net);
}

fn listens_not_in_plain(net: &Net) {
    let refused = net.within("gateway", || TcpStream::connect(super::platform::address()).is_err());
    assert!(refused, "nothing listens on loopback");
}

/// While the store cannot be written, no request takes partial effect and the services go on; the same request succeeds later.
#[test]
fn a_full_disk_makes_nothing_and_loses_nothing() {
    with_own_mounts(|| {
        let net = Net::new();
        let disk = net.file("disk");
        fs::create_dir(&disk).expect("failed to make a directory");
        tmpfs(&disk, "1m");
        net.want(crate::harness::brief::state([]));
        let config = configure(&net, "20000-20009", "");
        let daemon = net.daemon_storing(disk.join("store.db"), &["--config", &config]);
        listens(&net);
        let there = DIALECTS.map(|dialect| (dialect, format!("there-{}", dialect as u8)));
        let there = there.map(|(dialect, app)| (dialect, provisioned(&net, dialect, &app).0, app));
        let ballast = disk.join("ballast");
        drop(fs::write(&ballast, vec![1; 1 << 20]));
        let before = services(&daemon);
        for dialect in DIALECTS {
            let (method, path, body) = provision(dialect, "new", "small");
            let refused = ask(&net, method, &path, body);
            assert_eq!(refused.status, 503, "{refused:?}");
            assert!(refused.header("retry-after").is_some());
        }
        for (dialect, path, app) in &there {
            assert_eq!(change_plan(&net, *dialect, path).status, 503, "{dialect:?}");
            if *dialect == Dialect::Scalingo {
                assert_eq!(ask(&net, "POST", &format!("{path}/suspend"), "").status, 503);
            }
            net.cli(&["addon", "suspend", app]).exits(1);
            assert_eq!(deprovision(&net, path).status, 503, "{dialect:?}");
            ask(&net, "GET", path, "").is(200);
        }
        assert_eq!(services(&daemon), before);

        fs::remove_file(&ballast).expect("it is there");
        let (method, path, body) = provision(Dialect::Heroku, "new", "small");
        let mut made = ask(&net, method, &path, &body);
        let is_made = || {
            made = ask(&net, method, &path, &body);
            made.status == 200
        };
        assert!(wait_until(PATIENCE * 2, is_made));
        assert_eq!(ask(&net, method, &path, &body), made);
        assert_eq!(services(&daemon).len(), 5);
        for (dialect, path, _) in &there {
            change_plan(&net, *dialect, path).is(200);
            assert!([200, 204].contains(&deprovision(&net, path).status), "{dialect:?}");
        }
        drop(daemon);
        unmount(&disk);
    });
}

/// The user that the daemon runs as, who has no name on this machine.
const DAEMON_USER: &str = "59125";

/// The credentials file that the documented command line makes can be read by the daemon's user and by root's commands.
#[test]
fn the_file_that_the_document_makes_is_for_the_daemon_and_for_roots_commands() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "quarantine = \"0s\"");
    let credentials = net.file("credentials.toml");
    let text = fs::read(&credentials).expect("credentials");
    fs::remove_file(&credentials).expect("failed to remove the file");
    let path = credentials.to_string_lossy().into_owned();
    fs::set_permissions(net.file(""), fs::Permissions::from_mode(0o755)).expect("failed to set a mode");
    for name in ["run", "store", "socket"] {
        let line = format!(
            "install -d -o {DAEMON_USER} -g {DAEMON_USER} {}",
            net.file(name).to_string_lossy()
        );
        net.sh("gateway", &line).ok();
    }
    let document =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/addon.md")).expect("the document");
    let begin = document
        .find("install -m 600 -o tcpgw -g tcpgw /dev/null")
        .expect("the line that makes the file");
    let line = document[begin..].split(['`', '\n']).next().expect("a line");
    let line = line.replace("/etc/tcpgw/addon.toml", &path);
    net.sh(
        "gateway",
        &line.replace("tcpgw -g tcpgw", &format!("{DAEMON_USER} -g {DAEMON_USER}")),
    )
    .ok();
    fs::write(&credentials, text).expect("failed to write credentials");

    let place = |name: &str| net.file(name).to_string_lossy().into_owned();
    let (socket, store) = (place("socket/s"), place("store/store.db"));
    let capability = "-all,+net_admin";
    let _daemon = net.spawn(
        "gateway",
        &[
            "setpriv",
            "--reuid",
            DAEMON_USER,
            "--regid",
            DAEMON_USER,
            "--clear-groups",
            "--inh-caps",
            capability,
            "--ambient-caps",
            capability,
            "--bounding-set",
            capability,
            TCPGW,
            "daemon",
            "--state",
            &place("none.json"),
            "--socket",
            &socket,
            "--store",
            &store,
            "--config",
            &config,
        ],
    );
    listens(&net);
    let cli = |words: &[&str]| net.tcpgw(&[&["--socket", &socket, "--config", &config], words].concat());
    let manifest = cli(&["addon", "manifest", "--dialect", "scalingo"]).ok();
    assert!(manifest.contains(PASSWORD), "{manifest}");
    for (dialect, url) in [
        ("osb", "http://127.0.0.1:9443"),
        ("scalingo", "http://127.0.0.1:9443/scalingo/resources"),
    ] {
        let ran = cli(&[
            "addon",
            "check",
            url,
            "--dialect",
            dialect,
            "--credentials",
            &path,
            "--plan",
            "small",
        ]);
        assert_eq!(ran.status, 0, "{dialect}: {ran}");
    }
    assert!(!cli(&["status"]).stdout.contains("provider API"));

    // A command beside a daemon that does not run judges it as the daemon would.
    let judged = |owner: &str| {
        net.sh("gateway", &format!("chown {owner} {path}")).ok();
        let ran = net.tcpgw(&["--socket", "none", "--config", &config, "status"]);
        format!("{ran}")
    };
    assert!(!judged(DAEMON_USER).contains("provider API"));
    let told = judged("0");
    assert!(
        told.contains("belongs to root") && told.contains(&format!("chown {DAEMON_USER} {path}")),
        "{told}"
    );
    let told = judged("59126");
    assert!(
        told.contains("belongs to uid 59126") && told.contains(&format!("chown {DAEMON_USER} {path}")),
        "{told}"
    );
    let refused = cli(&["addon", "manifest", "--dialect", "scalingo"]).exits(2);
    assert!(refused.stderr.contains("belongs to uid 59126"), "{refused}");
}
