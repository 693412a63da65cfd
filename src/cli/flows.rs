//! `tcpgw flows`

use std::io::{self, BufWriter, StdoutLock, Write};
use std::net::SocketAddr;

use clap::Args;
use ipnet::IpNet;

use super::columns::{Align, Columns, short, span};
use super::gateway::Gateway;
use super::{Code, Failure, Global, Outcome, Output, screen, unless_closed};
use crate::api::client::{Client, Target};
use crate::look::{self, FlowsQuery, JsonFlows, List};
use crate::view::flows::{FlowView, TrafficView};
use crate::view::{Hint, ServiceName, endpoint};
use tcpgw_core::escape::Screen;
use tcpgw_core::model::network;

/// List the live flows: client, service, backend, state, traffic
///
/// A flow is one TCP connection through the gateway that conntrack knows, those included that ended less than two minutes
/// ago (`TIME_WAIT`). Only tcpgw's own are listed, in no order. Packets and bytes need
/// `net.netfilter.nf_conntrack_acct=1`, the age needs `net.netfilter.nf_conntrack_timestamp=1`, both before the connection
/// begins.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Flows of this service only: its name, :PORT or ADDRESS:PORT
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Flows of this backend only
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    backend: Option<SocketAddr>,
    /// Flows of clients with this address, or in this network
    #[arg(long, value_name = "CIDR|IP", value_parser = network::parse)]
    client: Option<IpNet>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let query = FlowsQuery {
        service: arguments.service.clone(),
        backend: arguments.backend,
        client: arguments.client,
    };
    if let Some(daemon) = global.daemon()? {
        unless_closed(through(global, &daemon, &query))?;
        return Ok(Code::Success);
    }
    let mut gateway = Gateway::open(global)?;
    let services = gateway.services(&global.config_for_looking())?;
    let noted = look::noted();
    let out = BufWriter::with_capacity(1 << 16, screen_of(global));
    let mut list: Box<dyn List> = match global.output {
        Output::Json => Box::new(JsonFlows::new(out)),
        Output::Table => {
            global.hint(&noted.hints());
            Box::new(Table::new(out))
        }
    };
    let printed = look::flows(&mut gateway.kernel, &services, noted, &query, &mut *list);
    unless_closed(printed.map_err(Failure::from))?;
    Ok(Code::Success)
}

fn screen_of(global: &Global) -> Screen<StdoutLock<'static>> {
    match global.output {
        Output::Json => screen::json(),
        Output::Table => screen::stdout(),
    }
}

/// As [`look::flows`], by way of the daemon.
fn through(global: &Global, daemon: &Client, query: &FlowsQuery) -> Result<(), Failure> {
    let target = Target::new("/v1/flows")
        .with("service", query.service.as_ref().map(|service| service as _))
        .with("backend", query.backend.as_ref().map(|backend| backend as _))
        .with("client", query.client.as_ref().map(|client| client as _));
    let answer = daemon.get(target.as_str())?;
    let failed = |source| Failure::Io {
        what: "write to standard output",
        source,
    };
    let mut out = BufWriter::with_capacity(1 << 16, screen_of(global));
    if global.output == Output::Json {
        answer.lines(false, |line| {
            out.write_all(line)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(failed)?;
            Ok::<_, Failure>(true)
        })?;
        return out.flush().map_err(failed);
    }
    let mut table = Table::new(out);
    table.begin(&[]).map_err(failed)?;
    answer.lines(false, |line| {
        if let Some(hints) = line.strip_prefix(b"\"hints\": ") {
            let hints: Vec<Hint> = daemon.understand(hints.strip_suffix(b",").unwrap_or(hints))?;
            global.hint(&hints);
        } else if line.starts_with(b"{\"") {
            let flow: FlowView<'_> = daemon.understand(line.strip_suffix(b",").unwrap_or(line))?;
            table.flow(&flow).map_err(failed)?;
        }
        Ok::<_, Failure>(true)
    })?;
    table.end().map_err(failed)
}

/// A table that is written while it is read.
pub(super) struct Table<W: Write>(Option<Columns<W>>);

impl<W: Write> Table<W> {
    pub(super) fn new(out: W) -> Self {
        Self(Some(Columns::new(out, ALIGNED)))
    }

    fn row(&mut self, cells: Vec<String>) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |columns| columns.row(cells))
    }

    fn finish(&mut self) -> io::Result<Option<W>> {
        self.0.take().map(Columns::end).transpose()
    }
}

impl<W: Write> List for Table<W> {
    fn begin(&mut self, _: &[Hint]) -> io::Result<()> {
        self.row(TITLES.map(str::to_owned).to_vec())
    }

    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()> {
        self.row(cells(flow))
    }

    fn end(&mut self) -> io::Result<()> {
        self.finish().map(drop)
    }
}

const TITLES: [&str; 13] = [
    "CLIENT",
    "PUBLIC",
    "SERVICE",
    "BACKEND",
    "SEEN AS",
    "BACKEND IS",
    "STATE",
    "AGE",
    "TIMEOUT",
    "PACKETS TO",
    "BYTES TO",
    "PACKETS FROM",
    "BYTES FROM",
];
const ALIGNED: &[Align] = &[
    Align::Left,
    Align::Left,
    Align::Left,
    Align::Left,
    Align::Left,
    Align::Left,
    Align::Left,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Right,
];

fn cells(flow: &FlowView<'_>) -> Vec<String> {
    let traffic = |traffic: Option<TrafficView>, of: fn(TrafficView) -> u64| number(traffic.map(of));
    vec![
        flow.client.to_string(),
        flow.public.to_string(),
        flow.service.as_deref().unwrap_or("-").to_owned(),
        flow.backend.to_string(),
        flow.seen_as.to_string(),
        standing(flow).to_owned(),
        flow.state.map_or_else(|| "-".into(), |state| state.to_string()),
        flow.age_seconds.map_or_else(|| "-".into(), span),
        flow.timeout_seconds
            .map_or_else(|| "-".into(), |left| span(left.into())),
        traffic(flow.to_backend, |to| to.packets),
        traffic(flow.to_backend, |to| to.bytes),
        traffic(flow.from_backend, |from| from.packets),
        traffic(flow.from_backend, |from| from.bytes),
    ]
}

fn standing(flow: &FlowView<'_>) -> &'static str {
    use tcpgw_core::summary::Standing;
    match flow.standing {
        Standing::Active => "active",
        Standing::Draining => "draining",
        Standing::Stale => "STALE",
    }
}

fn number(number: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "large numbers are shortened")]
    let shown = |number| short(number as f64);
    number.map_or_else(|| "-".into(), shown)
}

/// The same table of a few flows.
pub(super) fn table(flows: &[FlowView<'_>]) -> io::Result<Vec<u8>> {
    let mut table = Table::new(Vec::new());
    table.begin(&[])?;
    for flow in flows {
        table.flow(flow)?;
    }
    Ok(table.finish()?.unwrap_or_default())
}
