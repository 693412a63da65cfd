//! `tcpgw status`

mod text;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::gateway::Gateway;
use super::{Code, Failure, Global, Outcome, Output, parse_duration, unless_closed};
use crate::config::Config;
use crate::look::{self, LookError, StatusQuery};
use crate::view::ServiceName;
use crate::view::status::Status;

/// Between two looks while waiting; a look at a full conntrack table takes longer itself.
const PAUSE: Duration = Duration::from_millis(200);

/// Show how services and backends are: flows, traffic against the limit, drops
///
/// The first line says whether all is well; problems come next. Exits with 1 if something is unhealthy: there is no
/// table, a service has no active backend, or flows are left that should have been flushed. Rates are taken between two
/// looks; those of packets and bytes need `net.netfilter.nf_conntrack_acct=1`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this service: its name, :PORT or ADDRESS:PORT
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// How long to count packets and drops for rates; 0s for no rates
    #[arg(long, value_name = "T", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,
    /// First wait until nothing is unhealthy
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "T", default_value = "30s", value_parser = parse_duration, requires = "wait")]
    timeout: Duration,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let config = global.config()?;
    let mut gateway = Gateway::open(global)?;
    if arguments.wait && !wait(&mut gateway, &config, arguments)? {
        let _ = writeln!(
            io::stderr(),
            "still unhealthy after {:?} (--timeout)",
            arguments.timeout
        );
    }
    look(&mut gateway, &config, arguments, arguments.interval, |status| {
        unless_closed(show(global, status))?;
        Ok(if status.ok { Code::Success } else { Code::Failure })
    })
}

/// Whether nothing is unhealthy in time.
fn wait(gateway: &mut Gateway, config: &Config, arguments: &Arguments) -> Result<bool, Failure> {
    let begin = Instant::now();
    loop {
        let ok = match look(gateway, config, arguments, Duration::ZERO, |status| Ok(status.ok)) {
            // It may come.
            Err(Failure::Look(LookError::NoService(_))) => false,
            other => other?,
        };
        let left = arguments.timeout.saturating_sub(begin.elapsed());
        if ok || left.is_zero() {
            return Ok(ok);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

fn look<T>(
    gateway: &mut Gateway,
    config: &Config,
    arguments: &Arguments,
    interval: Duration,
    tell: impl FnOnce(&Status<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let services = gateway.services(config)?;
    let query = StatusQuery {
        service: arguments.service.clone(),
        interval,
    };
    look::status(&mut gateway.kernel, &services, None, look::noted(), &query, tell)?
}

fn show(global: &Global, status: &Status<'_>) -> Result<(), Failure> {
    let stdout = io::stdout().lock();
    let colors = global.colors(&stdout);
    let mut out = io::BufWriter::with_capacity(1 << 16, stdout);
    let printed = match global.output {
        Output::Json => look::write_json(&mut out, status),
        Output::Table => {
            global.hint(&status.hints);
            text::write(&mut out, status, look::now().as_secs(), colors)
        }
    };
    printed.and_then(|()| out.flush()).map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    })
}
