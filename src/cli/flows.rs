//! The command `tcpgw flows`.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::net::SocketAddr;

use clap::Args;
use ipnet::IpNet;

use super::amount::{short, span};
use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::print::unless_closed;
use super::screen;
use super::table::{Cell, Column, Extent, TextTable};
use crate::api::client::{Client, RequestTarget};
use crate::observe::{self, FlowOutput, FlowsQuery, JsonFlows};
use crate::traffic::TrafficView;
use crate::view::flows::FlowView;
use crate::view::{Hint, ServiceName, endpoint};
use tcpgw_core::escape::Screen;
use tcpgw_core::model::network;

/// List the live flows: client, service, backend, state, traffic
///
/// A flow is one TCP connection through the gateway that conntrack knows. A connection that both sides have closed is listed
/// for 65 s more (`TIME_WAIT`). Only flows of tcpgw are listed, in no order. Packets and bytes are counted with
/// `net.netfilter.nf_conntrack_acct=1`, ages are noted with `net.netfilter.nf_conntrack_timestamp=1`, both for connections
/// that begin after the setting.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// List only flows of this service: its name, :PORT or ADDRESS:PORT
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// List only flows to this backend
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    backend: Option<SocketAddr>,
    /// List only flows of clients with this address or in this network
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
    let noted = observe::noted();
    let out = BufWriter::with_capacity(1 << 16, screen_of(global));
    let mut list: Box<dyn FlowOutput> = match global.output {
        OutputFormat::Json => Box::new(JsonFlows::new(out)),
        OutputFormat::Table | OutputFormat::Wide => Box::new(FlowTable::new(out, global.extent())),
    };
    let printed = observe::flows(&mut gateway.kernel, &services, noted, &query, &mut *list);
    unless_closed(printed.map_err(Failure::from))?;
    global.hint(&noted.hints());
    Ok(Code::Success)
}

fn screen_of(global: &Global) -> Screen<StdoutLock<'static>> {
    match global.output {
        OutputFormat::Json => screen::json(),
        OutputFormat::Table | OutputFormat::Wide => screen::stdout(),
    }
}

/// Prints the flows like [`observe::flows`], by the daemon.
fn through(global: &Global, daemon: &Client, query: &FlowsQuery) -> Result<(), Failure> {
    let target = RequestTarget::new("/v1/flows")
        .with("service", query.service.as_ref().map(|service| service as _))
        .with("backend", query.backend.as_ref().map(|backend| backend as _))
        .with("client", query.client.as_ref().map(|client| client as _));
    let answer = daemon.get(target.as_str())?;
    let failed = |source| Failure::Io {
        what: "write to standard output",
        source,
    };
    let mut out = BufWriter::with_capacity(1 << 16, screen_of(global));
    if global.output == OutputFormat::Json {
        answer.lines(false, |line| {
            out.write_all(line)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(failed)?;
            Ok::<_, Failure>(true)
        })?;
        return out.flush().map_err(failed);
    }
    let mut table = FlowTable::new(out, global.extent());
    let mut hints: Vec<Hint> = Vec::new();
    answer.lines(false, |line| {
        if let Some(text) = line.strip_prefix(b"\"hints\": ") {
            hints = daemon.understand(text.strip_suffix(b",").unwrap_or(text))?;
            table.begin(&hints).map_err(failed)?;
        } else if line.starts_with(b"{\"") {
            let flow: FlowView<'_> = daemon.understand(line.strip_suffix(b",").unwrap_or(line))?;
            table.flow(&flow).map_err(failed)?;
        }
        Ok::<_, Failure>(true)
    })?;
    table.end().map_err(failed)?;
    global.hint(&hints);
    Ok(())
}

/// A table that is written while the flows are read.
pub(super) struct FlowTable<W: Write>(Option<TextTable<W>>);

impl<W: Write> FlowTable<W> {
    pub(super) fn new(out: W, extent: Extent) -> Self {
        Self(Some(TextTable::new(out, COLUMNS, extent)))
    }

    fn finish(&mut self) -> io::Result<Option<W>> {
        self.0.take().map(TextTable::end).transpose()
    }
}

impl<W: Write> FlowOutput for FlowTable<W> {
    /// Begins the table, without columns of values that conntrack does not record.
    fn begin(&mut self, hints: &[Hint]) -> io::Result<()> {
        for missing in hints.iter().flat_map(|hint| &hint.missing) {
            let columns: &[&str] = match &**missing {
                "packets" => &["PACKETS", "PACKETS TO", "PACKETS FROM"],
                "bytes" => &["BYTES", "BYTES TO", "BYTES FROM"],
                "age" => &["AGE"],
                _ => &[],
            };
            self.0 = self.0.take().map(|table| table.without(columns));
        }
        Ok(())
    }

    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |table| table.row(cells(flow)))
    }

    fn end(&mut self) -> io::Result<()> {
        self.finish().map(drop)
    }
}

const COLUMNS: &[Column] = &[
    Column::left("CLIENT"),
    Column::left("SERVICE").names(8),
    Column::left("BACKEND"),
    Column::left("STATE").usual(1),
    Column::right("AGE").usual(3),
    Column::right("BYTES").usual(2),
    Column::left("VERDICT").wide(3),
    Column::left("PUBLIC").wide(2),
    Column::left("SEEN AS").wide(1),
    Column::right("TIMEOUT").wide(4),
    Column::right("PACKETS TO").wide(5),
    Column::right("BYTES TO").wide(5),
    Column::right("PACKETS FROM").wide(5),
    Column::right("BYTES FROM").wide(5),
];

fn cells(flow: &FlowView<'_>) -> Vec<Cell> {
    let traffic = |traffic: Option<TrafficView>, of: fn(TrafficView) -> u64| Cell::from(number(traffic.map(of)));
    let both = flow.to_backend.zip(flow.from_backend);
    let bytes = both.map(|(to, from)| to.bytes.saturating_add(from.bytes));
    vec![
        Cell::whole(flow.client.to_string()),
        flow.service.as_deref().unwrap_or("-").into(),
        Cell::whole(flow.backend.to_string()),
        flow.state.map_or_else(|| "-".into(), |state| state.to_string()).into(),
        flow.age_seconds.map_or_else(|| "-".into(), span).into(),
        number(bytes).into(),
        verdict(flow).into(),
        Cell::whole(flow.public.to_string()),
        Cell::whole(flow.seen_as.to_string()),
        flow.timeout_seconds
            .map_or_else(|| "-".into(), |left| span(left.into()))
            .into(),
        traffic(flow.to_backend, |to| to.packets),
        traffic(flow.to_backend, |to| to.bytes),
        traffic(flow.from_backend, |from| from.packets),
        traffic(flow.from_backend, |from| from.bytes),
    ]
}

fn verdict(flow: &FlowView<'_>) -> &'static str {
    use tcpgw_core::summary::FlowVerdict;
    match flow.verdict {
        FlowVerdict::Active => "active",
        FlowVerdict::Draining => "draining",
        FlowVerdict::Stale => "STALE",
    }
}

fn number(number: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "large numbers are shortened")]
    let rendered = |number| short(number as f64);
    number.map_or_else(|| "-".into(), rendered)
}

/// Returns the same table for a few flows, without columns of values that conntrack does not record.
pub(super) fn table(flows: &[FlowView<'_>], hints: &[Hint], extent: Extent) -> io::Result<Vec<u8>> {
    let mut table = FlowTable::new(Vec::new(), extent);
    table.begin(hints)?;
    for flow in flows {
        table.flow(flow)?;
    }
    Ok(table.finish()?.unwrap_or_default())
}
