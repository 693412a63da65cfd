//! The words of hints: errors name what to do as a command of the command line, and a program that speaks HTTP itself is told
//! the request that does the same.
//!
//! Messages are written with commands, in backticks: `` `tcpgw service ls` ``. What has no request of its own (`tcpgw doctor`)
//! stays a command for everybody.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

/// What the command line calls itself, in the header `user-agent`.
pub const USER_AGENT: &str = concat!("tcpgw/", env!("CARGO_PKG_VERSION"));

/// Commands, and the requests that do the same; `{}` stands for the command's next word. The first that fits counts.
const TABLE: &[(&str, &str)] = &[
    ("service ls", "GET /v1/services"),
    ("service rm {}", "DELETE /v1/services/{}"),
    ("service set {} --take-over", "PATCH /v1/services/{}?take_over=true"),
    ("service set {}", "PATCH /v1/services/{}"),
    ("apply", "POST /v1/apply"),
    ("apply FILE", "POST /v1/apply"),
    ("rollback {}", "POST /v1/services/{}/rollback"),
    ("history {}", "GET /v1/history?service={}"),
    ("deploys", "GET /v1/deploys"),
    ("deploys {}", "GET /v1/deploys/{}"),
    ("resume", "POST /v1/resume"),
    ("resume {}", "POST /v1/services/{}/resume"),
    ("teardown", "POST /v1/teardown"),
    ("status", "GET /v1/status"),
    ("export > FILE", "GET /v1/export"),
    ("export --provider file", "GET /v1/export?provider=file"),
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
];

/// Who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asker {
    /// The command line of tcpgw.
    #[default]
    Cli,
    /// A program that speaks HTTP itself.
    Api,
}

impl Asker {
    /// Returns who asks, by the header `user-agent`.
    pub fn of(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT);
        let is_cli = agent.is_some_and(|agent| agent.as_bytes().starts_with(b"tcpgw/"));
        if is_cli { Self::Cli } else { Self::Api }
    }
}

tokio::task_local! {
    static ASKER: Asker;
}

/// Runs a request's handler: errors that it answers with are worded for whoever asks.
pub(super) async fn for_asker<F: Future>(asker: Asker, handler: F) -> F::Output {
    ASKER.scope(asker, handler).await
}

/// Returns the message in the words of whoever asks: as it is, outside of a request.
pub(super) fn worded(message: &str) -> Cow<'_, str> {
    match ASKER.try_with(|asker| *asker).unwrap_or_default() {
        Asker::Cli => Cow::Borrowed(message),
        Asker::Api => for_api(message),
    }
}

/// Returns the message with requests instead of commands.
pub fn for_api(message: &str) -> Cow<'_, str> {
    if !message.contains("tcpgw ") {
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

/// Returns the request that does what the command does.
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
                        .all(|(a, b)| a == b || a.starts_with('{') && *b == "{}")
            };
            assert!(
                routes.iter().any(|(known, route)| *known == method && is_same(route)),
                "{command}: {request}"
            );
        }
    }

    #[test]
    fn the_command_line_keeps_its_words() {
        assert_eq!(worded("see `tcpgw status`"), "see `tcpgw status`");
        let of = |agent: &'static str| {
            Asker::of(&HeaderMap::from_iter([(
                header::USER_AGENT,
                axum::http::HeaderValue::from_static(agent),
            )]))
        };
        assert_eq!(
            (of(USER_AGENT), of("curl/8"), Asker::of(&HeaderMap::new())),
            (Asker::Cli, Asker::Api, Asker::Api)
        );
    }
}
