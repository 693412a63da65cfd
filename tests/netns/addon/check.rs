//! `tcpgw addon check` against this program's own provider API in all dialects, and against a broker of another project.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;
use tcpgw::addon::Dialect;

use super::platform::{DIALECTS, SALT, address, configure, daemon, services};
use crate::harness::libraries::libraries;
use crate::harness::shell::Running;
use crate::harness::{Net, wait_until};

/// User name that gives the variable `TCP_URL`, because Clever Cloud's variables have to begin with it.
const USERNAME: &str = "tcp";
const PASSWORD: &str = "password-of-the-tests";

fn word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Osb => "osb",
        Dialect::Scalingo | Dialect::Local => "scalingo",
        Dialect::Heroku => "heroku",
        Dialect::CleverCloud => "clever-cloud",
    }
}

/// Writes the credentials file of both sides.
fn write_login(net: &Net) -> String {
    let path = net.file("credentials.toml");
    let text = format!("username = \"{USERNAME}\"\npassword = \"{PASSWORD}\"\nsso_salt = \"{SALT}\"\n");
    fs::write(&path, text).expect("failed to write credentials");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("failed to set a mode");
    path.to_string_lossy().into_owned()
}

/// Returns the names of the checks that came to a verdict.
fn of(report: &Value, verdict: &str) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks");
    let of = checks.iter().filter(|check| check["verdict"] == verdict);
    of.filter_map(|check| check["name"].as_str())
        .map(str::to_owned)
        .collect()
}

/// The provider API of this program passes in two dialects. Two are checked at each daemon, so that there are fewer wrong
/// credentials than it throttles.
#[test]
fn this_programs_own_provider_api_passes_in_two_dialects() {
    passes(&DIALECTS[..2]);
}

#[test]
fn this_programs_own_provider_api_passes_in_the_others() {
    passes(&DIALECTS[2..]);
}

fn passes(dialects: &[Dialect]) {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let login = write_login(&net);
    let daemon = daemon(&net, &config);
    for &dialect in dialects {
        let name = word(dialect);
        let making = [
            "--config",
            &config,
            "addon",
            "manifest",
            "--dialect",
            name,
            "--url",
            "https://gw.example.com",
        ];
        let manifest = net.file("manifest.json");
        let output = net.cli(&making).exits(0);
        assert!(!output.stderr.contains("refuses this manifest"), "{output}");
        fs::write(&manifest, &output.stdout).expect("failed to write a manifest");
        let manifest = manifest.to_string_lossy().into_owned();
        let base = format!("http://{}", address());
        let (resources, sso) = (format!("{base}/{name}/resources"), format!("{base}/{name}/sso"));
        let url = if dialect == Dialect::Osb { &base } else { &resources };
        let mut words = vec!["addon", "check", url, "--dialect", name, "--credentials", &login];
        if dialect != Dialect::Osb {
            words.extend([
                "--manifest",
                &manifest,
                "--sso-url",
                &sso,
                "--plan",
                "small",
                "--other-plan",
                "large",
            ]);
        }
        let ran = net.tcpgw(&[&["-o", "json"], words.as_slice()].concat());
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        assert_eq!((of(&report, "fail"), ran.status), (Vec::new(), 0), "{ran}");
        // A machine that is slow is not at fault.
        let warnings: Vec<String> = of(&report, "warn")
            .into_iter()
            .filter(|name| name != "answer-time")
            .collect();
        assert_eq!(warnings, Vec::<String>::new(), "{ran}");
        let skipped: &[&str] = match dialect {
            Dialect::Osb => &["catalog-schemas"],
            _ => &[],
        };
        assert_eq!(of(&report, "skip"), skipped, "{ran}");
        assert_eq!(report["left"], serde_json::json!([]));
        assert!(of(&report, "pass").len() > 25, "{ran}");
        assert!(services(&daemon).is_empty(), "nothing is left");
        assert!(!ran.stdout.contains(PASSWORD) && !ran.stdout.contains(SALT), "{ran}");
    }
}

#[test]
fn a_provider_is_asked_by_tls() {
    let net = Net::new();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| net.file(name));
    // An authority's, as `openssl req -x509` makes one that signs itself.
    let made = || {
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let signed = params.self_signed(&key).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    };
    let (signed, secret) = made();
    fs::write(&certificate, signed).expect("failed to write a certificate");
    fs::write(&key, secret).expect("failed to write a key");
    let other = net.file("other.crt");
    fs::write(&other, made().0).expect("failed to write a certificate");
    let other = other.to_string_lossy().into_owned();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("failed to set a mode");
    let certificate = certificate.to_string_lossy().into_owned();
    let more = format!("tls_cert = \"{certificate}\"\ntls_key = \"{}\"", key.to_string_lossy());
    let config = configure(&net, "20000-20009", &more);
    let login = write_login(&net);
    let daemon = daemon(&net, &config);
    let url = format!("https://{}", address());
    let words = ["addon", "check", &url, "--dialect", "osb", "--credentials", &login];
    let trusted = net.tcpgw(&[&words[..], &["--cacert", &certificate]].concat()).ok();
    assert!(trusted.contains(" 0 failed, "), "{trusted}");
    let refused = net.tcpgw(&words).exits(1);
    assert!(refused.stdout.contains("the TLS handshake failed"), "{refused}");
    let refused = net.tcpgw(&[&words[..], &["--cacert", &other]].concat()).exits(1);
    assert!(refused.stdout.contains("name this very certificate"), "{refused}");
    assert!(services(&daemon).is_empty());
}

/// Starts openbrokerapi in the gateway's namespace, with what it needs in the environment.
fn broker(net: &Net, later: &str) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/addon/broker.py");
    let path = format!(
        "PYTHONPATH={}",
        libraries("broker-tools", "openbrokerapi", "another_broker").to_string_lossy()
    );
    let words = [
        "env",
        &path,
        "PYTHONDONTWRITEBYTECODE=1",
        later,
        "python3",
        script,
        "9500",
    ];
    let mut running = net.spawn("gateway", &words);
    let mut listens = false;
    let is_over = || {
        listens = net.wait_for_listener("gateway", 9500, Duration::ZERO);
        listens || running.ended()
    };
    wait_until(Duration::from_secs(30), is_over);
    if listens {
        return running;
    }
    assert!(running.ended(), "the broker does not listen");
    panic!("the broker has ended: {}", running.wait());
}

/// Checks that openbrokerapi 4.7.3 must fail, with the reason of each. No other check may fail.
const FAILURES: [&str; 4] = [
    // Its `check_version` lets the exception of a number that is none pass, and answers 500.
    "version-malformed",
    // Its `_check_plan_id` looks for the plan only, so that an instance of a service that is not in the catalog is made: 201.
    "provision-unknown-service",
    // It answers `ErrInstanceDoesNotExist` with 410, which the standard has for asynchronous deletions only; 404 is for the rest.
    "last-operation-missing",
    // That answer has a description which is empty.
    "error-bodies",
];
/// Recommendations ("SHOULD") of the standard that openbrokerapi does not follow.
const WARNINGS: [&str; 2] = [
    // It does not compare `maintenance_info` with its catalog, which has none.
    "provision-maintenance-conflict",
    // It does not know the header.
    "request-identity",
];

#[test]
fn another_broker_fails_where_it_departs_from_the_standard() {
    let net = Net::new();
    let login = write_login(&net);
    for later in ["LATER=", "LATER=1"] {
        let _broker = broker(&net, later);
        let url = "http://127.0.0.1:9500";
        let words = [
            "-o",
            "json",
            "addon",
            "check",
            url,
            "--dialect",
            "osb",
            "--credentials",
            &login,
        ];
        let ran = net.tcpgw(&words).exits(1);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"));
        assert_eq!(of(&report, "fail"), FAILURES, "{later}: {ran}");
        assert_eq!(of(&report, "warn"), WARNINGS, "{later}: {ran}");
        // Resources that it should not have made are removed, too.
        assert_eq!(report["left"], serde_json::json!([]), "{later}: {ran}");
        let checks = report["checks"].as_array().expect("checks");
        let came = checks.iter().filter_map(|check| check["came"].as_str());
        let has_waited = came.filter(|came| came.ends_with("then: succeeded")).count();
        // Provisioned, changed, bound, unbound, deprovisioned.
        assert!(
            if later == "LATER=1" {
                has_waited >= 5
            } else {
                has_waited == 0
            },
            "{later}: {ran}"
        );
    }
}

#[test]
fn people_get_a_line_for_each_check_and_one_for_all() {
    let net = Net::new();
    let config = configure(&net, "20000-20009", "");
    let login = write_login(&net);
    let _daemon = daemon(&net, &config);
    let base = format!("http://{}", address());
    let ran = net.tcpgw(&[
        "addon",
        "check",
        &base,
        "--dialect",
        "osb",
        "--credentials",
        &login,
        "--plan",
        "large",
    ]);
    let answer = ran.ok();
    assert!(
        answer.lines().any(|line| line.starts_with("PASS  deprovision ")),
        "{answer}"
    );
    assert!(
        answer.trim_end().ends_with("0 warnings, 0 failed, 1 skipped"),
        "{answer}"
    );
}
