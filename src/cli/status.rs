//! The command `tcpgw status`.

pub(super) mod states;
mod text;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::arguments::parse_duration;
use super::configuration::Configuration;
use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::print::unless_closed;
use super::screen;
use crate::api::NOT_FOUND;
use crate::api::client::{self, Client, ClientError, RequestTarget};
use crate::daemon::problem_observer;
use crate::date::since_1970;
use crate::doctor::{CheapReader, CheckSubject, Effort, MemoryFile};
use crate::observe::{self, ObserveError, StatusQuery, StatusSources};
use crate::record::{RecordFile, boot_id};
use crate::unserved;
use crate::view::status::Status;
use crate::view::{ServiceName, ServicesView};
use tcpgw_core::model::duration;
use tcpgw_core::problem::{Problem, ProblemKind};

/// Interval between readings while waiting; reading a full conntrack table takes longer itself.
const PAUSE: Duration = Duration::from_millis(200);
/// Maximum time of the last reading after waiting, besides its interval.
const LAST: Duration = Duration::from_secs(10);

/// Show the state of services and backends: flows, traffic against the limit, drops; exit with 1 if something is unhealthy
///
/// The first line says whether all is well; the problems follow. The exit code is 1 if one of them is an error: clients are
/// not served, or an order is not in effect. Rates are counted for the time of `--interval`; packets and bytes are counted
/// with `net.netfilter.nf_conntrack_acct=1` only.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this service: its name, :PORT or ADDRESS:PORT
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Time over which packets and drops are counted for the rates; 0s shows no rates
    #[arg(long, value_name = "T", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// Wait first until nothing is unhealthy
    #[arg(long)]
    wait: bool,
    /// Longest time to wait
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let mut source = match global.daemon_or_why()? {
        Ok(daemon) => Source::Daemon(daemon),
        Err(why) => {
            let gateway = Gateway::open(global)?;
            let memory = MemoryFile::new(&global.run_dir, gateway.namespace);
            let is_due = || RecordFile::new(&global.run_dir, gateway.namespace).is_of_daemon(&boot_id());
            Source::Kernel(Box::new(Here {
                configuration: global.judged_config(),
                reader: CheapReader::new(Effort::Quick).recalling(&memory, is_due, Instant::now()),
                gateway,
                elsewhere: why.filter(|why| why.kind == ProblemKind::OtherNamespace),
            }))
        }
    };
    if let Source::Kernel(here) = &source
        && let Some(why) = &here.configuration.unchecked
    {
        global.warn(why);
    }
    if arguments.wait && !wait(global, &mut source, arguments)? && !global.quiet {
        let _ = writeln!(
            screen::stderr(),
            "still unhealthy after {:?} (--timeout)",
            arguments.timeout
        );
    }
    let patience = arguments.wait.then_some(arguments.interval + LAST);
    read(
        global,
        &mut source,
        arguments,
        (arguments.interval, patience),
        |status, json| {
            unless_closed(show(global, status, json))?;
            Ok(if status.ok { Code::Success } else { Code::Failure })
        },
    )
}

/// Waits until nothing is unhealthy. Returns `false` when the time is over.
fn wait(global: &Global, source: &mut Source, arguments: &Arguments) -> Result<bool, Failure> {
    let begin = Instant::now();
    loop {
        // A daemon that answered a moment ago may hang now.
        let patience = arguments.timeout.saturating_sub(begin.elapsed()).max(client::SLOW);
        let ok = match read(
            global,
            source,
            arguments,
            (Duration::ZERO, Some(patience)),
            |status, _| Ok(status.ok),
        ) {
            // The service may be added later.
            Err(Failure::Observe(ObserveError::NoService(_))) => false,
            Err(Failure::Daemon(ClientError::Refused { code, .. })) if code == NOT_FOUND => false,
            other => other?,
        };
        let remaining = arguments.timeout.saturating_sub(begin.elapsed());
        if ok || remaining.is_zero() {
            return Ok(ok);
        }
        std::thread::sleep(PAUSE.min(remaining));
    }
}

/// The kernel, and further sources of facts.
struct Here {
    gateway: Gateway,
    configuration: Configuration,
    reader: CheapReader,
    /// The problem that a daemon of another network namespace has answered.
    elsewhere: Option<Problem>,
}

/// Source of the status: the kernel or the daemon.
enum Source {
    Kernel(Box<Here>),
    Daemon(Client),
}

impl Here {
    /// Returns the reason why no daemon was asked, and the problems that it would have found.
    fn found(&mut self, global: &Global, services: &ServicesView) -> Vec<Problem> {
        let why = self.elsewhere.clone().or_else(|| global.absent());
        let configuration = self.configuration.problem_beside(why.as_ref());
        let is_dead = why.as_ref().is_none_or(|why| why.kind == ProblemKind::DaemonGone);
        let mut found: Vec<Problem> = why.into_iter().chain(configuration).collect();
        if is_dead {
            found.extend(unserved::problem(
                &self.configuration.config,
                self.gateway.namespace,
                services,
            ));
            found.extend(self.reader.lost_file(Instant::now()));
        }
        if !services.summary.services.is_empty() {
            let subject = CheckSubject {
                services: Arc::new(services.summary.clone()),
                mark: services.mark,
                protect_backends: self.gateway.protects(services),
                configured_to_protect: self.configuration.config.protect_backends,
                configuration: self.configuration.config.path().into(),
                is_probed: false,
                failing_probes: Arc::default(),
            };
            found.extend(problem_observer::surroundings(&mut self.reader, &subject));
        }
        found
    }
}

/// Reads the status, twice if there is an interval, and passes it to `tell`, with the JSON if it came as such. The daemon has
/// to answer within `patience`.
fn read<T>(
    global: &Global,
    source: &mut Source,
    arguments: &Arguments,
    (interval, patience): (Duration, Option<Duration>),
    tell: impl FnOnce(&Status<'_>, Option<&[u8]>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let here = match source {
        Source::Kernel(here) => &mut **here,
        Source::Daemon(daemon) => {
            let interval = duration::show(interval);
            let target = RequestTarget::new("/v1/status")
                .with("service", arguments.service.as_ref().map(|service| service as _))
                .with("interval", Some(&interval));
            let answer = match patience {
                Some(patience) => daemon.get_within(target.as_str(), patience, || global.warn(&daemon.is_slow())),
                None => daemon.get(target.as_str()),
            };
            let text = answer?.text()?;
            return tell(&daemon.understand::<Status<'_>>(&text)?, Some(&text));
        }
    };
    let services = here.gateway.services(&here.configuration.config)?;
    let found = here.found(global, &services);
    let query = StatusQuery {
        service: arguments.service.clone(),
        interval,
        ..StatusQuery::default()
    };
    let sources = StatusSources {
        services: &services,
        daemon: None,
        found: &found,
        noted: observe::noted(),
    };
    observe::status(&mut here.gateway.kernel, sources, &query, |status| tell(status, None))?
}

fn show(global: &Global, status: &Status<'_>, json: Option<&[u8]>) -> Result<(), Failure> {
    if global.is_silent() {
        return Ok(());
    }
    let colors = global.colors(&io::stdout());
    let screen = match global.output {
        OutputFormat::Json => screen::json(),
        OutputFormat::Table | OutputFormat::Wide => screen::stdout(),
    };
    let mut out = io::BufWriter::with_capacity(1 << 16, screen);
    let printed = match (global.output, json) {
        (OutputFormat::Json, Some(json)) => out.write_all(json),
        (OutputFormat::Json, None) => observe::write_status(&mut out, status),
        (OutputFormat::Table | OutputFormat::Wide, _) => {
            let format = text::StatusFormat {
                now: since_1970().as_secs(),
                colors,
                extent: global.extent(),
                with_hints: !global.quiet,
            };
            text::write(&mut out, status, format)
        }
    };
    printed.and_then(|()| out.flush()).map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    })
}
