//! Chromium in a host, driven through chromedriver (W3C `WebDriver`, and Chromium's own commands).

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::platform::{Reply, read};
use crate::harness::client::PATIENCE;
use crate::harness::plan::at;
use crate::harness::{Net, wait_until};

/// Options of Chromium: it runs as root, without a screen, and without requests of its own to the network.
const OPTIONS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    // No name server answers here.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
];
/// Longest start of a browser on a busy machine.
const STARTING: Duration = Duration::from_secs(60);

/// A browser with one window. All its processes end when the value is dropped.
pub(super) struct Browser<'n> {
    net: &'n Net,
    host: &'static str,
    driver: Child,
    session: String,
}

impl<'n> Browser<'n> {
    /// Starts one in that host, with a new profile.
    #[track_caller]
    pub(super) fn start(net: &'n Net, host: &'static str) -> Self {
        let home = net.file("browser");
        fs::create_dir_all(&home).expect("failed to make a directory");
        let port = format!("--port={}", driver_at().port());
        // The browser's processes are in a namespace that ends with the first of them, and that process ends with `unshare`.
        let words = ["unshare", "--pid", "--fork", "--kill-child", "chromedriver", &port];
        let mut command: Command = net.command(host, &words);
        command.env("HOME", &home).env("TMPDIR", &home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0);
        let driver = command
            .spawn()
            .expect("failed to run chromedriver: run vagrant/provision");
        let mut browser = Self {
            net,
            host,
            driver,
            session: String::new(),
        };
        let is_there = || net.within(host, || TcpStream::connect(driver_at()).is_ok());
        assert!(
            wait_until(STARTING, is_there),
            "chromedriver does not listen: is it installed? run vagrant/provision"
        );
        let mut options: Vec<String> = OPTIONS.map(String::from).to_vec();
        options.push(format!("--user-data-dir={}", home.join("profile").to_string_lossy()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": options},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let made = browser.ask("POST", "/session", &wanted);
        browser.session = made["sessionId"].as_str().expect("a session").into();
        // The browser begins with a page of its own.
        browser.open("about:blank");
        browser.requests();
        browser
    }

    /// Opens a page, and waits until it is there.
    #[track_caller]
    pub(super) fn open(&self, url: &str) {
        self.order("/url", &json!({"url": url}));
    }

    /// Runs a script's body in the page, and gives what it returns.
    #[track_caller]
    pub(super) fn script(&self, body: &str) -> Value {
        self.order("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// Clicks on the element of that selector, as a user does.
    #[track_caller]
    pub(super) fn click(&self, selector: &str) {
        let found = self.order("/element", &json!({"using": "css selector", "value": selector}));
        let element = found.as_object().and_then(|found| found.values().next()?.as_str());
        let element = element.expect("an element");
        self.order(&format!("/element/{element}/click"), &json!({}));
    }

    /// Gives a command of the Chrome `DevTools` protocol.
    #[track_caller]
    pub(super) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.order("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Makes the window so wide, and light or dark.
    #[track_caller]
    pub(super) fn set_window(&self, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Returns the URLs that the browser has requested since the last call.
    #[track_caller]
    pub(super) fn requests(&self) -> Vec<String> {
        let entries = self.order("/se/log", &json!({"type": "performance"}));
        let messages = entries.as_array().into_iter().flatten().filter_map(|entry| {
            let text = entry["message"].as_str()?;
            serde_json::from_str::<Value>(text).ok()
        });
        let sent = messages.filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent");
        sent.filter_map(|entry| Some(entry["message"]["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    /// Returns the entries of the browser's log since the last call: violations of the page's policy, and errors of scripts.
    #[track_caller]
    pub(super) fn complaints(&self) -> Vec<String> {
        let entries = self.order("/se/log", &json!({"type": "browser"}));
        let texts = entries.as_array().into_iter().flatten();
        texts.map(|entry| entry["message"].to_string()).collect()
    }

    /// Keeps a picture of the whole page in `TCPGW_SCREENSHOTS`, if that is set: for people.
    #[track_caller]
    pub(super) fn picture(&self, name: &str) {
        let Some(directory) = env::var_os("TCPGW_SCREENSHOTS") else {
            return;
        };
        let whole = json!({"captureBeyondViewport": true, "format": "png"});
        let shot = self.devtools("Page.captureScreenshot", &whole);
        let bytes = STANDARD
            .decode(shot["data"].as_str().expect("a picture"))
            .expect("base64");
        fs::write(Path::new(&directory).join(format!("{name}.png")), bytes).expect("failed to write a picture");
    }

    #[track_caller]
    fn order(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let reply = self
            .net
            .within(self.host, || exchange(method, path, body))
            .expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()["value"].clone()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            drop(self.net.within(self.host, || exchange("DELETE", &path, &json!({}))));
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

fn driver_at() -> SocketAddr {
    at("127.0.0.1", 9515)
}

fn exchange(method: &str, path: &str, body: &Value) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&driver_at(), PATIENCE)?;
    stream.set_read_timeout(Some(STARTING))?;
    let body = body.to_string();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n");
    let request = format!(
        "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    read(&mut BufReader::new(stream))
}
