//! The words of hints: errors name what to do as a command of the command line, and a program that speaks HTTP itself is told
//! the request that does the same.
//!
//! Messages are written with commands, in backticks: `` `tcpgw service ls` ``. Commands without a request of their own
//! (`tcpgw doctor`) stay commands for all clients.

use std::borrow::Cow;
use std::io::{self, Write};

use axum::http::{HeaderMap, header};

/// Value of the header `user-agent` that the command line sends.
pub const USER_AGENT: &str = concat!("tcpgw/", env!("CARGO_PKG_VERSION"));

/// Commands, and the requests that do the same; `{}` stands for the command's next word. The first that fits counts.
const TABLE: &[(&str, &str)] = &[
    ("service ls", "GET /v1/services"),
    ("service rm", "DELETE /v1/services/NAME"),
    ("service rm {}", "DELETE /v1/services/{}"),
    ("service set", "PATCH /v1/services/NAME"),
    ("service set {} --take-over", "PATCH /v1/services/{}?take_over=true"),
    ("service set {}", "PATCH /v1/services/{}"),
    ("apply", "POST /v1/apply"),
    ("apply FILE", "POST /v1/apply"),
    ("apply state.json", "POST /v1/apply"),
    ("apply -o json", "POST /v1/apply"),
    ("apply --prune", "POST /v1/apply?prune=true"),
    ("rollback {}", "POST /v1/services/{}/rollback"),
    ("history {}", "GET /v1/history?service={}"),
    ("deploy", "POST /v1/services/NAME/deploys"),
    ("deploys", "GET /v1/deploys"),
    ("deploys {}", "GET /v1/deploys/{}"),
    ("resume", "POST /v1/resume"),
    ("resume {}", "POST /v1/services/{}/resume"),
    ("teardown", "POST /v1/teardown"),
    ("status", "GET /v1/status"),
    ("export", "GET /v1/export"),
    ("export > FILE", "GET /v1/export"),
    ("export >state.json", "GET /v1/export"),
    ("export --provider file", "GET /v1/export?provider=file"),
    ("export --provider file > {}", "GET /v1/export?provider=file"),
    ("pause", "POST /v1/services/NAME/pause"),
    ("pause {}", "POST /v1/services/{}/pause"),
    ("undrain", "POST /v1/services/NAME/undrain"),
    ("addon ls", "GET /v1/addon/resources"),
    ("addon deprovision {}", "DELETE /v1/addon/resources/{}"),
    ("addon plan {} PLAN", "POST /v1/addon/resources/{}/plan"),
];

/// Hints that are no commands.
const PHRASES: &[(&str, &str)] = &[
    (
        "--take-over (of `tcpgw apply`, `service add` and `service set`)",
        "the parameter take_over=true",
    ),
    ("--supersede of `tcpgw deploy`", "the field `supersede`"),
    ("--allow-empty", "the parameter allow_empty=true"),
];

/// Commands without a request of their own, which API clients see unchanged.
#[cfg(test)]
const WITHOUT_REQUEST: &[&str] = &["up", "daemon", "doctor", "check FILE", "diff", "--socket none status"];

/// Length of a string in an answer, in bytes, up to which its hints are worded: no message of the daemon is longer.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// Kind of client, by which hints in messages are worded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientKind {
    /// The command line of tcpgw.
    #[default]
    Cli,
    /// A program that speaks HTTP itself.
    Api,
}

impl ClientKind {
    /// Returns the kind of client of the current request; the command line outside of one.
    fn current() -> Self {
        CLIENT.try_with(|client| *client).unwrap_or_default()
    }

    /// Returns the kind of client, by the header `user-agent`.
    pub fn of(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT);
        let is_cli = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"tcpgw/"));
        if is_cli { Self::Cli } else { Self::Api }
    }
}

tokio::task_local! {
    static CLIENT: ClientKind;
}

/// Runs a request's handler: its error messages are worded for this kind of client.
pub(super) async fn for_client<F: Future>(client: ClientKind, handler: F) -> F::Output {
    CLIENT.scope(client, handler).await
}

/// Returns the message, worded for the client of the current request; unchanged outside of a request.
pub(super) fn worded(message: &str) -> Cow<'_, str> {
    match ClientKind::current() {
        ClientKind::Cli => Cow::Borrowed(message),
        ClientKind::Api => for_api(message),
    }
}

/// Returns JSON with its messages worded for the client of the current request; unchanged outside of a request.
pub(super) fn worded_json(text: String) -> String {
    worded_json_for(ClientKind::current(), text)
}

/// Returns JSON with its messages worded for this kind of client.
pub(super) fn worded_json_for(client: ClientKind, text: String) -> String {
    if client == ClientKind::Cli {
        return text;
    }
    let mut out = WordedJson {
        client,
        ..WordedJson::new(Vec::with_capacity(text.len()))
    };
    // Writing to memory does not fail.
    let written = out.write_all(text.as_bytes()).map(|()| out.inner);
    let worded = written.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    worded.unwrap_or(text)
}

/// A writer of JSON whose messages are worded for a kind of client.
#[derive(Debug)]
pub(super) struct WordedJson<W> {
    inner: W,
    client: ClientKind,
    /// The string that has begun, without its quotes.
    string: Option<Vec<u8>>,
    is_escaped: bool,
}

impl<W: Write> WordedJson<W> {
    /// Returns a writer to `inner` for the client of the current request. Outside of a request it changes nothing.
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            client: ClientKind::current(),
            string: None,
            is_escaped: false,
        }
    }

    /// Returns the writer below; a string that has not ended is lost.
    pub(super) fn into_inner(self) -> W {
        self.inner
    }

    fn end_string(&mut self) -> io::Result<()> {
        let Some(string) = self.string.take() else {
            return Ok(());
        };
        match std::str::from_utf8(&string) {
            Ok(text) if text.len() <= LONGEST_MESSAGE => self.inner.write_all(for_api(text).as_bytes()),
            _ => self.inner.write_all(&string),
        }
    }
}

impl<W: Write> Write for WordedJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.client == ClientKind::Cli {
            return self.inner.write(bytes);
        }
        let mut rest = bytes;
        while let Some(at) = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\') || self.is_escaped)
        {
            let (before, from) = rest.split_at(at);
            match &mut self.string {
                None => self.inner.write_all(before)?,
                Some(string) => string.extend_from_slice(before),
            }
            let byte = from[0];
            if byte == b'"' && !self.is_escaped {
                if self.string.is_some() {
                    self.end_string()?;
                } else {
                    self.string = Some(Vec::new());
                }
                self.inner.write_all(b"\"")?;
            } else if let Some(string) = &mut self.string {
                string.push(byte);
                self.is_escaped = byte == b'\\' && !self.is_escaped;
            }
            rest = &from[1..];
        }
        match &mut self.string {
            None => self.inner.write_all(rest)?,
            Some(string) => string.extend_from_slice(rest),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Returns the message with requests instead of commands.
pub fn for_api(message: &str) -> Cow<'_, str> {
    if !message.contains("tcpgw ") && !PHRASES.iter().any(|(phrase, _)| message.contains(phrase)) {
        return Cow::Borrowed(message);
    }
    let mut message = message.to_owned();
    for (phrase, instead) in PHRASES {
        message = message.replace(phrase, instead);
    }
    let parts = message.split('`').enumerate().map(|(n, part)| {
        let command = part.strip_prefix("tcpgw ").filter(|_| n % 2 == 1);
        command.and_then(request).unwrap_or_else(|| part.to_owned())
    });
    Cow::Owned(parts.collect::<Vec<_>>().join("`"))
}

/// Returns the request that corresponds to a command.
fn request(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    TABLE.iter().find_map(|(pattern, request)| {
        let pattern: Vec<&str> = pattern.split_whitespace().collect();
        let fits = pattern.len() == words.len()
            && pattern
                .iter()
                .zip(&words)
                .all(|(expected, word)| *expected == "{}" || expected == word);
        let open = pattern.iter().position(|expected| *expected == "{}");
        fits.then(|| open.map_or_else(|| (*request).to_owned(), |at| request.replace("{}", words[at])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source_tests::{self, root};

    #[test]
    fn commands_become_requests() {
        for (message, told) in [
            (
                "no service \"a\"; `tcpgw service ls` lists them",
                "no service \"a\"; `GET /v1/services` lists them",
            ),
            (
                "take it back with `tcpgw rollback web`",
                "take it back with `POST /v1/services/web/rollback`",
            ),
            (
                "`tcpgw service set web` or `tcpgw apply`",
                "`PATCH /v1/services/web` or `POST /v1/apply`",
            ),
            ("see `tcpgw deploys 7`", "see `GET /v1/deploys/7`"),
            (
                "accept it with --take-over (of `tcpgw apply`, `service add` and `service set`)",
                "accept it with the parameter take_over=true",
            ),
            ("ask `tcpgw doctor`", "ask `tcpgw doctor`"),
            ("tcpgw was torn down", "tcpgw was torn down"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(for_api(message), told);
        }
    }

    #[test]
    fn requests_are_routes() {
        let routes: Vec<_> = crate::api::routes().collect();
        for (command, request) in TABLE {
            let (method, target) = request.split_once(' ').expect("a method and a path");
            let path = target.split('?').next().unwrap_or_default();
            let is_same = |route: &str| {
                let (a, b): (Vec<_>, Vec<_>) = (route.split('/').collect(), path.split('/').collect());
                a.len() == b.len()
                    && a.iter()
                        .zip(&b)
                        .all(|(a, b)| a == b || a.starts_with('{') && ["{}", "NAME"].contains(b))
            };
            assert!(
                routes
                    .iter()
                    .any(|(known, route, _)| *known == method && is_same(route)),
                "{command}: {request}"
            );
        }
    }

    #[test]
    fn every_command_that_the_daemon_names_has_its_request() {
        // What speaks to people at a terminal, and this table itself.
        let left_out = ["src/api/client", "src/api/hints.rs", "src/addon/check"].map(|place| root().join(place));
        let folders = [
            "src/control",
            "src/view",
            "src/store",
            "src/addon",
            "src/provider",
            "src/api",
            "src/daemon",
        ];
        let others = ["src/reconcile", "src/record", "src/config", "crates/tcpgw-core/src"];
        let mut unknown = std::collections::BTreeSet::new();
        let mut found = 0;
        for folder in folders.iter().chain(&others) {
            let mut files = source_tests::program(&root().join(folder));
            files.retain(|file| left_out.iter().all(|place| !file.starts_with(place)));
            for file in files {
                for command in commands(&source_tests::code(&file)) {
                    found += 1;
                    let is_known = request(&command).is_some() || WITHOUT_REQUEST.contains(&command.as_str());
                    if !is_known {
                        unknown.insert(command);
                    }
                }
            }
        }
        assert!(found > 30, "{found} commands are found");
        assert!(unknown.is_empty(), "no request is known for {unknown:?}");
    }

    /// Returns the commands that a source names in its messages, with `{}` for what is filled in.
    fn commands(text: &str) -> Vec<String> {
        let joined: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
        let joined = joined.concat();
        let named = joined.split("`tcpgw ").skip(1);
        let named = named.filter_map(|rest| rest.split('`').next());
        let filled = named.map(|command| {
            let words = command
                .split(' ')
                .map(|word| if word.starts_with('{') { "{}" } else { word });
            words.collect::<Vec<_>>().join(" ")
        });
        filled.collect()
    }

    #[tokio::test]
    async fn json_is_worded_for_programs_only() {
        let text =
            r#"{"a \"`tcpgw status`": ["see `tcpgw service ls` \\", "`"], "message": "\"`tcpgw resume`\"", "n": 7}"#;
        let document = r#"{"a \"`GET /v1/status`": ["see `GET /v1/services` \\", "`"], "message": "\"`POST /v1/resume`\"", "n": 7}"#;
        assert_eq!(worded_json(text.into()), text);
        for (client, wanted) in [(ClientKind::Cli, text), (ClientKind::Api, document)] {
            let worded = for_client(client, async { worded_json(text.into()) }).await;
            assert_eq!(worded, wanted);
            // As it comes: byte by byte.
            let bytes = for_client(client, async {
                let mut out = WordedJson::new(Vec::new());
                for byte in text.as_bytes() {
                    out.write_all(&[*byte]).unwrap();
                }
                out.inner
            });
            assert_eq!(String::from_utf8(bytes.await).unwrap(), wanted);
        }
    }

    #[test]
    fn the_command_line_keeps_its_words() {
        assert_eq!(worded("see `tcpgw status`"), "see `tcpgw status`");
        let of = |agent: &'static str| {
            ClientKind::of(&HeaderMap::from_iter([(
                header::USER_AGENT,
                axum::http::HeaderValue::from_static(agent),
            )]))
        };
        assert_eq!(
            (of(USER_AGENT), of("curl/8"), ClientKind::of(&HeaderMap::new())),
            (ClientKind::Cli, ClientKind::Api, ClientKind::Api)
        );
    }
}
