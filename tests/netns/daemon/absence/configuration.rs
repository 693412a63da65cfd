//! A configuration, or a key of it, that is gone.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{of_file, provider_of, serves};
use crate::harness::brief::{service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};
use crate::store::{tmpfs, unmount, with_own_mounts};

/// Services of the file become orphans when its key, or the whole configuration, is removed.
#[test]
fn a_key_or_a_configuration_that_goes_makes_orphans() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(of_file());
    let config = net.file("config.toml");
    let with_key = format!("[daemon]\nstate = {:?}\n", net.wanted());
    fs::write(&config, &with_key).expect("a file");
    let mut daemon = net.daemon_without_state(&["--config", config.to_str().expect("text")]);
    daemon.settles(2);
    provider_of(&net, "file", "file");
    fs::write(&config, "").expect("a file");
    daemon.signal(Signal::SIGHUP);
    daemon.hears(0, &json!({"event": "orphaned"}));
    provider_of(&net, "file", "orphan");
    serves(&net, &[2001]);
    daemon.kill();
    daemon.start();
    provider_of(&net, "file", "orphan");
    serves(&net, &[2001]);
    // The provider that defines it takes it over.
    fs::write(&config, &with_key).expect("a file");
    daemon.signal(Signal::SIGHUP);
    provider_of(&net, "file", "file");
    fs::remove_file(&config).expect("it is there");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || {
        daemon.get("/v1/daemon")["problems"]
            .to_string()
            .contains("rejected_configuration")
    }));
    provider_of(&net, "file", "file");
    serves(&net, &[2001]);
}

/// A flow mark that leaves the configuration ends nothing: the table and its flows keep the mark that they were made with.
#[test]
fn a_flow_mark_that_leaves_the_configuration_ends_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.want(of_file());
    let config = net.file("config.toml");
    fs::write(&config, "flow_mark = \"0x00400000\"\n").expect("a file");
    let mut daemon = net.daemon(&["--config", config.to_str().expect("text")]);
    daemon.settles(2);
    let mut session = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    session.greeting().expect("a greeting");
    daemon.stop();
    fs::write(&config, "").expect("a file");
    // Without a daemon nothing is changed, and the line has the value that is to be put back.
    let cure = "`flow_mark = \"0x00400000/0x00400000\"` back";
    let apply = ["--config", config.to_str().expect("text"), "apply", "--socket", "none"];
    let refused = net
        .tcpgw(&[&apply[..], &[net.wanted().to_str().expect("text")]].concat())
        .exits(1);
    assert!(refused.stderr.contains(cure), "{refused}");
    daemon.start();
    serves(&net, &[2001]);
    session.echo(b"still there").expect("the session goes on");
    assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
    let status = net.cli(&["status", "--interval", "0s"]).exits(0);
    assert!(status.stdout.contains(cure), "{status}");
    let answer = net.told(&["status", "--interval", "0s"]);
    assert_eq!(answer["services"].as_array().map(Vec::len), Some(1), "{answer:#}");
    assert!(answer["problems"].to_string().contains("other_mark"), "{answer:#}");
    assert!(
        net.told(&["flows"])["flows"]
            .as_array()
            .is_some_and(|flows| !flows.is_empty())
    );
    let doctor = net.tcpgw(&["--config", config.to_str().expect("text"), "-o", "json", "doctor"]);
    assert!(!doctor.stdout.contains("flows-unmarked"), "{doctor}");
    assert!(doctor.stdout.contains("table-of-another-mark"), "{doctor}");
    fs::write(&config, "flow_mark = \"0x00400000\"\n").expect("a file");
    daemon.signal(Signal::SIGHUP);
    let is_told = || daemon.get("/v1/daemon")["problems"].to_string().contains("other_mark");
    assert!(wait_until(PATIENCE, || !is_told()));
}

/// An `/etc` without a configuration, seen by this thread and the processes that it starts only.
struct OwnEtc(PathBuf);

impl Drop for OwnEtc {
    fn drop(&mut self) {
        unmount(Path::new("/etc"));
        unmount(&self.0);
    }
}

fn own_etc(net: &Net) -> (OwnEtc, PathBuf) {
    let disk = net.file("etc");
    fs::create_dir(&disk).expect("a directory");
    tmpfs(&disk, "1m");
    let [upper, work] = ["upper", "work"].map(|name| disk.join(name));
    for directory in [&upper, &work] {
        fs::create_dir(directory).expect("a directory");
    }
    let options = format!(
        "lowerdir=/etc,upperdir={},workdir={}",
        upper.to_str().expect("text"),
        work.to_str().expect("text")
    );
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(&*options),
    )
    .expect("an overlay");
    let directory = Path::new("/etc/tcpgw");
    fs::create_dir_all(directory).expect("a directory");
    let config = directory.join("config.toml");
    let _ = fs::remove_file(&config);
    net.use_own_etc();
    (OwnEtc(disk), config)
}

/// The effects of a configuration at its default path stay when it is lost between two runs of the daemon, or for a command
/// without one.
#[test]
fn what_a_configuration_said_goes_on_when_it_is_gone() {
    const GONE: &str = "existed before and does not exist any more";
    with_own_mounts(|| {
        let net = Net::new();
        let _servers = net.serve_all(3000, Behaviour::Greet);
        let (_etc, config) = own_etc(&net);
        fs::write(&config, "protect_backends = true\n[fences]\nports = \"2000-3000\"\n").expect("a file");
        net.want(of_file());
        let mut daemon = net.daemon(&[]);
        daemon.settles(2);
        let backend = SocketAddr::new(addresses("b1")[0], 3000);
        let is_open = || net.within("client", || connect(backend, Duration::from_millis(300)).is_ok());
        assert!(!is_open());
        daemon.stop();
        fs::remove_file(&config).expect("it is there");
        let alone = |words: &str| net.sh("gateway", &format!("exec {TCPGW} --socket none {words}"));
        for (command, status) in [("status --interval 0s", 0), ("doctor", 0)] {
            let output = alone(command).exits(status);
            assert!(
                output.stdout.contains(GONE) && output.stdout.contains("empty file"),
                "{output}"
            );
        }
        let applied = alone(&format!("apply '{}'", net.wanted().to_str().expect("text"))).exits(0);
        assert!(applied.stderr.contains(GONE), "{applied}");
        assert!(!is_open());
        let outside = net.state_file("outside.json", state([service("file", 4001, &["b1"], 3000, json!({}))]));
        let refused = alone(&format!("check '{outside}'")).exits(2);
        assert!(refused.stderr.contains("fences.ports"), "{refused}");

        daemon.start();
        serves(&net, &[2001]);
        assert!(wait_until(PATIENCE, || daemon.get("/v1/daemon")["in_sync"] == true));
        assert!(!is_open());
        let status = net.cli(&["status", "--interval", "0s"]).exits(0);
        assert!(status.stdout.contains(GONE), "{status}");
        let doctor = net.cli(&["doctor"]).exits(0);
        assert!(doctor.stdout.contains(GONE), "{doctor}");
        let is_told = || {
            daemon.get("/v1/daemon")["problems"]
                .to_string()
                .contains("rejected_configuration")
        };
        assert!(is_told());
        // The cure that is printed; then the defaults are wished for.
        fs::copy(net.file("config.toml.last"), &config).expect("the copy is there");
        assert!(wait_until(PATIENCE, || !is_told()));
        fs::write(&config, "").expect("a file");
        daemon.stop();
        daemon.start();
        assert!(wait_until(PATIENCE, is_open));
        assert!(
            !daemon.get("/v1/daemon")["problems"]
                .to_string()
                .contains("rejected_configuration")
        );
        daemon.stop();
        fs::remove_file(&config).expect("it is there");
        // Nothing was set, so that nothing is lost.
        let output = alone("status --interval 0s").exits(0);
        assert!(!output.stdout.contains(GONE), "{output}");
    });
}
