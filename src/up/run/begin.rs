//! Start of `tcpgw up`: reads the files, cleans up after others, makes the network, finds a daemon or starts one, and
//! provisions the app.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use ipnet::Ipv4Net;

use super::event::UpEvent;
use super::files::Files;
use super::listeners::listen_to_signals;
use super::output::{Output, print};
use super::{Up, has_tcp};
use crate::api::client::Client;
use crate::doctor::{self, Fix};
use crate::up::addresses::Addresses;
use crate::up::error::{UpError, system};
use crate::up::gateway;
use crate::up::id::AppId;
use crate::up::network::{LinkOwner, Network};
use crate::up::owner::UpOwner;
use crate::up::printer::LinePrinter;
use crate::up::record::{AppDirectory, AppRecord, RecordError, RecordPaths};
use crate::up::settings::UpSettings;
use crate::up::supervisor::Supervisor;
use crate::up::{control, egress, leftovers, resolver};

impl<'a> Up<'a> {
    /// Sets everything up that processes need, and starts none yet.
    pub(super) fn begin(
        settings: &'a UpSettings<'a>,
        events: &Sender<UpEvent>,
    ) -> Result<(Self, JoinHandle<()>), UpError> {
        let files = Files::read(settings)?;
        if !nix::unistd::geteuid().is_root() {
            return Err(UpError::Refused("needs root, to make namespaces: run with sudo".into()));
        }
        let serves = Arc::new(AtomicBool::new(false));
        listen_to_signals(events.clone(), Arc::clone(&serves)).map_err(system("listen to signals"))?;
        let places = RecordPaths::new(&settings.run_dir, settings.namespace)?;
        let id = places.id_of(&files.directory);
        let lock = places.lock()?;
        let place = places.take(&id)?;
        let network = Network::open()?;
        // The other `tcpgw up` may have another run directory.
        if let LinkOwner::Living(pid) = network.link_owner(&id.to_string())? {
            if place.record().is_none() {
                place.remove();
            }
            return Err(RecordError::Running(pid.to_string()).into());
        }
        let owner = UpOwner::own().map_err(system("find out when this process was started"))?;
        let types = files.procfile.types.iter();
        let numbers = types.map(|one| {
            (
                one.name.as_str(),
                files.formation.get(&one.name).copied().unwrap_or_default(),
            )
        });
        let (output, printer) =
            print(LinePrinter::new(numbers, settings.colors), events.clone()).map_err(system("start a thread"))?;
        files.show_remarks(&output);

        let left = UpError::Left;
        leftovers::remove_network(&network, &id).map_err(left)?;
        let (dead, living) = leftovers::sweep(&places, &network).map_err(left)?;
        // This app is among them.
        leftovers::end_orphan(&places, &settings.socket, living <= 1, &|text| {
            output.say("system", text);
        });
        let app = has_tcp(&files.procfile.types).then(|| id.app());
        let made = make_network(&network, &id, &owner, &place, &files.directory);
        let subnet = match made {
            Ok(subnet) => subnet,
            Err(error) => {
                if leftovers::remove_network(&network, &id).is_ok() {
                    place.remove();
                }
                return Err(error);
            }
        };
        say_what_stops(&id, &output);
        let resolver = resolver::set_up(subnet, &place.path).unwrap_or_else(|error| {
            let text = format!(
                "the processes resolve no names: failed to pass questions on to the resolver on loopback: {error}"
            );
            output.say("system", &text);
            None
        });
        let mut up = Self {
            settings,
            directory: files.directory,
            types: files.procfile.types,
            variables: files.variables,
            port: files.port,
            id,
            owner,
            places,
            place,
            network,
            subnet,
            addresses: Addresses::new(subnet, std::process::id()),
            resolver,
            supervisor: Supervisor::new(settings.grace),
            running: BTreeMap::new(),
            one_offs: BTreeMap::new(),
            next_link: 9_999,
            runs: 0,
            orders: None,
            tells_problems: None,
            daemon: None,
            keeps_daemon: false,
            next_watch: Instant::now(),
            waiting: Vec::new(),
            not_told: None,
            unanswered: None,
            stop_clients: Vec::new(),
            formation: files.formation,
            signals: 0,
            end: None,
            output,
            events: events.clone(),
        };
        let outcome = up
            .join_gateway(app, dead, living <= 1)
            .and_then(|()| up.serve_requests());
        match outcome {
            Ok(()) => {
                serves.store(true, Ordering::SeqCst);
                Ok((up, printer))
            }
            Err(error) => {
                // The lock is held: what was made here goes without it.
                drop(lock);
                Err(up.give_up(error))
            }
        }
    }

    /// Removes what was set up before an error.
    fn give_up(mut self, error: UpError) -> UpError {
        let app = self.id.app();
        let deprovisioned = match Client::connect(&self.settings.socket) {
            Ok(daemon) if self.orders.is_some() => gateway::deprovision(&daemon, &app).is_ok(),
            _ => self.orders.is_none(),
        };
        self.orders = None;
        if let Err(why) = self.leave(deprovisioned) {
            tracing::warn!("not everything was removed: {why}; `tcpgw up stop` tries again");
        }
        error
    }

    fn serve_requests(&self) -> Result<(), UpError> {
        let events = self.events.clone();
        let ask = move |asked| events.send(UpEvent::Control(asked)).is_ok();
        control::serve(&self.place.socket(), ask).map_err(system("listen on the control socket"))
    }
}

/// Says which rules of other programs, such as Docker's, keep the processes from the outside, and the line that lets them pass.
fn say_what_stops(id: &AppId, output: &Output) {
    for finding in doctor::examine_app(&id.to_string()) {
        let fix = match &finding.fix {
            Some(Fix::Command(line)) => format!("; to let them pass, as root: {line}"),
            Some(Fix::Advice(words)) => format!("; {words}"),
            None => String::new(),
        };
        output.say("system", &format!("warning: {}{fix}", finding.seen));
    }
}

/// Makes the links and rules of the app, which are noted first.
fn make_network(
    network: &Network,
    id: &AppId,
    owner: &UpOwner,
    place: &AppDirectory,
    directory: &Path,
) -> Result<Ipv4Net, UpError> {
    let subnet = network.choose(id)?;
    let app = place.record().and_then(|record| record.app);
    place.set_record(&AppRecord {
        directory: directory.to_owned(),
        network: subnet.to_string(),
        app,
    })?;
    network.add_gateway(id, owner, subnet)?;
    egress::install(id, subnet)?;
    Ok(subnet)
}
