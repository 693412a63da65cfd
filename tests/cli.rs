//! The program as a user without privilege sees it: bad input, exit codes, streams.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TCPGW: &str = env!("CARGO_BIN_EXE_tcpgw");
const GOOD: &str = r#"{"version":1,"services":[{"name":"a","port":20003,"backends":["10.2.0.11:3000"]}]}"#;

/// Input that is wrong in one way, and what must be said about it: a place and what is accepted.
const BAD: &[(&str, &str, &[&str])] = &[
    ("empty", "", &["XX"]),
    ("blank", " \n\t ", &["XX"]),
    ("truncated", r#"{"version":1,"services":[{"name":"a","po"#, &["line 1 column"]),
    ("two-documents", r#"{"version":1,"services":[]} {}"#, &["line 1 column"]),
    ("nul-bytes", "\0\0\0\0", &["line 1 column 1"]),
    ("nul-in-a-name", r#"{"version":1,"services":[{"name":"a\u0000b","port":20003,"backends":[]}]}"#, &["services[0].name"]),
    ("raw-nul", "{\"version\":1,\"services\":[]\0}", &["line 1 column"]),
    ("byte-order-mark", "\u{feff}{\"version\":1,\"services\":[]}", &["line 1 column 1"]),
    ("list", "[]", &["XX"]),
    ("null", "null", &["XX"]),
    ("no-version", r#"{"services":[]}"#, &["version"]),
    ("next-version", r#"{"version":2,"services":[]}"#, &["version"]),
    ("no-services", r#"{"version":1}"#, &["services"]),
    ("unknown-field", r#"{"version":1,"services":[],"servces":[]}"#, &["servces"]),
    ("duplicate-key", r#"{"version":1,"services":[],"services":[]}"#, &["services"]),
];

/// A value of one member of a service, and what must be said about it.
const BAD_MEMBERS: &[(&str, &str, &[&str])] = &[
    ("port", "\"20003\"", &["services[0].port"]),
    ("port", "0", &["services[0].port", "65535"]),
    ("port", "65536", &["services[0].port", "65535"]),
    ("port", "-1", &["services[0].port", "65535"]),
    ("port", "1e3", &["services[0].port"]),
    ("port", "99999999999999999999999999999999", &["services[0].port"]),
    ("port", "null", &["services[0].port"]),
    ("name", "\"\"", &["services[0].name"]),
    ("name", "\"A\"", &["services[0].name"]),
    ("name", "\"\\u001b[31m\"", &["services[0].name"]),
    ("backends", "[\"10.2.0.11\"]", &["services[0].backends[0]"]),
    ("backends", "[\"10.2.0.11:0\"]", &["services[0].backends[0]"]),
    ("backends", "[\"10.2.0.11:65536\"]", &["services[0].backends[0]"]),
    ("backends", "[\"[::ffff:10.2.0.11]:3000\"]", &["services[0].backends[0]", "IPv4"]),
    ("backends", "[\"[fe80::1%eth0]:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"[fd00::1%eth0]:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"localhost:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"db.example.org:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"010.2.0.11:3000\"]", &["services[0].backends[0]"]),
    ("backends", "[\"127.0.0.1:3000\"]", &["services[0].backends[0]", "loopback"]),
    ("backends", "[\"[::1]:3000\"]", &["services[0].backends[0]", "loopback"]),
    ("backends", "[\"169.254.169.254:80\"]", &["services[0].backends[0]", "link-local"]),
    ("backends", "[\"224.0.0.1:80\"]", &["services[0].backends[0]", "multicast"]),
    ("backends", "[\"0.0.0.0:80\"]", &["services[0].backends[0]", "unspecified"]),
    ("backends", "[\"255.255.255.255:80\"]", &["services[0].backends[0]", "broadcast"]),
    ("backends", "[\"10.2.0.11:1\",\"10.2.0.11:1\"]", &["services[0].backends[1]"]),
    ("backends", "{}", &["services[0].backends"]),
    ("backends", "[{\"address\":\"10.2.0.11\",\"port\":1,\"weight\":0}]", &["services[0].backends[0].weight", "256"]),
    ("backends", "[{\"address\":\"10.2.0.11\",\"port\":1,\"weight\":257}]", &["services[0].backends[0].weight", "256"]),
    ("backends", "[{\"address\":\"10.2.0.11\",\"port\":1,\"state\":\"up\"}]", &["services[0].backends[0].state", "draining"]),
    ("limit", "{\"pps\":\"1000\"}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":0}", &["services[0].limit.pps", "1000000"]),
    ("limit", "{\"pps\":1000001}", &["services[0].limit.pps", "1000000"]),
    ("limit", "{\"pps\":-1}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1e99}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1,\"pps\":2}", &["services[0].limit.pps"]),
    ("limit", "{\"pps\":1,\"burst\":0}", &["services[0].limit.burst"]),
    ("limit", "1000", &["services[0].limit"]),
    ("addresses", "[\"gateway\"]", &["services[0].addresses[0]"]),
    ("addresses", "[\"::ffff:203.0.113.1\"]", &["services[0].addresses[0]"]),
    ("addresses", "[\"fe80::1%eth0\"]", &["services[0].addresses[0]"]),
    ("allow", "[\"10.0.0.0/33\"]", &["services[0].allow[0]"]),
    ("deny", "[\"everyone\"]", &["services[0].deny[0]"]),
    ("balance", "\"fair\"", &["services[0].balance", "source-hash"]),
    ("drain_timeout", "30", &["services[0].drain_timeout"]),
    ("drain_timeout", "\"-1s\"", &["services[0].drain_timeout"]),
];

#[test]
fn show() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text, _) in bad() {
        let file = write(dir.path(), "state.json", text.as_bytes());
        let out = run(&["check", &file]);
        println!("{name}: {}\n   {}", out.status, err(&out));
    }
}

fn bad() -> Vec<(String, String, &'static [&'static str])> {
    let documents = BAD.iter().map(|(name, text, said)| ((*name).to_owned(), (*text).to_owned(), *said));
    let members = BAD_MEMBERS.iter().map(|(member, value, said)| {
        let others = [("name", "\"a\""), ("port", "20003"), ("backends", "[]")];
        let others = others.iter().filter(|(other, _)| other != member).map(|(other, value)| format!(",\"{other}\":{value}"));
        let text = format!("{{\"version\":1,\"services\":[{{\"{member}\":{value}{}}}]}}", others.collect::<String>());
        (format!("{member} {value}"), text, *said)
    });
    documents.chain(members).collect()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    let path = dir.join(name);
    fs::write(&path, bytes).expect("a file can be written");
    path.to_str().expect("temporary paths are text").to_owned()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(TCPGW);
    command.args(args).env("TCPGW_CONFIG", "/dev/null").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the program runs")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
