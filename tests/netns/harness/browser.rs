//! Chromium in a host, driven through chromedriver (W3C `WebDriver`, and Chromium's own commands).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::PATIENCE;
use super::libraries::libraries;
use super::plan::at;
use super::{Net, wait_until};

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
pub(crate) struct Browser<'n> {
    net: &'n Net,
    host: &'static str,
    driver: Child,
    session: String,
}

impl<'n> Browser<'n> {
    /// Starts one in that host, with a new profile.
    #[track_caller]
    pub(crate) fn start(net: &'n Net, host: &'static str) -> Self {
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
    pub(crate) fn open(&self, url: &str) {
        self.order("/url", &json!({"url": url}));
    }

    /// Runs a script's body in the page, and gives what it returns.
    #[track_caller]
    pub(crate) fn script(&self, body: &str) -> Value {
        self.order("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// Runs a script's body that calls its last argument with a result when it has one, and gives that.
    #[track_caller]
    pub(crate) fn script_until_done(&self, body: &str) -> Value {
        self.order("/execute/async", &json!({"script": body, "args": []}))
    }

    /// Returns what axe-core finds wrong with the page, by its rule and the elements.
    #[track_caller]
    pub(crate) fn axe(&self) -> Vec<String> {
        let library = libraries("dashboard-tools", "node_modules/axe-core", "dashboard");
        let source = fs::read_to_string(library.join("node_modules/axe-core/axe.min.js")).expect("axe-core has a file");
        self.script(&source);
        let found = self.script_until_done(
            "const done = arguments[arguments.length - 1];
             const words = (found) => found.id + ': ' + found.nodes.map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary).join(' | ');
             axe.run(document, { resultTypes: ['violations'] }).then(
               (result) => done([result.passes.length, ...result.violations.map(words)]), (error) => done([0, String(error)]));",
        );
        let mut found = found.as_array().expect("a list").iter();
        let passed = found.next().and_then(Value::as_u64).unwrap_or(0);
        assert!(passed > 5, "axe-core has looked at nothing: {found:?}");
        found
            .map(|words| words.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Presses a key and releases it: `Tab`, `Enter`.
    #[track_caller]
    pub(crate) fn press(&self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => panic!("no code of {other} is known"),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.devtools("Input.dispatchKeyEvent", &event);
        }
    }

    /// Clicks on the element of that selector, as a user does.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let found = self.order("/element", &json!({"using": "css selector", "value": selector}));
        let element = found.as_object().and_then(|found| found.values().next()?.as_str());
        let element = element.expect("an element");
        self.order(&format!("/element/{element}/click"), &json!({}));
    }

    /// Gives a command of the Chrome `DevTools` protocol.
    #[track_caller]
    pub(crate) fn devtools(&self, command: &str, params: &Value) -> Value {
        self.order("/goog/cdp/execute", &json!({"cmd": command, "params": params}))
    }

    /// Makes the window so wide, and light or dark.
    #[track_caller]
    pub(crate) fn set_window(&self, width: u32, scheme: &str) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Returns the URLs that the browser has requested since the last call.
    #[track_caller]
    pub(crate) fn requests(&self) -> Vec<String> {
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
    pub(crate) fn complaints(&self) -> Vec<String> {
        let entries = self.order("/se/log", &json!({"type": "browser"}));
        let texts = entries.as_array().into_iter().flatten();
        texts.map(|entry| entry["message"].to_string()).collect()
    }

    /// Keeps a picture of the whole page in `TCPGW_SCREENSHOTS`, if that is set: for people.
    #[track_caller]
    pub(crate) fn picture(&self, name: &str) {
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
        let (status, answer) = reply;
        assert_eq!(status, 200, "{path}: {answer}");
        answer["value"].clone()
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

/// Asks chromedriver. Returns the status and the answer.
fn exchange(method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect_timeout(&driver_at(), PATIENCE)?;
    stream.set_read_timeout(Some(STARTING))?;
    let body = body.to_string();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n");
    let request = format!(
        "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut answer = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut answer)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((
        status.ok_or(io::ErrorKind::InvalidData)?,
        serde_json::from_slice(&answer)?,
    ))
}
