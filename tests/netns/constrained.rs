//! The daemon with few resources: one capability, few descriptors, a damaged record.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use serde_json::{Value, json};
use tcpgw_kernel::linux::Linux;

use super::addon::platform::configure;
use super::faults::rounds;
use super::harness::brief::{service, state};
use super::harness::client::PATIENCE;
use super::harness::plan::{PUBLIC, at};
use super::harness::server::Behaviour;
use super::harness::shell::{Running, TCPGW};
use super::harness::{Net, wait_until};

const USER: &str = "59124";

/// Starts a daemon behind another program, and waits until it serves `healthy` backends.
#[track_caller]
fn daemon_behind(net: &Net, program: &[&str], healthy: u64) -> Running {
    let file = |name: &str| net.file(name).to_string_lossy().into_owned();
    let (wanted, socket, store) = (file("wanted.json"), file("tcpgw.sock"), file("store/store.db"));
    let daemon = [
        TCPGW, "daemon", "--state", &wanted, "--socket", &socket, "--store", &store,
    ];
    let running = net.spawn("gateway", &[program, &daemon].concat());
    let is_up = || {
        let output = net.cli(&["status", "-o", "json"]).stdout;
        let answer: Value = serde_json::from_str(&output).unwrap_or_default();
        let services = answer["services"].as_array().into_iter().flatten();
        let backends = services.flat_map(|service| service["backends"].as_array().into_iter().flatten());
        backends.filter(|backend| backend["health"] == "healthy").count() as u64 == healthy
    };
    assert!(wait_until(PATIENCE * 3, is_up), "{}", net.cli(&["status"]));
    running
}

#[test]
fn an_unprivileged_user_with_one_capability() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let user: u32 = USER.parse().expect("a number");
    // The daemon's directories, as the unit makes them.
    fs::set_permissions(net.file(""), Permissions::from_mode(0o755)).expect("a mode");
    for name in ["run", "store", "socket"] {
        fs::create_dir_all(net.file(name)).expect("a directory");
        chown(net.file(name), Some(user), Some(user)).expect("an owner");
    }
    net.want(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    let wanted = net.wanted().to_string_lossy().into_owned();
    let socket = net.file("socket/s").to_string_lossy().into_owned();
    let store = net.file("store/store.db").to_string_lossy().into_owned();
    // A hook runs without the capability.
    let (hook, status) = (net.file("hook"), net.file("store/hook-status"));
    let script = format!(
        "#!/bin/sh\nexec cat /proc/self/status > '{}'\n",
        status.to_string_lossy()
    );
    fs::write(&hook, script).expect("a program");
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).expect("a mode");
    let config = net.file("config.toml");
    let text = format!("[[hooks]]\non = ['started']\nrun = ['{}']\n", hook.to_string_lossy());
    fs::write(&config, text).expect("a configuration");
    let config = config.to_string_lossy().into_owned();
    let argv = [
        "setpriv",
        "--reuid",
        USER,
        "--regid",
        USER,
        "--clear-groups",
        "--inh-caps",
        "-all,+net_admin",
        "--ambient-caps",
        "-all,+net_admin",
        "--bounding-set",
        "-all,+net_admin",
        "--no-new-privs",
        TCPGW,
        "--config",
        &config,
        "daemon",
        "--state",
        &wanted,
        "--socket",
        &socket,
        "--store",
        &store,
    ];
    let daemon = net.spawn("gateway", &argv);
    let served = || {
        net.connect("client", at(PUBLIC[0], 2001))
            .is_ok_and(|mut conn| conn.greeting().is_ok())
    };
    assert!(wait_until(PATIENCE * 2, served), "nobody is served");
    let of_hook = || fs::read_to_string(&status).unwrap_or_default();
    assert!(wait_until(PATIENCE, || of_hook().contains("CapBnd")), "{}", of_hook());
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        let line = of_hook().lines().find(|line| line.starts_with(set)).map(str::to_owned);
        let is_empty = line.as_ref().is_some_and(|line| line.ends_with("\t0000000000000000"));
        assert!(is_empty, "{line:?}");
    }
    // Root and the daemon's user work on the same files.
    let cli = |words: &[&str]| net.tcpgw(&[&["--socket", &socket], words].concat());
    let added = ["service", "add", "b", "--port", "2002", "--backend", "10.2.0.12:3000"];
    let ran = cli(&added);
    assert_eq!(ran.status, 0, "{ran}");
    assert!(wait_until(PATIENCE, || net
        .connect("client", at(PUBLIC[0], 2002))
        .is_ok()));
    assert!(cli(&["status"]).stdout.contains("2002"));
    assert_eq!(cli(&["doctor"]).status & !1, 0, "it runs");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait().exits(0);
    assert!(served(), "forwarding goes on");
    net.tcpgw(&["--socket", "none", "status"]);
    net.tcpgw(&["--socket", "none", "teardown"]).exits(0);
}

#[test]
fn few_descriptors() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    fs::create_dir_all(net.file("store")).expect("a directory");
    let services = (0..8).map(|n| {
        service(
            &format!("s{n}"),
            2001 + n,
            &["b1", "b2", "b3", "b4"],
            3000 + n,
            json!({}),
        )
    });
    let _more: Vec<_> = (1..8).map(|n| net.serve_all(3000 + n, Behaviour::Greet)).collect();
    net.want(state(services));
    let config = configure(&net, "20000-20009", "");
    // The program that runs the tests may have left descriptors open.
    let close = "for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval \"exec $fd>&-\"; done; exec \"$@\"";
    let variable = format!("TCPGW_CONFIG={config}");
    let few = [
        "bash",
        "-c",
        close,
        "bash",
        "env",
        &variable,
        "prlimit",
        "--nofile=40:40",
    ];
    let daemon = daemon_behind(&net, &few, 64);
    // Probes are done before the kernel has what comes of them.
    let is_served = || net.connect("client", at(PUBLIC[0], 2008)).is_ok();
    assert!(wait_until(PATIENCE, is_served), "{}", net.cli(&["status"]));
    for port in 2001..2009 {
        let mut conn = net.connect("client", at(PUBLIC[0], port)).expect("it is served");
        conn.greeting().expect("a greeting");
    }
    assert_eq!(net.cli(&["flows"]).status, 0);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait().exits(0);
}

/// With any damage to the record `apply` does its work, and established connections go on.
#[test]
fn a_record_that_is_damaged_costs_time_only() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let file = net.state_file("state.json", state([service("a", 2001, &["b1"], 3000, json!({}))]));
    net.tcpgw(&["apply", &file]).exits(0);
    let mut held = net.connect("client", at(PUBLIC[0], 2001)).expect("a connection");
    held.greeting().expect("a greeting");
    let namespace = net.within("gateway", || {
        Linux::open().expect("a socket").netns_cookie().expect("a cookie")
    });
    let path = net.file("run").join(format!("netns-{namespace}.state"));
    let whole = fs::read(&path).expect("a record");
    let many = rounds("TCPGW_DAMAGES", 12);
    for n in 0..many {
        let mut damaged = whole.clone();
        let at = n * whole.len() / many;
        match n % 3 {
            0 => damaged[at] ^= 1 << (n % 8),
            1 => damaged.truncate(at),
            _ => damaged[at..].fill(0xff),
        }
        fs::write(&path, &damaged).expect("written");
        let ran = net.tcpgw(&["apply", &file]).exits(0);
        assert!(ran.took < Duration::from_secs(20), "{ran}");
        held.echo(b"on").expect("it goes on");
        net.tcpgw(&["diff", &file]).exits(0);
    }
}
