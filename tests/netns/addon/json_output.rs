//! Every command with `-o json` prints one JSON document, JSON lines or nothing to standard output, and never other text.

use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::platform::{configure, daemon};
use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;

/// Kind of the text on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Printed {
    Document,
    Lines,
    /// Nothing, because the message about a failure is on standard error.
    Nothing,
    /// Text of a format of its own, with any `-o`.
    Text,
}
use Printed::{Document, Lines, Nothing, Text};

/// Commands with their exit codes, in an order in which each has that exit code. `FILE` is a good state, `BAD` one with an error.
const TABLE: &[(&str, i32, Printed)] = &[
    ("check FILE", 0, Document),
    ("check BAD", 2, Document),
    ("check nowhere.json", 2, Nothing),
    ("check --what", 2, Nothing),
    ("render FILE", 0, Text),
    ("render BAD", 2, Document),
    ("diff FILE", 1, Document),
    ("diff BAD", 2, Document),
    ("apply --dry-run FILE", 0, Document),
    ("apply FILE", 0, Document),
    ("apply BAD", 2, Document),
    ("apply nowhere.json", 2, Nothing),
    ("diff FILE", 0, Document),
    ("wait api --for healthy", 0, Document),
    ("wait nobody --for healthy --timeout 1s", 1, Nothing),
    ("status --interval 0s", 0, Document),
    ("top --once --interval 200ms", 0, Document),
    ("status --service nobody --interval 0s", 1, Nothing),
    ("flows", 0, Document),
    ("flows --service nobody", 1, Nothing),
    ("who 10.2.0.1:4000", 1, Document),
    ("doctor", 0, Document),
    ("events", 0, Lines),
    ("deploy api --target 10.2.0.12:3000 --until switched", 0, Document),
    ("rollback api", 0, Document),
    ("rollback nobody", 1, Nothing),
    ("deploy api --target 10.2.0.13:9 --timeout 1s", 1, Document),
    ("deploy nobody --target 10.2.0.13:9", 1, Nothing),
    ("deploys", 0, Document),
    ("deploys 1", 0, Document),
    ("deploys 99", 1, Nothing),
    ("drain api 10.2.0.11:3000", 0, Document),
    ("drain nobody", 1, Nothing),
    ("undrain api", 0, Document),
    ("undrain nobody", 1, Nothing),
    ("pause api", 0, Document),
    ("pause nobody", 1, Nothing),
    ("resume api", 0, Document),
    ("resume nobody", 1, Nothing),
    ("service add web --port 2006 --backend 10.2.0.12:3000", 0, Document),
    ("service add web --port 2006 --backend 10.2.0.12:3000", 1, Nothing),
    ("service set web --label a=b", 0, Document),
    ("service set nobody --label a=b", 1, Nothing),
    ("service ls", 0, Document),
    ("service show web", 0, Document),
    ("service show nobody", 1, Nothing),
    ("service rm web", 0, Document),
    ("service rm web", 1, Nothing),
    ("addon provision my-app --plan small", 0, Document),
    ("addon provision other --plan none", 2, Document),
    ("addon plan my-app large", 0, Document),
    ("addon plan my-app --plan large", 0, Document),
    ("addon plan other large", 1, Nothing),
    ("addon suspend my-app", 0, Document),
    ("addon suspend other", 1, Nothing),
    ("addon resume my-app", 0, Document),
    ("addon resume other", 1, Nothing),
    ("addon ls", 0, Document),
    ("addon show my-app", 0, Document),
    ("addon show other", 1, Nothing),
    ("addon manifest --dialect scalingo", 0, Document),
    (
        "addon check http://127.0.0.1:9 --dialect scalingo --credentials CREDENTIALS --plan small",
        1,
        Document,
    ),
    ("env my-app", 0, Document),
    ("env other", 1, Nothing),
    ("addon deprovision my-app", 0, Document),
    ("addon deprovision my-app", 1, Nothing),
    ("history", 0, Document),
    ("export", 0, Document),
    ("export --provider nobody", 2, Nothing),
    ("up ps", 1, Nothing),
    ("up restart", 1, Nothing),
    ("up scale web=1", 1, Nothing),
    ("up run true", 1, Nothing),
    ("up stop", 0, Nothing),
    ("completions bash", 0, Text),
    ("man", 0, Text),
    ("help apply", 0, Text),
    ("teardown", 0, Document),
    ("resume", 0, Document),
];

/// Commands that run until they are ended.
const SERVE: [&str; 2] = ["daemon", "up"];

#[test]
fn no_command_mixes_json_with_text() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let config = configure(&net, "20000-20009", "");
    let _daemon = daemon(&net, &config);
    let good = net.state_file("good.json", state([service("api", 2005, &["b1"], 3000, json!({}))]));
    let bad = net.state_file(
        "bad.json",
        json!({"version": 1, "services": [{"name": "x", "port": 0}]}),
    );
    let credentials = net.file("credentials.toml").to_string_lossy().into_owned();
    let mut tested: BTreeSet<String> = SERVE.map(str::to_owned).into();
    // A backend with a connection drains until it is over, and until then a rollback returns to it.
    let mut held = Vec::new();
    for (line, status, expected) in TABLE {
        let words = line.split(' ').map(|word| match word {
            "FILE" => good.as_str(),
            "BAD" => bad.as_str(),
            "CREDENTIALS" => credentials.as_str(),
            word => word,
        });
        let words: Vec<&str> = ["--config", &config, "-o", "json"].into_iter().chain(words).collect();
        if line.starts_with("deploy api") {
            let public = at(PUBLIC[0], 2005);
            held.push(net.within("client", || {
                TcpStream::connect_timeout(&public, PATIENCE).expect("it is served")
            }));
        }
        let ran = net.cli(&words);
        assert_eq!(ran.status, *status, "{line}: {ran}");
        assert_eq!(printed(&ran.stdout), *expected, "{line}: {ran}");
        assert!(ran.stdout.is_empty() || ran.stdout.ends_with('\n'), "{line}: {ran}");
        assert!(*status != 2 || !ran.stderr.is_empty(), "{line}: {ran}");
        let parts: Vec<&str> = line.split(' ').collect();
        tested.insert(parts[0].to_owned());
        tested.extend(parts.get(1).map(|second| format!("{} {second}", parts[0])));
    }
    let missing: Vec<String> = all_commands(&net)
        .into_iter()
        .filter(|name| !tested.contains(name))
        .collect();
    assert!(missing.is_empty(), "they are not in the table: {missing:?}");
    // Without a daemon, each fails in words, or works on the kernel.
    for (line, _, expected) in TABLE.iter().filter(|(line, ..)| !line.starts_with("up ")) {
        let words = line.split(' ').map(|word| match word {
            "FILE" => good.as_str(),
            "BAD" => bad.as_str(),
            "CREDENTIALS" => credentials.as_str(),
            word => word,
        });
        let words: Vec<&str> = ["--config", &config, "--socket", "none", "-o", "json"]
            .into_iter()
            .chain(words)
            .collect();
        let ran = net.tcpgw(&words);
        let output = printed(&ran.stdout);
        assert!(
            output == *expected || matches!(output, Nothing | Document),
            "{line}: {ran}"
        );
        assert!(output != Nothing || !ran.stderr.is_empty(), "{line}: {ran}");
    }
}

fn printed(text: &str) -> Printed {
    let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    if text.is_empty() {
        Nothing
    } else if is_json(text) {
        Document
    } else if text.lines().all(is_json) {
        Lines
    } else {
        Text
    }
}

/// Returns all commands and subcommands that the help lists.
fn all_commands(net: &Net) -> Vec<String> {
    let help = |words: &[&str]| net.run("gateway", &[&[TCPGW, "help"], words].concat()).ok();
    let listed = |words: &[&str]| -> Vec<String> {
        let help = help(words);
        let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
        let lines = list.lines().take_while(|line| !line.is_empty());
        // Further lines of a description are indented more.
        let names = lines.filter_map(|line| {
            line.strip_prefix("  ")?
                .split(' ')
                .next()
                .filter(|name| !name.is_empty())
        });
        names.filter(|name| *name != "help").map(str::to_owned).collect()
    };
    // The list of all commands has two in a line, below one another.
    let all = help(&[]);
    let lines = all.lines().skip_while(|line| !line.starts_with("State file"));
    let lines = lines.take_while(|line| !line.is_empty());
    let first = lines.flat_map(|line| [14, 47].map(|place| line.get(place..).and_then(|rest| rest.split(' ').next())));
    let first: Vec<String> = first.flatten().map(str::to_owned).collect();
    assert!(first.len() > 20, "{first:?}");
    let below = first.iter().flat_map(|name| {
        let below = listed(&[name]);
        below.into_iter().map(move |second| format!("{name} {second}"))
    });
    let below: Vec<String> = below.collect();
    // Commands that have subcommands are run by their subcommands only, except these.
    let has_below = |name: &String| below.iter().any(|below| below.starts_with(&format!("{name} ")));
    let leaves = first.iter().filter(|name| !has_below(name)).cloned();
    leaves.chain(below.iter().cloned()).collect()
}
