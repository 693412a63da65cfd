//! Tests of files that are used twice.

use std::os::unix::fs::symlink;

use super::super::ConfigError;
use super::super::daemon::DaemonSection;
use super::super::given::SettingsSources;
use super::*;

/// A configuration with the add-on and metrics, in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory };
        for name in ["state.json", "cred.toml", "cert.pem", "key.pem", "token", "hook.sh"] {
            fs::write(place.path(name), "kept").unwrap();
        }
        fs::create_dir(place.path("run")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the outcome of a start whose flow log and store have these names.
    fn load(&self, flow_log: &str, store: &str) -> Result<(), String> {
        self.write(flow_log, store);
        self.given().load().map(drop).map_err(|error| error.line())
    }

    fn write(&self, flow_log: &str, store: &str) {
        let at = |name: &str| format!("'{}'", self.path(name).display_for_test());
        let tls = format!("tls_cert = {}\ntls_key = {}", at("cert.pem"), at("key.pem"));
        let text = format!(
            "[daemon]\nflow_log = {}\nstore = {}\nstate = {}\nsocket = {}\nsocket_readonly = {}\n\
             [web]\nlisten = '127.0.0.1:9464'\ntoken_file = {}\n{tls}\n\
             [addon]\nlisten = '127.0.0.1:9443'\nhost = 'gateway.example.com'\nports = '20000-20009'\ncredentials = {}\n{tls}\n\
             plans = [{{name = 'small', id = '5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11', pps = 512}}]\n\
             [docker]\nsocket = {}\n\
             [[hooks]]\non = ['backend_unhealthy']\nrun = [{}, 'argument', {}, {}, {}]\n\
             [[hooks]]\non = ['backend_unhealthy']\nurl = 'https://hooks.example.com/'\nsecret_file = {}\nca_file = {}\n",
            at(flow_log),
            at(store),
            at("state.json"),
            at("tcpgw.sock"),
            at("look.sock"),
            at("token"),
            at("cred.toml"),
            at("docker.sock"),
            at("notify.sh"),
            at("hook.sh"),
            at("later.sh"),
            // A program may be told where to reach the daemon.
            at("tcpgw.sock"),
            at("hook.key"),
            at("authorities.pem"),
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    fn given(&self) -> SettingsSources {
        SettingsSources {
            config: Some(self.path("config.toml")),
            run_dir: Some(self.path("run")),
            ..SettingsSources::default()
        }
    }
}

trait DisplayForTest {
    fn display_for_test(&self) -> String;
}

impl DisplayForTest for PathBuf {
    fn display_for_test(&self) -> String {
        tcpgw_core::escape::path(self)
    }
}

#[test]
fn a_file_that_the_daemon_writes_is_used_for_nothing_else() {
    let place = Place::new();
    // One file of TLS may serve both listeners.
    place.load("flows.log", "db").unwrap();
    let others = [
        ("state.json", "daemon.state"),
        ("config.toml", "the configuration"),
        ("cred.toml", "addon.credentials"),
        ("cert.pem", "tls_cert"),
        ("key.pem", "tls_key"),
        ("token", "web.token_file"),
        ("tcpgw.sock", "daemon.socket"),
        ("tcpgw.sock.lock", "daemon.socket"),
        ("look.sock", "daemon.socket_readonly"),
        ("notify.sh", "the program of the hook \"notify.sh\""),
        ("hook.sh", "an argument of the hook \"notify.sh\""),
        ("later.sh", "an argument of the hook \"notify.sh\""),
        ("docker.sock", "docker.socket"),
        ("hook.key", "secret_file"),
        ("authorities.pem", "ca_file"),
    ];
    for (name, words) in others {
        for (flow_log, store, written) in [(name, "db", "daemon.flow_log"), ("flows.log", name, "daemon.store")] {
            let error = place.load(flow_log, store).unwrap_err();
            assert!(
                error.contains(words) && error.contains(written) && error.contains("another path"),
                "{error}"
            );
        }
    }
    for name in ["db", "db-wal", "db.last", "db.written", "db.lost", "run/netns-7.state"] {
        let error = place.load(name, "db").unwrap_err();
        assert!(error.contains("daemon.flow_log"), "{name}: {error}");
    }
    place.load("run/flows.log", "db").unwrap();
    let copy = tcpgw_core::escape::path(&place.given().copy());
    let text = format!("[daemon]\nflow_log = '{copy}'");
    fs::write(place.path("config.toml"), text).unwrap();
    let error = place.given().load().unwrap_err().line();
    assert!(error.contains("the copy of the configuration"), "{error}");
    for name in ["state.json", "cred.toml", "cert.pem", "key.pem", "token", "hook.sh"] {
        assert_eq!(fs::read_to_string(place.path(name)).unwrap(), "kept");
    }
}

/// One file has several names: by links of both kinds, to files and directories that exist or do not.
#[test]
fn names_of_one_file_are_one() {
    let place = Place::new();
    symlink(place.directory.path(), place.path("dir")).unwrap();
    symlink("state.json", place.path("link")).unwrap();
    symlink("absent.json", place.path("dangling")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    fs::hard_link(place.path("state.json"), place.path("hard")).unwrap();
    for name in [
        "dir/state.json",
        "link",
        "hard",
        "run/../state.json",
        "dir/dir/link",
        "dir/db-wal",
        "dir/none/../db.last",
    ] {
        let error = place.load(name, "db").unwrap_err();
        assert!(error.contains("daemon.flow_log"), "{name}: {error}");
    }
    let error = place.load("dangling", "absent.json").unwrap_err();
    assert!(error.contains("daemon.store"), "{error}");
    place.load("loop", "db").unwrap();
    place.load("none/flows.log", "db").unwrap();
}

#[test]
fn a_reload_is_compared_with_the_paths_that_stay_in_use() {
    let place = Place::new();
    place.write("flows.log", "db");
    let given = place.given();
    let (settings, config) = given.load().unwrap();
    given.reload(&settings, &config).unwrap();
    place.write("state.json", "db");
    let clash = given.reload(&settings, &config).unwrap_err();
    assert!(matches!(clash, ConfigError::Files { .. }), "{clash}");
    // The path of the store waits for a restart.
    place.write("db", "db2");
    let error = given.reload(&settings, &config).unwrap_err().line();
    assert!(error.contains("daemon.store"), "{error}");
    place.given().load().unwrap();
    // What the command line says counts, too.
    let given = SettingsSources {
        section: DaemonSection {
            state: Some(place.path("flows.log")),
            ..DaemonSection::default()
        },
        ..given
    };
    place.write("flows.log", "db");
    given.load().unwrap_err();
}

/// The daemon would replace the engine's socket, or a script, by its own socket.
#[test]
fn a_socket_is_neither_the_one_of_the_engine_nor_what_a_hook_runs() {
    let place = Place::new();
    let load = |key: &str, name: &str, rest: &str| {
        let path = place.path(name).display_for_test();
        fs::write(
            place.path("config.toml"),
            format!(
                "[daemon]\nstore = '{}'\n{key} = '{path}'\n{rest}",
                place.path("db").display_for_test()
            ),
        )
        .unwrap();
        place.given().load().map(drop).map_err(|error| error.line())
    };
    let engine = format!("[docker]\nsocket = '{}'", place.path("docker.sock").display_for_test());
    let _listens = std::os::unix::net::UnixListener::bind(place.path("s.sock")).unwrap();
    symlink("docker.sock", place.path("link")).unwrap();
    for key in ["socket", "socket_readonly"] {
        for name in ["docker.sock", "link"] {
            let error = load(key, name, &engine).unwrap_err();
            assert!(error.contains("docker.socket") && error.contains(key), "{error}");
        }
        load(key, "s.sock", &engine).unwrap();
        for (name, is_refused) in [("hook.sh", true), ("s.sock", false), ("none.sock", false)] {
            let path = place.path(name).display_for_test();
            let hook = format!("[[hooks]]\non = ['problem']\nrun = ['/bin/sh', '{path}']");
            assert_eq!(load(key, name, &hook).is_err(), is_refused, "{key} {name}");
        }
    }
    let usual = "[docker]".to_owned();
    let text = format!(
        "[daemon]\nsocket = '{}'\n{usual}",
        super::super::docker::DEFAULT_DOCKER_SOCKET
    );
    fs::write(place.path("config.toml"), text).unwrap();
    assert!(place.given().load().unwrap_err().line().contains("docker.socket"));
}
