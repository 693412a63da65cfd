//! The dashboard in a real browser.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::addon::platform;
use crate::harness::brief::{endpoints, service, state};
use crate::harness::browser::Browser;
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::at;
use crate::harness::server::Behaviour;
use crate::harness::{Net, wait_until};

const TOKEN: &str = "token-of-the-tests-0123456789";

fn listener() -> SocketAddr {
    at("127.0.0.1", 9464)
}

/// Returns the URL of a page.
fn url(path: &str) -> String {
    format!("http://{}{path}", listener())
}

/// Starts a daemon with a dashboard, which asks for the token if `has_token`. Its services come by the API.
#[track_caller]
fn daemon(net: &Net, has_token: bool) -> Daemon<'_> {
    let token = net.file("web.token");
    fs::write(&token, TOKEN).expect("failed to write a token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("failed to protect a token");
    let token = if has_token {
        format!("token_file = \"{}\"", token.to_string_lossy())
    } else {
        String::new()
    };
    let text = format!(
        "[web]\nlisten = \"{}\"\n{token}\n[daemon]\ncount_traffic = true\n",
        listener()
    );
    let config = platform::configure(net, "20000-20009", &text);
    let daemon = net.daemon_without_state(&["--config", &config]);
    let is_there = || net.within("gateway", || TcpStream::connect(listener()).is_ok());
    assert!(wait_until(PATIENCE, is_there), "no listener");
    daemon
}

/// Returns what a person reads on the page.
#[track_caller]
fn text(browser: &Browser<'_>) -> String {
    let text = browser.script("return document.body.innerText");
    text.as_str().expect("a text").to_owned()
}

/// Text that would act if it were not text.
const HOSTILE: &str = "</td><script>window.acted = 1</script><img src=x onerror='window.acted = 2'>";

/// Asserts that a page is readable in light and dark, wide and narrow, that axe-core finds nothing wrong with it, and that nothing is
/// refused by its policy. Keeps its pictures.
#[track_caller]
fn is_readable(browser: &Browser<'_>, path: &str, name: &str) {
    drop(browser.complaints());
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light")] {
        browser.set_window(width, scheme);
        browser.open(&url(path));
        assert_eq!(browser.axe(), Vec::<String>::new(), "{path} {width} {scheme}");
        let wide = browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, json!(0), "{path} {width}: it has to be scrolled sideways");
        browser.picture(&format!("dashboard-{name}-{width}-{scheme}"));
    }
    browser.set_window(1280, "light");
    let mut complaints = browser.complaints();
    complaints.retain(|text| path != "/nothing" || !text.contains("404"));
    assert_eq!(complaints, Vec::<String>::new(), "{path}");
    let acted = browser.script("return [window.acted ?? 0, document.querySelectorAll('main img').length]");
    assert_eq!(acted, json!([0, 0]), "{path}: text of others has acted");
}

#[test]
fn each_page_is_readable_and_follows_what_happens() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, false);
    let labels = json!({"limit": {"pps": 1000}, "labels": {"note": HOSTILE}});
    let web = service("web", 2001, &["b1"], 3000, labels);
    let down = service("down", 2002, &["b3"], 3999, json!({}));
    daemon.post("/v1/apply", state([web, down])).ok();
    daemon.settles(2);
    let browser = Browser::start(&net, "gateway");
    follows_a_deploy(&net, &daemon, &browser);
    let made = net.told(&["addon", "provision", "my-app", "--plan", "small"]);
    let app = format!("/apps/{}", made["resource"]["id"].as_str().expect("an id"));
    for (path, name) in PAGES.into_iter().chain([(&*app, "app")]) {
        is_readable(&browser, path, name);
    }
    // What a request brings stays text, too.
    browser.open(&url(&format!(
        "/services?q={}",
        "%3Cscript%3Ewindow.acted=1%3C/script%3E%3Cimg%20src=x%20onerror=window.acted=2%3E"
    )));
    assert_eq!(browser.script("return window.acted ?? 0"), json!(0));
}

/// Pages and the names of their pictures.
const PAGES: [(&str, &str); 6] = [
    ("/", "overview"),
    ("/services", "services"),
    ("/services/web", "service"),
    ("/deploys/1", "deploy"),
    ("/doctor", "doctor"),
    ("/nothing", "nothing"),
];

/// Returns the text of the page's tables, without what was announced.
fn rows(browser: &Browser<'_>) -> String {
    let rows =
        browser.script("return [...document.querySelectorAll('main table')].map((table) => table.innerText).join(' ')");
    rows.as_str().expect("text").to_owned()
}

/// Asserts that an open page shows and says what happens, without being loaded anew, and that it leaves the focus where it is.
#[track_caller]
fn follows_a_deploy(net: &Net, daemon: &Daemon<'_>, browser: &Browser<'_>) {
    browser.open(&url("/"));
    browser.script("window.same = 1; document.querySelector('.live a[href=\"/services\"]').focus()");
    let [one, other] = endpoints("b2", 3000);
    let words = [
        "deploy", "web", "--target", &one, "--target", &other, "--until", "switched",
    ];
    net.cli(&words).ok();
    let reported = || browser.script("return document.getElementById('said').textContent");
    let is_said = || {
        reported()
            .as_str()
            .is_some_and(|said| said.contains("Deploy 1 of service web: switched."))
    };
    assert!(wait_until(PATIENCE, is_said), "{} {:#?}", reported(), daemon.events());
    let is_kept = browser.script("return [window.same, document.activeElement.getAttribute('href')]");
    assert_eq!(
        is_kept,
        json!([1, "/services"]),
        "it was loaded anew, or the focus has gone"
    );
    // New services appear without a visit.
    browser.open(&url("/services"));
    let more = service("zebra", 2003, &["b3"], 3998, json!({}));
    assert!(!text(browser).contains("zebra"), "{}", text(browser));
    let made = daemon
        .ask("PUT", "/v1/services/zebra", &more.to_string())
        .expect("an answer");
    assert_eq!(made.status, 201, "{made:?}");
    assert!(
        wait_until(PATIENCE, || rows(browser).contains("zebra")),
        "{}",
        text(browser)
    );
    // Whoever wants to read in peace pauses it, by keyboard, too.
    browser.click("#updates");
    let button = browser.script("return document.getElementById('updates').textContent");
    assert_eq!(button, "Go on with updates");
    daemon.ask("DELETE", "/v1/services/zebra", "").expect("an answer").ok();
    browser.click("#updates");
    assert!(
        wait_until(PATIENCE, || !rows(browser).contains("zebra")),
        "{}",
        text(browser)
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Returns whether the page says that it may be out of date.
#[track_caller]
fn is_stale(browser: &Browser<'_>) -> bool {
    browser.script("return !document.getElementById('stale').hidden") == true
}

#[test]
fn an_open_page_notices_silence_and_the_end_of_what_it_shows() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, false);
    let web = service("web", 2001, &["b1"], 3000, json!({}));
    daemon.post("/v1/apply", state([web])).ok();
    daemon.settles(2);
    let browser = Browser::start(&net, "gateway");
    browser.open(&url("/services/web"));
    browser.script("window.same = 1");
    // A stream of events that lives: messages come also where nothing changes.
    thread::sleep(Duration::from_secs(13));
    assert!(!is_stale(&browser), "{}", text(&browser));

    // The connections stay as they are, as in a tunnel whose other end is gone.
    daemon.signal(Signal::SIGSTOP);
    let is_noticed = wait_until(Duration::from_secs(20), || is_stale(&browser));
    daemon.signal(Signal::SIGCONT);
    assert!(is_noticed, "{}", text(&browser));
    assert!(
        wait_until(PATIENCE * 2, || !is_stale(&browser)),
        "it does not follow again: {}",
        text(&browser)
    );
    assert_eq!(
        browser.script("return window.same ?? 0"),
        json!(1),
        "it was loaded anew"
    );

    net.cli(&["service", "rm", "web", "--drain", "0s"]).ok();
    let is_told = || text(&browser).contains("There is no service named \"web\" here.");
    assert!(wait_until(PATIENCE * 2, is_told), "{}", text(&browser));
    assert!(!text(&browser).contains("clients are served"), "{}", text(&browser));
}

/// Returns how many pauses have begun.
fn pauses(daemon: &Daemon<'_>) -> usize {
    daemon.events_of("paused").len()
}

#[test]
fn an_order_is_asked_twice_and_says_that_a_browser_sent_it() {
    let net = Net::new();
    net.sysctl("net.netfilter.nf_conntrack_acct", 1);
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let daemon = daemon(&net, true);
    daemon
        .post(
            "/v1/apply",
            state([service("web", 2001, &["b1", "b2"], 3000, json!({}))]),
        )
        .ok();
    daemon.settles(4);
    let browser = Browser::start(&net, "gateway");
    browser.open(&format!("http://me:{TOKEN}@{}/services/web/pause", listener()));
    let text = browser.script("return document.body.innerText");
    assert!(
        text.as_str().is_some_and(|text| text.contains("Pause service web?")),
        "{text}"
    );
    assert_eq!(browser.axe(), Vec::<String>::new());
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // A form of another site, which the browser sends with the credentials that it has.
    let form = format!(
        "<form method=post action={}><button>Win</button></form>",
        url("/services/web/pause")
    );
    browser.open(&format!("data:text/html,{form}"));
    browser.click("button");
    let is_refused = || {
        let text = browser.script("return document.body.innerText");
        text.as_str().is_some_and(|text| text.contains("nothing was done"))
    };
    assert!(
        wait_until(PATIENCE, is_refused),
        "{}",
        browser.script("return document.body.innerText")
    );
    assert_eq!(pauses(&daemon), 0);
    drop(browser.complaints());

    // By keyboard alone, and without scripts: past the links and the choice of a time, to the button.
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.open(&url("/services/web/pause"));
    for _ in 0..20 {
        if browser.script("return document.activeElement.textContent") == "Pause" {
            break;
        }
        browser.press("Tab");
    }
    browser.press("Enter");
    assert!(wait_until(PATIENCE, || pauses(&daemon) == 1), "{:#?}", daemon.events());
    let paused = daemon.events_of("paused");
    assert_eq!(paused[0]["through"], "web (127.0.0.1)", "{paused:?}");
    assert_eq!(paused[0]["seconds"], 30, "{paused:?}");
    browser.open(&url("/services/web/resume"));
    browser.click("form button");
    assert!(
        wait_until(PATIENCE, || daemon.events_of("resumed").len() == 1),
        "{:#?}",
        daemon.events()
    );

    let backend = endpoints("b1", 3000)[0].clone();
    browser.open(&url(&format!("/services/web/drain?backend={backend}")));
    browser.click("form button");
    let history = || daemon.get("/v1/history?service=web")["entries"].clone();
    let is_recorded = || history()[0]["what"] == "drain through web (127.0.0.1)";
    assert!(wait_until(PATIENCE, is_recorded), "{:#}", history());
}
