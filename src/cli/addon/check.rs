//! `tcpgw addon check`

mod arguments;
mod report;

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Map, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

pub(super) use self::arguments::Arguments;
use self::report::{FindingPrinter, conclude};
use crate::addon::check::{
    AnswerBody, CheckRequest, CheckRun, CheckSettings, Next, NoAnswer, PathBase, ProviderAnswer, sign_on,
};
use crate::api::provider::read_provider_credentials;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::Global;
use crate::date::since_1970;
use crate::outbound::{BaseUrl, OutboundAnswer, OutboundClient};
use crate::secrets::Owners;

/// Largest file of a manifest or of parameters, in bytes.
const MAX_FILE: u64 = 1 << 20;
const INTERRUPTED: &str = "interrupted";

/// Client, URLs and settings for sending requests.
struct Edge {
    client: OutboundClient,
    base: BaseUrl,
    sign_on: Option<BaseUrl>,
    settings: CheckSettings,
}

/// Signals that end the checks early.
struct CheckSignals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hang_up: Signal,
    /// The number of the first that came.
    came: Option<u8>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let edge = edge(global, arguments)?;
    let mut seed = [0; 16];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::Refused(format!("the system gave no random numbers: {error}")))?;
    let mut run = CheckRun::new(edge.settings.clone(), seed).map_err(|error| Failure::Usage(error.to_string()))?;
    let failed = |what| move |source| Failure::Io { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start the checks"))?;
    let mut printer = FindingPrinter::new(global);
    let signal = runtime.block_on(async {
        let mut signals = CheckSignals::listen().map_err(failed("listen to signals"))?;
        edge.drive(global, &mut run, &mut signals, &mut printer).await;
        Ok::<_, Failure>(signals.came)
    })?;
    // A look-up of a name that hangs is not waited for.
    runtime.shutdown_background();
    conclude(global, arguments, &run.report(), printer, signal)
}

fn edge(global: &Global, arguments: &Arguments) -> Result<Edge, Failure> {
    let url =
        |option: &str, text: &str| BaseUrl::parse(text).map_err(|error| Failure::Usage(format!("{option}: {error}")));
    let dialect = arguments.dialect.dialect();
    let credentials = read_provider_credentials(
        "--credentials",
        &arguments.credentials,
        &Owners::beside_daemon(&global.run_dir),
    );
    let credentials = credentials.map_err(|error| Failure::Usage(error.to_string()))?;
    let manifest = arguments
        .manifest
        .as_deref()
        .map(|path| json_file("--manifest", path))
        .transpose()?;
    let base = url("URL", &arguments.url)?;
    let from_manifest = manifest.as_ref().and_then(|manifest| sign_on(dialect, manifest));
    let sign_on = match (&arguments.sso_url, from_manifest) {
        (Some(text), _) => Some(url("--sso-url", text)?),
        (None, Some(text)) => Some(url("--manifest: sso_url", text)?),
        (None, None) => None,
    };
    for url in std::iter::once(&base).chain(&sign_on) {
        if url.is_readable_by_others() {
            global.warn(&"the URL is not https: the credentials can be read on the way");
        }
    }
    let parameters = match &arguments.parameters {
        None => Map::new(),
        Some(path) => match json_file("--parameters", path)? {
            Value::Object(parameters) => parameters,
            _ => return Err(Failure::Usage("--parameters: the file must hold a JSON object".into())),
        },
    };
    let client = OutboundClient::new(
        std::iter::once(&base).chain(&sign_on),
        arguments.cacert.as_deref(),
        arguments.timeout,
    );
    Ok(Edge {
        client: client.map_err(|error| Failure::Usage(error.to_string()))?,
        settings: CheckSettings {
            dialect,
            credentials,
            offering: arguments.offering.clone(),
            plan: arguments.plan.clone(),
            other_plan: arguments.other_plan.clone(),
            organization: arguments.organization.clone(),
            space: arguments.space.clone(),
            parameters,
            manifest,
            has_sign_on: sign_on.is_some(),
            poll_limit: arguments.poll_timeout,
        },
        base,
        sign_on,
    })
}

fn json_file(option: &str, path: &Path) -> Result<Value, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{option} {}: {why}", tcpgw_core::escape::path(path)));
    let mut text = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text));
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(wrong("is larger than 1 MiB".into()));
    }
    serde_json::from_slice(&text).map_err(|error| wrong(format!("is not JSON: {error}")))
}

impl Edge {
    /// Executes the actions of the run until its end, or until a second signal.
    async fn drive(
        &self,
        global: &Global,
        run: &mut CheckRun,
        signals: &mut CheckSignals,
        printer: &mut FindingPrinter,
    ) {
        loop {
            let next = run.next(since_1970());
            printer.follow(run.findings());
            let Next::Send(request, identity) = next else { return };
            let sent = self.send(&request, &identity);
            tokio::pin!(sent);
            let came = loop {
                tokio::select! {
                    came = &mut sent => break Some(came),
                    again = signals.next() => match signals.takes(global, run, again) {
                        SignalEffect::Ended => return,
                        SignalEffect::Interrupted => break None,
                        SignalEffect::Ignored => {}
                    },
                }
            };
            let Some(came) = came else { continue };
            let Some(wait) = run.answered(came) else { continue };
            printer.follow(run.findings());
            let slept = sleep(wait);
            tokio::pin!(slept);
            loop {
                tokio::select! {
                    () = &mut slept => break,
                    again = signals.next() => match signals.takes(global, run, again) {
                        SignalEffect::Ended => return,
                        SignalEffect::Interrupted => break,
                        SignalEffect::Ignored => {}
                    },
                }
            }
        }
    }

    async fn send(&self, request: &CheckRequest, identity: &str) -> Result<ProviderAnswer, NoAnswer> {
        let url = match request.place {
            PathBase::Base => &self.base,
            PathBase::SignOn => self.sign_on.as_ref().ok_or_else(|| NoAnswer {
                why: "the URL of single sign-on is not known".into(),
                is_sent: false,
            })?,
        };
        let headers = request.headers(self.settings.dialect, &self.settings.credentials, identity);
        let method = request.method.name();
        let target = request.target();
        let sent = self.client.send(url, method, &target, &headers, request.bytes());
        sent.await.map(|reply| answer(&reply)).map_err(|error| NoAnswer {
            why: error.to_string(),
            is_sent: error.is_sent(),
        })
    }
}

fn answer(reply: &OutboundAnswer) -> ProviderAnswer {
    let text = |headers: &HeaderMap, name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let retry_after = text(&reply.headers, "retry-after").and_then(|seconds| seconds.trim().parse().ok());
    ProviderAnswer {
        status: reply.status,
        media: text(&reply.headers, "content-type"),
        identity: text(&reply.headers, "x-broker-api-request-identity"),
        retry_after: retry_after.map(Duration::from_secs),
        content: AnswerBody::parse(&reply.body),
        took: reply.took,
    }
}

/// Effect of a signal.
enum SignalEffect {
    /// The current request is abandoned, and the things that were made are removed.
    Interrupted,
    /// Only a removal was in progress, which goes on.
    Ignored,
    /// All is left.
    Ended,
}

impl CheckSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            came: None,
        })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            Some(()) = self.hang_up.recv() => 1,
            Some(()) = self.interrupt.recv() => 2,
            Some(()) = self.terminate.recv() => 15,
            else => std::future::pending().await,
        }
    }

    fn takes(&mut self, global: &Global, run: &mut CheckRun, number: u8) -> SignalEffect {
        if self.came.is_some() {
            return SignalEffect::Ended;
        }
        self.came = Some(number);
        global.say("interrupted: removing the resources that were created; interrupt again to leave them there");
        if run.interrupt(INTERRUPTED) {
            SignalEffect::Interrupted
        } else {
            SignalEffect::Ignored
        }
    }
}
