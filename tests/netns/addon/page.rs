//! An app's page in a browser: its contents, its accessibility, and that text of other authors in it is inert.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tcpgw::addon::Dialect;

use super::platform::{PASSWORD, SMALL, address, ask, daemon, now, provision, write_credentials};
use super::sign_on::{fields, form};
use crate::harness::brief::{endpoints, state};
use crate::harness::browser::Browser;
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

/// App name with the most unusual characters that are valid.
const APP: &str = "my-app.~_@x:javascript:alert-1-and-a-long-name-that-has-no-blank-where-a-line-could-be-broken";
const HOSTILE: &str = "</p><script>window.acted = 1</script><img src=x onerror='window.acted = 2'><b onmouseover=1>";
/// Container address where no server listens.
const NOBODY: &str = r#"{"backends": ["10.2.0.250:1"]}"#;

fn configure(net: &Net) -> String {
    write_credentials(net, PASSWORD);
    let credentials = net.file("credentials.toml");
    let text = format!(
        "[addon]\nlisten = \"{}\"\nhost = \"gateway.example.com\"\nports = \"20000-20009\"\ncredentials = \"{}\"\n\
         platform_url = \"https://dashboard.example.com/apps/{{app}}/resources\"\n\
         [[addon.plans]]\nname = \"small\"\nid = \"{SMALL}\"\npps = 500\nburst = 500\ndescription = \"{HOSTILE}\"\n",
        address(),
        credentials.to_string_lossy()
    );
    let path = net.file("config.toml");
    fs::write(&path, text).expect("failed to write a configuration");
    path.to_string_lossy().into_owned()
}

/// Returns the address that signs a user on and leads to the page.
fn sign_on(id: &str) -> String {
    let fields = form(&fields(Dialect::Scalingo, id, now()));
    format!("http://{}/scalingo/sso?{fields}", address())
}

#[track_caller]
fn text(browser: &Browser<'_>) -> String {
    let text = browser.script("return document.body.innerText");
    text.as_str().expect("a text").to_owned()
}

#[track_caller]
fn shows(browser: &Browser<'_>, expected: &[&str]) {
    let text = text(browser);
    for expected in expected {
        assert!(text.contains(expected), "no {expected:?}: {text}");
    }
}

/// WCAG 2.2: language, one heading of the first level, names of buttons and links, headings of columns and rows, and contrast of
/// 4.5 to 1 for all text (1.4.3). Returns what is wrong.
const ACCESSIBILITY: &str = r#"
const wrong = [];
if (document.documentElement.lang !== "en") wrong.push("no language");
if (!document.title.startsWith("TCP gateway: my-app")) wrong.push("title " + document.title);
if (document.querySelectorAll("h1").length !== 1) wrong.push("h1");
const levels = [...document.querySelectorAll("h1,h2,h3,h4")].map((h) => Number(h.tagName[1]));
if (levels.some((level, at) => at > 0 && level > levels[at - 1] + 1)) wrong.push("levels " + levels);
if (!document.querySelector("main") || !document.querySelector("nav")) wrong.push("landmarks");
for (const named of document.querySelectorAll("a,button")) if (!named.textContent.trim()) wrong.push("a name");
for (const th of document.querySelectorAll("th")) if (!th.scope) wrong.push("scope of " + th.textContent);
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = (color) => {
  const part = color.slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = rgba(getComputedStyle(at).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
};
let seen = 0;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  seen += 1;
  if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)} of ${walker.currentNode.data}`);
}
if (seen < 40) wrong.push("texts " + seen);
return wrong;
"#;

/// Script that returns how much wider the page is than the window, and the elements that extend beyond it.
const TOO_WIDE: &str = "const width = document.documentElement.clientWidth;
const out = [...document.querySelectorAll('main *, header *')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > width + 1);
return [document.documentElement.scrollWidth - width, ...out.map((e) => e.outerHTML.slice(0, 200))];";

#[test]
fn an_apps_page_is_for_its_owner() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let _sinks = net.serve_all(4000, Behaviour::Sink);
    let daemon = daemon(&net, &configure(&net));
    let (method, path, body) = provision(Dialect::Scalingo, APP, "small");
    let made = ask(&net, method, &path, body).is(201);
    let id = made["id"].as_str().expect("an id").to_owned();
    let (method, path, body) = provision(Dialect::Scalingo, "another-app", "small");
    ask(&net, method, &path, body).is(201);

    let browser = Browser::start(&net, "gateway");
    browser.open(&sign_on(&id));
    shows(
        &browser,
        &[
            "TCP_URL=tcp://gateway.example.com:20000",
            "None is registered",
            "None yet.",
            "500 packets",
        ],
    );
    assert_eq!(
        browser.script("return document.querySelector('nav a').href"),
        "https://dashboard.example.com/apps/my-app.~_%40x%3Ajavascript%3Aalert-1-and-a-long-name-that-has-no-blank-where-a-line-could-be-broken/resources"
    );

    let edit = |body: &str| {
        daemon
            .ask("PATCH", &format!("/v1/services/addon-{id}"), body)
            .expect("an answer")
            .ok()
    };
    edit(NOBODY);
    browser.open(&format!("http://{}/apps/{id}", address()));
    shows(&browser, &["No container gets new connections", "waits"]);
    edit(r#"{"backends": []}"#);
    let backends = traffic(&net, &browser, &format!("addon-{id}"));

    // No text of other authors has been executed, and no other server got a request.
    assert_eq!(
        browser.script("return [window.acted, document.querySelectorAll('main img').length]"),
        json!([null, 0])
    );
    shows(&browser, &[HOSTILE]);
    assert!(!text(&browser).contains("another-app") && !text(&browser).contains("20001"));
    let own = format!("http://{}/", address());
    let requests = browser.requests();
    assert!(
        requests.len() > 3 && requests.iter().all(|url| url.starts_with(&own)),
        "{requests:?}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
    copies(&browser);

    // Without scripts it says the same.
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.open(&format!("http://{}/apps/{id}", address()));
    shows(
        &browser,
        &["TCP_URL=tcp://", &backends[1], "Over the limit", "Plan", "Last deploys"],
    );
    let hidden = browser.script("return document.querySelector('button').checkVisibility()");
    assert_eq!(hidden, false, "a button that would do nothing");
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": false}));

    states(&net, &browser, &id, &daemon);
}

/// Deploys, clients, and more traffic than the limit: the open page follows. Returns the containers of the last deploy.
#[track_caller]
fn traffic(net: &Net, browser: &Browser<'_>, service: &str) -> [String; 2] {
    let deploy = |port| {
        let targets = ["b1", "b2"].map(|host| endpoints(host, port)[0].clone());
        let [one, other] = &targets;
        let words = [
            "deploy", service, "--target", one, "--target", other, "--until", "switched",
        ];
        net.cli(&words).ok();
        targets
    };
    deploy(3000);
    let to = at(PUBLIC[0], 20000);
    let connect = |_| net.connect("client", to).expect("a connection");
    let mut held: Vec<_> = (0..5).map(connect).collect();
    for conn in &mut held {
        conn.greeting().expect("a greeting");
    }
    let backends = deploy(4000);
    thread::scope(|scope| {
        scope.spawn(|| net.push("client", to, Duration::from_secs(5)).expect("a push"));
        let is_shown = || {
            let text = text(browser);
            text.contains("Over the limit, to containers") && text.contains("Rates are taken over")
        };
        assert!(wait_until(PATIENCE, is_shown), "{}", text(browser));
        let expected = [
            &*backends[0],
            "in use",
            "drains",
            "answers",
            "Open connections",
            "A larger plan or more containers",
            "new connections go to the new containers, the old ones drain",
        ];
        shows(browser, &expected);
        readable(browser, "page");
    });
    backends
}

/// Asserts that the page is readable in light and dark, and in wide and narrow windows: nothing is cut off, and all contrasts are
/// sufficient.
#[track_caller]
fn readable(browser: &Browser<'_>, name: &str) {
    for (width, scheme) in [
        (1100, "light"),
        (1100, "dark"),
        (360, "light"),
        (360, "dark"),
        (320, "light"),
    ] {
        browser.set_window(width, scheme);
        browser.picture(&format!("{name}-{width}-{scheme}"));
        let wide = browser.script(TOO_WIDE);
        assert_eq!(wide, json!([0]), "{width}: it has to be scrolled sideways");
        let wrong = browser.script(ACCESSIBILITY);
        assert_eq!(wrong, json!([]), "{width} {scheme}");
    }
    browser.set_window(1100, "light");
}

/// Asserts that the button copies, or selects the text where the browser forbids copying.
#[track_caller]
fn copies(browser: &Browser<'_>) {
    let reported = || browser.script("return document.getElementById('copied').textContent");
    browser.click("button");
    assert!(wait_until(PATIENCE, || reported() == "Copied"), "{}", reported());
    for (forbid, says) in [
        ("", "Copied"),
        ("document.execCommand = () => false;", "Selected: copy it with Ctrl+C"),
    ] {
        browser.script(&format!(
            "Object.defineProperty(navigator, 'clipboard', {{value: undefined, configurable: true}}); {forbid}
             document.getElementById('copied').textContent = ''"
        ));
        browser.click("button");
        assert!(wait_until(PATIENCE, || reported() == says), "{}", reported());
        let selected = browser.script("return getSelection().toString()");
        assert_eq!(selected, "tcp://gateway.example.com:20000");
    }
}

/// Asserts that new connections wait during a pause, and that the page stops reporting the pause when it is over.
fn paused(net: &Net, says: &dyn Fn(&str, bool)) {
    const WAITING: &str = "The operator holds new connections back for";
    let app = format!("app:{APP}");
    net.cli(&["pause", &app, "--for", "600s"]).ok();
    says(WAITING, true);
    says("s more: clients wait. Open connections go on.", true);
    net.cli(&["resume", &app]).ok();
    says(WAITING, false);
}

/// Asserts that a change which is not possible on the gateway is held back, and that the page reports that the former state
/// stays.
fn held_back(daemon: &Daemon<'_>, service: &str, says: &dyn Fn(&str, bool)) {
    const KEPT: &str = "The last change cannot be put into effect on the gateway now; what was there before stays.";
    let before = daemon.get(service)["service"].clone();
    let mut after = before.clone();
    after["source_addresses"] = json!(["10.2.0.251"]);
    daemon.post("/v1/apply?hold_back=true", state([after])).ok();
    says(KEPT, true);
    daemon.post("/v1/apply", state([before])).ok();
    says(KEPT, false);
}

/// Asserts that the page reports each state in the owner's words: suspended, paused, held back, without a healthy container,
/// removed while the page is open.
fn states(net: &Net, browser: &Browser<'_>, id: &str, daemon: &Daemon<'_>) {
    let page = format!("http://{}/apps/{id}", address());
    let resource = format!("/scalingo/resources/{id}");
    let service = format!("/v1/services/addon-{id}");
    let says_or_not = |expected: &str, is_said: bool| {
        let is_so = wait_until(PATIENCE, || {
            browser.open(&page);
            text(browser).contains(expected) == is_said
        });
        assert!(is_so, "{expected:?} is to be said: {is_said}: {}", text(browser));
    };
    let says = |expected| says_or_not(expected, true);
    paused(net, &says_or_not);
    daemon.ask("PATCH", &service, NOBODY).expect("an answer").ok();
    says("until another container answers");
    held_back(daemon, &service, &says_or_not);
    assert_eq!(ask(net, "POST", &format!("{resource}/suspend"), "").status, 204);
    says("The add-on is suspended");
    shows(
        browser,
        &["gets new connections again when the add-on is resumed", "not probed"],
    );
    assert!(!text(browser).contains("not probed yet"), "{}", text(browser));
    readable(browser, "suspended");
    net.tcpgw(&["--socket", &net.socket().to_string_lossy(), "teardown"])
        .ok();
    says("its operator has switched it off");
    net.tcpgw(&["--socket", &net.socket().to_string_lossy(), "resume"]).ok();
    // The page is open while the resource is removed, and its script notices.
    browser.open(&page);
    assert_eq!(ask(net, "DELETE", &resource, "").status, 204);
    let is_told = || text(browser).contains("This add-on was removed");
    assert!(wait_until(PATIENCE * 2, is_told), "{}", text(browser));
    browser.picture("removed");
}
