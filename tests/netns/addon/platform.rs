//! A platform that sends requests to the provider APIs.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tcpgw::addon::Dialect;

use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::at;
use crate::harness::{Net, Place, wait_until};

pub(super) const SALT: &str = "salt-of-the-tests";
pub(super) const PASSWORD: &str = "password-of-the-tests";
pub(super) const SMALL: &str = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11";
pub(super) const LARGE: &str = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c12";
pub(super) const SERVICE: &str = "0f6c1d8e-5f0c-4c55-9d1b-7c2f6a3be4d1";
/// Dialects of platforms, with the prefixes of their paths.
pub(super) const DIALECTS: [Dialect; 4] = [Dialect::Osb, Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud];

/// Response of the provider API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Status line and headers, in lower case.
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that status, and gives the body.
    #[track_caller]
    pub(super) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Returns the address of the provider API.
pub(super) fn address() -> SocketAddr {
    at("127.0.0.1", 9443)
}

/// Writes a configuration with these ports and more keys of `[addon]`, and the credentials. Returns its file.
pub(crate) fn configure(net: &Net, ports: &str, more: &str) -> String {
    let credentials = net.file("credentials.toml");
    write_credentials(net, PASSWORD);
    let text = format!(
        "[addon]\nlisten = \"{}\"\nhost = \"gateway.example.com\"\nports = \"{ports}\"\ncredentials = \"{}\"\n{more}\n\
         [[addon.plans]]\nname = \"small\"\nid = \"{SMALL}\"\npps = 500\n\
         [[addon.plans]]\nname = \"large\"\nid = \"{LARGE}\"\npps = 5000\nprice = 20.0\ndescription = \"Much of it\"\n",
        address(),
        credentials.to_string_lossy()
    );
    let path = net.file("config.toml");
    fs::write(&path, text).expect("failed to write a configuration");
    path.to_string_lossy().into_owned()
}

/// Writes the credentials file, with mode 0600.
pub(super) fn write_credentials(net: &Net, password: &str) {
    let path = net.file("credentials.toml");
    let text = format!("username = \"platform\"\npassword = \"{password}\"\nsso_salt = \"{SALT}\"\n");
    fs::write(&path, text).expect("failed to write credentials");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("failed to set a mode");
}

/// Starts a daemon with that configuration, and waits until its provider API answers.
#[track_caller]
pub(super) fn daemon<'n>(net: &'n Net, config: &str) -> Daemon<'n> {
    let daemon = net.daemon_without_state(&["--config", config]);
    listens(net);
    daemon
}

#[track_caller]
pub(super) fn listens(net: &Net) {
    let is_there = || net.within("gateway", || TcpStream::connect(address()).is_ok());
    assert!(wait_until(PATIENCE, is_there), "no provider API");
}

/// Sends a request with the right credentials.
pub(super) fn ask(net: &Net, method: &str, path: &str, body: impl Display) -> Reply {
    ask_with(net, method, path, &standard_headers(), &body.to_string())
}

/// Sends a request with these headers, each with its end of line.
pub(super) fn ask_with(net: &Net, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let text = request(method, path, headers, body);
    net.within("gateway", || send(text.as_bytes())).expect("an answer")
}

pub(super) fn standard_headers() -> String {
    format!("{}x-broker-api-version: 2.17\r\n", authorization(PASSWORD))
}

pub(super) fn authorization(password: &str) -> String {
    format!(
        "authorization: Basic {}\r\n",
        STANDARD.encode(format!("platform:{password}"))
    )
}

pub(super) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends bytes on a connection of their own, from the namespace that the thread is in.
pub(super) fn send(bytes: &[u8]) -> io::Result<Reply> {
    Line::new()?.exchange(bytes)
}

/// A connection that is kept open.
pub(super) struct Line(BufReader<TcpStream>);

impl Line {
    pub(super) fn new() -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE * 3))?;
        stream.set_write_timeout(Some(PATIENCE * 3))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.0
            .get_mut()
            .set_read_timeout(Some(patience))
            .expect("failed to set a timeout");
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        read(&mut self.0)
    }

    pub(super) fn exchange(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        // A client that is answered before it has sent its whole request may be cut off.
        let sent = self.0.get_mut().write_all(bytes);
        read(&mut self.0).map_err(|error| sent.err().unwrap_or(error))
    }
}

/// Reads one answer whose length is known.
pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Reply> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = head.trim_end().replace("\r\n", "\n");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.and_then(|(_, length)| length.trim().parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Reply {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        head,
        body: String::from_utf8(body).map_err(io::Error::other)?,
    })
}

/// Returns the request with which a platform of that dialect provisions a resource for an app: method, path and body.
pub(super) fn provision(dialect: Dialect, app: &str, plan: &str) -> (&'static str, String, Value) {
    match dialect {
        Dialect::Osb => {
            let plan = if plan == "small" { SMALL } else { LARGE };
            let body = json!({
                "service_id": SERVICE, "plan_id": plan, "organization_guid": "organization", "space_guid": "space",
            });
            ("PUT", format!("/v2/service_instances/{app}"), body)
        }
        Dialect::Scalingo | Dialect::Local => (
            "POST",
            "/scalingo/resources".into(),
            json!({"plan": plan, "app_id": app, "options": {}}),
        ),
        Dialect::Heroku => {
            let body = json!({
                "plan": plan, "uuid": app, "name": "a", "region": "amazon-web-services::eu-west-1", "options": {},
                "callback_url": "https://example.com/x", "oauth_grant": {"code": "c", "type": "authorization_code"},
            });
            ("POST", "/heroku/resources".into(), body)
        }
        Dialect::CleverCloud => {
            let body = json!({
                "plan": plan, "addon_id": app, "owner_id": "o", "owner_name": "n", "user_id": "u", "region": "EU",
                "callback_url": "https://example.com/x", "options": {},
            });
            ("POST", "/clever-cloud/resources".into(), body)
        }
    }
}

/// Provisions, with the status that says it is new, and gives the path of the resource and its public port.
#[track_caller]
pub(super) fn provisioned(net: &Net, dialect: Dialect, app: &str) -> (String, u16) {
    let (method, path, body) = provision(dialect, app, "small");
    let reply = ask(net, method, &path, body);
    let path = resource(dialect, app, &reply);
    (path, port(net, dialect, app, &reply))
}

/// Returns the path of a resource that was provisioned.
#[track_caller]
pub(super) fn resource(dialect: Dialect, app: &str, reply: &Reply) -> String {
    let id = || reply.json()["id"].as_str().expect("an id").to_owned();
    match dialect {
        Dialect::Osb => format!("/v2/service_instances/{app}"),
        Dialect::Scalingo | Dialect::Local => format!("/scalingo/resources/{}", id()),
        Dialect::Heroku => format!("/heroku/resources/{app}"),
        Dialect::CleverCloud => format!("/clever-cloud/resources/{}", id()),
    }
}

/// Returns the port of `TCP_URL`, which OSB tells with a binding.
#[track_caller]
pub(super) fn port(net: &Net, dialect: Dialect, app: &str, reply: &Reply) -> u16 {
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    let url = match dialect {
        Dialect::Osb => {
            let body = json!({"service_id": SERVICE, "plan_id": SMALL});
            let path = format!("/v2/service_instances/{app}/service_bindings/of-the-tests");
            ask(net, "PUT", &path, body).json()["credentials"]["uri"].clone()
        }
        _ => reply.json()["config"]["TCP_URL"].clone(),
    };
    port_of(&url)
}

#[track_caller]
pub(super) fn port_of(url: &Value) -> u16 {
    let port = url
        .as_str()
        .and_then(|url| url.strip_prefix("tcp://gateway.example.com:"));
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{url} is no TCP_URL"))
}

/// Orders the plan `large` in the dialect's way.
pub(super) fn change_plan(net: &Net, dialect: Dialect, path: &str) -> Reply {
    match dialect {
        Dialect::Osb => ask(net, "PATCH", path, json!({"service_id": SERVICE, "plan_id": LARGE})),
        _ => ask(net, "PUT", path, json!({"plan": "large"})),
    }
}

/// Removes a resource.
pub(super) fn deprovision(net: &Net, path: &str) -> Reply {
    let query = if path.starts_with("/v2") {
        format!("?service_id={SERVICE}&plan_id={SMALL}")
    } else {
        String::new()
    };
    ask(net, "DELETE", &format!("{path}{query}"), "")
}

/// Returns the services of resources, as the daemon lists them.
pub(super) fn services(daemon: &Daemon<'_>) -> Vec<Value> {
    let list = daemon.get("/v1/services")["services"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.into_iter().filter(|listed| !listed["addon"].is_null()).collect()
}

/// Runs `work` with each number below `count`, on so many threads in the gateway's namespace.
pub(super) fn in_parallel(net: &Net, count: u32, threads: usize, work: impl Fn(u32) + Sync) {
    let counter = AtomicU32::new(0);
    let places: Vec<Place> = (0..threads).map(|_| net.place("gateway")).collect();
    std::thread::scope(|scope| {
        for place in places {
            let (counter, work) = (&counter, &work);
            scope.spawn(move || {
                place.enter();
                loop {
                    let number = counter.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.as_ref().map_or(0, Duration::as_secs)
}
