//! `tcpgw status`

mod text;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clap::Args;
use nix::errno::Errno;

use super::gateway::{Gateway, noted, now};
use super::{Code, Failure, Global, Outcome, Output, parse_duration, unless_closed};
use crate::config::Config;
use crate::kernel::conntrack::Flow;
use crate::kernel::{Kernel, KernelError};
use crate::model::FlowMark;
use crate::view::drops::{self, Counts};
use crate::view::flows::Wanted;
use crate::view::rates::First;
use crate::view::status::{Facts, Status};
use crate::view::tally::{Places, Tally};
use crate::view::{ServiceName, Services};

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
            Err(Failure::NoService(_)) => false,
            other => other?,
        };
        let left = arguments.timeout.saturating_sub(begin.elapsed());
        if ok || left.is_zero() {
            return Ok(ok);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

/// Looks, twice if there is an interval, and hands out what was seen.
fn look<T>(
    gateway: &mut Gateway,
    config: &Config,
    arguments: &Arguments,
    interval: Duration,
    tell: impl FnOnce(&Status<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let services = gateway.services(config)?;
    let only = match (&arguments.service, &services.table) {
        (Some(name), Some(_)) => {
            let service = name.find(&services.summary)?;
            services
                .summary
                .services
                .iter()
                .position(|of| std::ptr::eq(of, service))
        }
        _ => None,
    };
    let service = arguments.service.as_ref().filter(|_| services.table.is_some());
    let wanted = Wanted::new(service, None, None, &services)?;
    let places = Places::new(&services.summary);
    let noted = noted();
    let mut tally = Tally::new(&services, &places);
    let (mut earlier, mut traffic, mut time) = (None, None, Duration::ZERO);
    if !interval.is_zero() && services.table.is_some() {
        let begin = Instant::now();
        earlier = Some(counts(gateway, &services, &places)?);
        if noted.traffic == Some(true) {
            let mut first = First::default();
            each(gateway, services.mark, &wanted, |flow| first.note(flow))?;
            traffic = Some(first.end(places.len()));
        }
        std::thread::sleep(interval.saturating_sub(begin.elapsed()));
        time = begin.elapsed();
    }
    let drops = counts(gateway, &services, &places)?;
    each(gateway, services.mark, &wanted, |flow| {
        let place = tally.count(flow);
        if let (Some(place), Some(traffic)) = (place, &mut traffic) {
            traffic.note(place, flow);
        }
    })?;
    tell(&Status::new(&Facts {
        services: &services,
        places: &places,
        tally,
        traffic,
        drops,
        earlier,
        time,
        noted,
        only,
    }))
}

fn each(gateway: &mut Gateway, mark: FlowMark, wanted: &Wanted, mut each: impl FnMut(&Flow)) -> Result<(), Failure> {
    gateway.kernel.select(mark, wanted.selection(), &mut |flow| {
        if wanted.matches(flow) {
            each(flow);
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}

fn counts(gateway: &mut Gateway, services: &Services, places: &Places) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    if services.table.is_none() {
        return Ok(counts);
    }
    for set in drops::sets() {
        let counted = match gateway.kernel.counted(set) {
            // Another version's table, or one that has just been removed.
            Err(KernelError::Netlink(error)) if error.errno() == Some(Errno::ENOENT) => Vec::new(),
            other => other?,
        };
        counts.add(set, &counted, &services.summary, places);
    }
    Ok(counts)
}

fn show(global: &Global, status: &Status<'_>) -> Result<(), Failure> {
    let stdout = io::stdout().lock();
    let colors = global.colors(&stdout);
    let mut out = io::BufWriter::with_capacity(1 << 16, stdout);
    let printed = match global.output {
        Output::Json => serde_json::to_writer_pretty(&mut out, status)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        Output::Table => {
            global.hint(&status.hints);
            text::write(&mut out, status, now().as_secs(), colors)
        }
    };
    printed.and_then(|()| out.flush()).map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    })
}
