//! Loss of files, keys, stores and records, as an operator loses them, ends no service.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::brief::{endpoints, service, state};
use crate::harness::client::{PATIENCE, connect};
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, addresses, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};
use crate::store::{tmpfs, unmount, with_own_mounts};

const RECORDED: Duration = Duration::from_millis(2500);

/// Starts a daemon with a file's service on port 2001 at b1, and an API service on port 2002 at b2.
fn begin(net: &Net) -> Daemon<'_> {
    net.want(of_file());
    let daemon = net.daemon(&[]);
    let [backend, _] = endpoints("b2", 3000);
    let words = ["service", "add", "api", "--port", "2002", "--backend", &backend];
    net.cli(&[&words[..], &["--label", "of=api", "--drain-timeout", "7s"]].concat())
        .ok();
    net.cli(&["wait", "api", "--for", "healthy"]).ok();
    daemon.settles(3);
    // The record follows a change after a second.
    thread::sleep(RECORDED);
    daemon
}

fn of_file() -> Value {
    state([service("file", 2001, &["b1"], 3000, json!({}))])
}

#[track_caller]
fn serves(net: &Net, ports: &[u16]) {
    for port in ports {
        let spread = net.spread("client", at(PUBLIC[0], *port), 5);
        assert_eq!(spread.values().sum::<usize>(), 5, "port {port}: {spread:?}");
    }
}

/// Waits until these ports are served, where backends have to answer probes first.
#[track_caller]
fn serves_soon(net: &Net, ports: &[u16]) {
    for port in ports {
        let answers = || net.connect("client", at(PUBLIC[0], *port)).is_ok();
        assert!(wait_until(PATIENCE, answers), "port {port}");
    }
    serves(net, ports);
}

#[track_caller]
fn provider_of(net: &Net, name: &str, provider: &str) {
    let told = || net.told(&["service", "ls"]);
    let is_it = |told: &Value| {
        let mut all = told["services"].as_array().into_iter().flatten();
        all.any(|listed| listed["service"]["name"] == name && listed["provider"] == provider)
    };
    assert!(wait_until(PATIENCE, || is_it(&told())), "{:#}", told());
}

/// A daemon without a state file serves what `apply` has left.
#[test]
fn a_daemon_without_a_file_serves_what_apply_has_left() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(of_file());
    let mut daemon = net.daemon_without_state(&[]);
    serves(&net, &[2001]);
    provider_of(&net, "file", "orphan");
    let status = net.cli(&["status"]).exits(0);
    assert!(
        status.stdout.contains("orphan") && status.stdout.contains("tcpgw service rm"),
        "{status}"
    );
    for _ in 0..2 {
        daemon.kill();
        daemon.start();
        serves(&net, &[2001]);
    }
    provider_of(&net, "file", "orphan");
    // The orphan ends by its name, and does not return.
    net.cli(&["service", "rm", "file"]).ok();
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2001))
        .is_err()));
    thread::sleep(RECORDED);
    daemon.kill();
    daemon.start();
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
    assert!(wait_until(PATIENCE, || net.told(&["service", "ls"])["services"] == json!([])));
}

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
    let told = net.told(&["status", "--interval", "0s"]);
    assert_eq!(told["services"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert!(told["problems"].to_string().contains("other_mark"), "{told:#}");
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
            let told = alone(command).exits(status);
            assert!(
                told.stdout.contains(GONE) && told.stdout.contains("empty file"),
                "{told}"
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
        let told = alone("status --interval 0s").exits(0);
        assert!(!told.stdout.contains(GONE), "{told}");
    });
}

/// A damaged copy of the last services is a problem and is kept, when a machine boots with it and with a lost store.
#[test]
fn a_damaged_copy_of_what_was_desired_is_a_problem_and_is_kept() {
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let add = ["service", "add", "api", "--port", "2002", "--backend", "10.2.0.11:3000"];
    net.cli(&add).ok();
    let copy = net.file("store.db.last");
    assert!(wait_until(PATIENCE, || fs::read_to_string(&copy)
        .is_ok_and(|text| text.contains("2002"))));
    daemon.stop();
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(net.file(file));
    }
    fs::remove_dir_all(net.file("run")).expect("it is there");
    net.run("gateway", &["nft", "delete", "table", "inet", "tcpgw"]).ok();
    let text = fs::read(&copy).expect("it is there");
    let damaged = &text[..text.len() - 3];
    fs::write(&copy, damaged).expect("written");
    daemon.start();
    let healthz = |daemon: &Daemon<'_>| daemon.ask("GET", "/v1/healthz", "").map_or(0, |told| told.status);
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 503), "{}", daemon.logged());
    let status = net.cli(&["status", "--interval", "0s"]).exits(1);
    assert!(status.stdout.contains("store.db.last.damaged"), "{status}");
    let doctor = net.cli(&["doctor"]);
    assert!(doctor.stdout.contains("store.db.last.damaged"), "{doctor}");
    // A new one is written, and the old one is kept, over a restart, too.
    assert!(wait_until(PATIENCE, || copy.exists()));
    daemon.kill();
    daemon.start();
    assert_eq!(
        fs::read(net.file("store.db.last.damaged")).expect("it is there"),
        damaged
    );
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 503), "{}", daemon.logged());
    fs::remove_file(net.file("store.db.last.damaged")).expect("it is there");
    assert!(wait_until(PATIENCE, || healthz(&daemon) == 200), "{}", daemon.logged());
}

/// A lost store takes no service with it when the printed steps are followed: move the store away, start, export, apply.
#[test]
fn a_store_that_is_lost_takes_no_service_with_it() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    let exported = net.cli(&["export"]).ok();
    daemon.kill();
    fs::write(net.file("store.db"), "damaged").expect("a store");
    daemon.start();
    serves(&net, &[2001, 2002]);
    assert!(daemon.get("/v1/daemon")["store"].is_string());
    daemon.kill();
    fs::rename(net.file("store.db"), net.file("away.db")).expect("it is there");
    let record = fs::read_dir(net.file("run")).expect("a directory").flatten();
    for file in record.filter(|file| file.file_name().to_string_lossy().ends_with(".state")) {
        fs::remove_file(file.path()).expect("it is there");
    }
    daemon.start();
    serves(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
    provider_of(&net, "file", "file");
    assert_eq!(net.cli(&["export"]).ok(), exported, "labels and timeouts, too");
    let file = net.file("exported.json");
    fs::write(&file, &exported).expect("a file");
    net.cli(&["apply", file.to_str().expect("text")]).ok();
    provider_of(&net, "api", "api");
    serves(&net, &[2001, 2002]);
    // The problem is reported until `store.db.lost` is removed, also after a restart.
    daemon.kill();
    daemon.start();
    assert!(wait_until(PATIENCE, || net
        .cli(&["status"])
        .stdout
        .contains("store.db.lost")));
    fs::remove_file(net.file("store.db.lost")).expect("it is there");
    assert!(wait_until(PATIENCE, || !net
        .cli(&["status"])
        .stdout
        .contains("store.db.lost")));
}

/// `apply` while no daemon runs replaces what a state file has made, and nothing of the API's.
#[test]
fn apply_beside_a_dead_daemon_leaves_the_services_of_its_api() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(0);
    assert!(ran.stderr.contains("api") && ran.stderr.contains("--prune"), "{ran}");
    serves(&net, &[2002, 2003]);
    assert!(
        net.connect("client", at(PUBLIC[0], 2001)).is_err(),
        "the file's was replaced"
    );
    let again = net.apply_alone(&other).exits(0);
    assert!(again.stdout.contains("0 elements"), "{again}");
    // The next daemon finds all of it consistent: a service of another file has no provider.
    daemon.start();
    serves_soon(&net, &[2001, 2002, 2003]);
    provider_of(&net, "api", "api");
    provider_of(&net, "file", "file");
    provider_of(&net, "other", "orphan");
    let empty = net.state_file("empty.json", state([]));
    net.cli(&["apply", "--prune", "--allow-empty", &empty]).ok();
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2003))
        .is_err()));
    serves(&net, &[2001]);
}

/// A state file beside a dead daemon takes no name, port or backend of the API's services, and may share their backends.
#[test]
fn apply_beside_a_dead_daemon_takes_nothing_from_its_api() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    let before = net.rules();
    for (other, why) in [
        (
            service("api", 2003, &["b3"], 3000, json!({})),
            "is a service of the daemon's API",
        ),
        (
            service("other", 2002, &["b3"], 3000, json!({})),
            "port 2002 is already taken",
        ),
        (
            service("other", 2003, &["b2"], 3000, json!({"limit": {"pps": 500}})),
            "is also a backend of service \"api\"",
        ),
    ] {
        let ran = net.apply_alone(&state([other])).exits(2);
        assert!(ran.stderr.contains(why) && ran.stderr.contains("--prune"), "{ran}");
        serves(&net, &[2001, 2002]);
    }
    assert_eq!(net.rules(), before);
    net.apply_alone(&state([service("other", 2003, &["b2", "b3"], 3000, json!({}))]))
        .exits(0);
    serves(&net, &[2002, 2003]);
    daemon.start();
    serves_soon(&net, &[2001, 2002, 2003]);
    provider_of(&net, "api", "api");
}

/// A machine that boots without its files serves.
#[test]
fn a_machine_that_boots_without_its_files_serves() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.stop();
    // As after a boot, there are neither rules nor a run directory.
    net.sh("gateway", "nft delete table inet tcpgw; conntrack -F").ok();
    let _ = fs::remove_dir_all(net.file("run"));
    fs::rename(net.file("store.db"), net.file("away.db")).expect("it is there");
    fs::remove_file(net.wanted()).expect("it is there");
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
    net.want(of_file());
    daemon.settles(3);
    serves(&net, &[2001, 2002]);
}

/// Services of a file are served again after a boot; `status` names the services that only a daemon can restore.
#[test]
fn status_names_what_only_a_daemon_would_serve() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    thread::sleep(RECORDED);
    let ask = |command: &str| net.sh("gateway", &format!("{TCPGW} --socket none {command}"));
    daemon.stop();
    let status = ask("status --interval 0s").exits(0);
    assert!(!status.stdout.contains("not served"), "{status}");
    net.sh("gateway", "nft delete table inet tcpgw; conntrack -F").ok();
    let _ = fs::remove_dir_all(net.file("run"));
    net.apply_alone(&of_file()).exits(0);
    let status = ask("status --interval 0s").exits(1);
    let said = "1 service of the daemon's API, or that no provider defines, is not served";
    assert!(
        status.stdout.contains(said) && status.stdout.contains(": api;"),
        "{status}"
    );
    let doctor = ask("doctor").exits(1);
    assert!(
        doctor.stdout.contains("broken [not-served]") && doctor.stdout.contains(said),
        "{doctor}"
    );
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    net.cli(&["status", "--interval", "0s"]).exits(0);
}

/// A teardown ends with `tcpgw resume`, and with nothing else.
#[test]
fn a_teardown_ends_by_a_word_alone() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    net.cli(&["teardown"]).ok();
    assert_eq!(daemon.events_of("torn_down")[0]["uid"], 0);
    let closed = |net: &Net| {
        [2001, 2002]
            .iter()
            .all(|port| net.connect("client", at(PUBLIC[0], *port)).is_err())
    };
    assert!(closed(&net));
    let set = net.cli(&["service", "set", "api", "--label", "x=y"]).exits(0);
    assert!(set.stderr.contains("tcpgw resume"), "{set}");
    net.want(state([service("file", 2001, &["b1", "b3"], 3000, json!({}))]));
    daemon.signal(Signal::SIGHUP);
    let status = net.cli(&["status"]).exits(1);
    assert!(status.stdout.contains("tcpgw resume"), "{status}");
    daemon.kill();
    daemon.start();
    assert!(closed(&net), "a restart is no word");
    net.cli(&["status"]).exits(1);
    net.cli(&["resume"]).ok();
    daemon.settles(5);
    serves(&net, &[2001, 2002]);
}

/// Without any record `apply` removes none of the services in the kernel, because they may be other than a state file's.
#[test]
fn apply_with_no_record_at_all_removes_nothing() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    fs::remove_dir_all(net.file("run")).expect("a run directory");
    for entry in fs::read_dir(net.file("")).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("store.db") {
            fs::remove_file(entry.path()).expect("it is removed");
        }
    }
    let ran = net
        .apply_alone(&state([service("other", 2003, &["b3"], 3000, json!({}))]))
        .exits(0);
    assert!(ran.stderr.contains("stay") && ran.stderr.contains("--prune"), "{ran}");
    serves(&net, &[2001, 2002, 2003]);
}

/// An orphan that the kernel has lost is not forgotten by an `apply` that comes before the next daemon.
#[test]
fn an_orphan_outlives_a_lost_table_and_an_apply() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(of_file());
    let mut daemon = net.daemon_without_state(&[]);
    provider_of(&net, "file", "orphan");
    thread::sleep(RECORDED);
    daemon.stop();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(0);
    assert!(ran.stderr.contains("does not hold: file"), "{ran}");
    serves(&net, &[2003]);
    daemon.start();
    serves_soon(&net, &[2001, 2003]);
    provider_of(&net, "file", "orphan");
}

/// An orphan is not pruned while the file of last services cannot be written, because only that file tells that it was pruned.
#[test]
fn an_orphan_that_cannot_be_forgotten_is_not_pruned() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    net.apply(of_file());
    let mut daemon = net.daemon_without_state(&[]);
    provider_of(&net, "file", "orphan");
    thread::sleep(RECORDED);
    daemon.kill();
    let blocked = net.file("store.db.last.new");
    fs::create_dir(&blocked).expect("a directory");
    let other = state([service("other", 2003, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone_with(&other, "--prune").exits(1);
    assert!(
        ran.stderr.contains("store.db.last") && ran.stderr.contains("nothing was changed"),
        "{ran}"
    );
    serves(&net, &[2001]);
    fs::remove_dir(&blocked).expect("it is there");
    // An orphan is not pruned either while the record cannot be written, from which the next daemon would serve it again.
    let run = fs::read_dir(net.file("run")).expect("it is there");
    let mut records = run.map(|entry| entry.expect("an entry").path());
    let record = records.find(|path| path.extension().is_some_and(|ending| ending == "state"));
    let record = record.expect("a record");
    let blocked = ["new", "journal.new"].map(|ending| record.with_extension(ending));
    for path in &blocked {
        fs::create_dir(path).expect("a directory");
    }
    let ran = net.apply_alone_with(&other, "--prune").exits(1);
    assert!(
        ran.stderr.contains(".journal") && ran.stderr.contains("nothing was changed"),
        "{ran}"
    );
    serves(&net, &[2001]);
    for path in &blocked {
        fs::remove_dir(path).expect("it is there");
    }
    net.apply_alone_with(&other, "--prune").exits(0);
    serves(&net, &[2003]);
    daemon.start();
    serves_soon(&net, &[2003]);
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
}

/// After the kernel has lost its table, the first `apply` does not take the port of an API service either.
#[test]
fn a_port_of_the_api_is_not_taken_after_the_table_was_lost() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    thread::sleep(RECORDED);
    daemon.kill();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    let other = state([service("other", 2002, &["b3"], 3000, json!({}))]);
    let ran = net.apply_alone(&other).exits(2);
    assert!(
        ran.stderr.contains("port 2002 is already taken by service \"api\""),
        "{ran}"
    );
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
}

/// A service of the API is served again after the table and the store were lost, with an `apply` in between.
#[test]
fn a_service_of_the_api_outlives_a_lost_table_an_apply_and_a_lost_store() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    net.sh("gateway", "nft delete table inet tcpgw").ok();
    // Twice: the second one finds no table that lacks it, and no record that has it.
    for _ in 0..2 {
        let ran = net.apply_alone(&of_file()).exits(0);
        assert!(ran.stderr.contains("does not hold: api"), "{ran}");
    }
    fs::remove_file(net.file("store.db")).expect("a store");
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    provider_of(&net, "api", "orphan");
}

/// Services return after the map of slots was flushed while no daemon ran, although the file that defines one of them is absent.
#[test]
fn what_is_taken_out_of_the_table_without_a_daemon_comes_back() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let mut daemon = begin(&net);
    daemon.kill();
    fs::remove_file(net.wanted()).expect("it is there");
    net.sh("gateway", "nft flush map inet tcpgw slots_v4").ok();
    assert!(net.connect("client", at(PUBLIC[0], 2001)).is_err());
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
    // The restored services are on record, too.
    thread::sleep(RECORDED);
    daemon.kill();
    daemon.start();
    serves_soon(&net, &[2001, 2002]);
}
