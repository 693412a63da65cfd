//! `tcpgw flows`

use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;

use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use super::columns::{Align, Columns, short, span};
use super::gateway::{Gateway, noted, now};
use super::{Code, Failure, Global, Outcome, Output, parse_endpoint, unless_closed};
use crate::kernel::Kernel;
use crate::model::network;
use crate::view::ServiceName;
use crate::view::flows::{FlowView, TrafficView, Wanted};

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
    #[arg(long, value_name = "IP:PORT", value_parser = parse_endpoint)]
    backend: Option<SocketAddr>,
    /// Flows of clients with this address, or in this network
    #[arg(long, value_name = "CIDR|IP", value_parser = network::parse)]
    client: Option<IpNet>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let config = global.config()?;
    let mut gateway = Gateway::open(global)?;
    let services = gateway.services(&config)?;
    let wanted = Wanted::new(
        arguments.service.as_ref(),
        arguments.backend,
        arguments.client,
        &services,
    )?;
    let hints = noted().hints();
    global.hint(&hints);
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut list: Box<dyn List> = match global.output {
        Output::Json => Box::new(Json { out, count: 0 }),
        Output::Table => Box::new(Table(Columns::new(out, ALIGNED))),
    };
    let now = nanoseconds();
    let mut printed = list.begin(&json!(hints));
    if printed.is_ok() {
        gateway.kernel.select(services.mark, wanted.selection(), &mut |flow| {
            if wanted.matches(flow) {
                printed = list.flow(&FlowView::new(flow, &services, now));
            }
            match printed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
    }
    let printed = printed.and_then(|()| list.end()).map_err(|source| Failure::Io {
        what: "write to standard output",
        source,
    });
    unless_closed(printed)?;
    Ok(Code::Success)
}

pub(super) fn nanoseconds() -> u64 {
    u64::try_from(now().as_nanos()).unwrap_or(u64::MAX)
}

/// A list that is written while it is read.
trait List {
    fn begin(&mut self, hints: &serde_json::Value) -> io::Result<()>;
    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()>;
    fn end(self: Box<Self>) -> io::Result<()>;
}

/// One document, a line for each flow.
struct Json<W: Write> {
    out: W,
    count: u64,
}

impl<W: Write> List for Json<W> {
    fn begin(&mut self, hints: &serde_json::Value) -> io::Result<()> {
        write!(self.out, "{{\n\"hints\": {hints},\n\"flows\": [")
    }

    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()> {
        self.out.write_all(if self.count > 0 { b",\n" } else { b"\n" })?;
        self.count += 1;
        serde_json::to_writer(&mut self.out, flow).map_err(io::Error::from)
    }

    fn end(mut self: Box<Self>) -> io::Result<()> {
        writeln!(self.out, "\n],\n\"count\": {}\n}}", self.count)?;
        self.out.flush()
    }
}

struct Table<W: Write>(Columns<W>);

impl<W: Write> List for Table<W> {
    fn begin(&mut self, _: &serde_json::Value) -> io::Result<()> {
        self.0.row(TITLES.map(str::to_owned).to_vec())
    }

    fn flow(&mut self, flow: &FlowView<'_>) -> io::Result<()> {
        self.0.row(cells(flow))
    }

    fn end(self: Box<Self>) -> io::Result<()> {
        self.0.end().map(drop)
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
        flow.service.unwrap_or("-").to_owned(),
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
    use crate::summary::Standing;
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
    let mut table = Box::new(Table(Columns::new(Vec::new(), ALIGNED)));
    table.0.row(TITLES.map(str::to_owned).to_vec())?;
    for flow in flows {
        table.flow(flow)?;
    }
    table.0.end()
}
