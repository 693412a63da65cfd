//! The command `tcpgw who`.

use std::io::Write;
use std::net::SocketAddr;

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use super::gateway::Gateway;
use super::global::{Global, OutputFormat};
use super::print::{print_json, unless_closed};
use super::{flows, screen};
use crate::api::client::RequestTarget;
use crate::observe;
use crate::view::who::WhoView;
use crate::view::{ServiceName, endpoint};

/// Show the client behind the connection that a backend sees as coming from IP:PORT
///
/// With --backend one entry of conntrack is read, however many connections there are. Without it all entries are read, and
/// several may match, because two backends can see the same IP:PORT. The exit code is 1 if none matches.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The peer's address and port, as the backend sees them
    #[arg(value_name = "IP:PORT", value_parser = endpoint)]
    seen_as: SocketAddr,
    /// The backend that sees the peer
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint)]
    backend: Option<SocketAddr>,
    /// List only connections to this service: its name, `app:APP_ID`, :PORT or ADDRESS:PORT
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let Arguments { seen_as, backend, .. } = *arguments;
    let service = arguments.service.as_ref();
    if let Some(backend) = backend.filter(|backend| backend.is_ipv4() != seen_as.is_ipv4()) {
        return Err(Failure::Usage(format!(
            "{seen_as} and {backend} are addresses of different families; a backend only sees addresses of its own family"
        )));
    }
    if let Some(daemon) = global.daemon()? {
        let target = RequestTarget::new("/v1/who")
            .with("seen_as", Some(&seen_as))
            .with("backend", backend.as_ref().map(|backend| backend as _))
            .with("service", service.map(|service| service as _));
        return tell(global, &daemon.get(target.as_str())?.json()?);
    }
    let mut gateway = Gateway::open(global)?;
    let services = gateway.services(&global.config_for_looking())?;
    let who = observe::who(
        &mut gateway.kernel,
        &services,
        observe::noted(),
        seen_as,
        backend,
        service,
    )?;
    tell(global, &who)
}

fn tell(global: &Global, who: &WhoView<'_>) -> Outcome {
    unless_closed(show(global, who))?;
    Ok(if who.flows.is_empty() {
        Code::Failure
    } else {
        Code::Success
    })
}

fn show(global: &Global, who: &WhoView<'_>) -> Result<(), Failure> {
    if who.flows.is_empty() {
        let _ = writeln!(screen::stderr(), "{}", who.nobody());
    }
    if global.output == OutputFormat::Json {
        return print_json(who);
    }
    if who.flows.is_empty() {
        return Ok(());
    }
    if who.flows.len() > 1 && !global.quiet {
        let _ = writeln!(
            screen::stderr(),
            "note: {} backends see {}; --backend says which one is meant",
            who.flows.len(),
            who.seen_as
        );
    }
    flows::table(&who.flows, &who.hints, global.extent())
        .and_then(|table| screen::stdout().write_all(&table))
        .map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })?;
    global.hint(&who.hints);
    Ok(())
}
