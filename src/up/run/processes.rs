//! Start and supervision of an app's processes.

use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Up;
use super::event::UpEvent;
use super::place::InstancePlace;
use crate::up::container::{HelperReport, Spec};
use crate::up::network::{self, ProcessLink};
use crate::up::printer::Lines;
use crate::up::process::{self, Process, Started, Streams};
use crate::up::supervisor::InstanceId;
use tcpgw_core::escape;
use tcpgw_core::model::duration;

/// Maximum time for a helper to make its namespaces.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time to wait for the remaining output of a process that has ended: a child of it may hold the output open.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

impl Up<'_> {
    pub(super) fn start(&mut self, id: InstanceId) {
        let name = self.name(id);
        if let Err(why) = self.try_start(id, &name) {
            self.output.say(&name, &format!("could not be started: {why}"));
            if let Some(place) = self.running.get_mut(&id) {
                place.process = None;
            }
            // Counts as a process that ended at once.
            let _ = self.events.send(UpEvent::Ended(id));
        }
    }

    fn try_start(&mut self, id: InstanceId, name: &str) -> Result<(), String> {
        let kind = self
            .supervisor
            .get(id)
            .map(|one| one.kind.clone())
            .ok_or("it is not known")?;
        let command = self
            .types
            .iter()
            .find(|one| one.name == kind)
            .map(|one| one.command.clone());
        let command = command.ok_or("it is not in the Procfile")?;
        let place = match self.running.remove(&id) {
            Some(place) => place,
            None => InstancePlace {
                address: self.addresses.take().ok_or("no address is free")?,
                namespace: None,
                process: None,
                pid: None,
            },
        };
        let spec = Spec {
            parent: std::process::id().cast_signed(),
            join: place.namespace.as_ref().map(process::path_of),
            address: place.address,
            gateway: network::gateway_of(self.subnet),
            resolver: self.resolver.clone(),
            control: -1,
            report: -1,
            command: vec!["/bin/sh".into(), "-c".into(), command],
            interactive: false,
        };
        let (is_new, address) = (place.namespace.is_none(), place.address);
        self.running.insert(id, place);
        let mut variables = self.variables.clone();
        variables.insert("PS".into(), name.to_owned());
        let started = process::start(spec, &variables, &self.directory, &Streams::Terminal);
        let mut started = started.map_err(|error| error.to_string())?;
        ready(&mut started)?;
        if is_new {
            let place = ProcessLink {
                number: id,
                pid: started.process.id(),
                network: self.subnet,
                address,
            };
            let added = self.network.add_process(&self.id, &self.owner, place);
            added.map_err(|error| error.to_string())?;
            let namespace = started.process.namespace().map_err(|error| error.to_string())?;
            if let Some(place) = self.running.get_mut(&id) {
                place.namespace = Some(namespace);
            }
        }
        started.process.go().map_err(|error| error.to_string())?;
        let process = self.listen_to(id, name, started)?;
        if let Some(place) = self.running.get_mut(&id) {
            place.process = Some(process);
        }
        Ok(())
    }

    /// Starts the threads that read what a process writes and what its helpers tell.
    fn listen_to(&self, id: InstanceId, name: &str, started: Started) -> Result<Process, String> {
        let Started {
            process,
            mut reports,
            output,
        } = started;
        let (name, printed) = (name.to_owned(), self.output.clone());
        // Lines come in this order: that it has started, what it writes, how it ended.
        let (started, is_started) = mpsc::channel::<()>();
        let (reading, is_read) = mpsc::channel::<()>();
        if let Some(output) = output {
            let (name, printed) = (name.clone(), printed.clone());
            let read = move || {
                let _ = is_started.recv();
                let mut lines = Lines::default();
                let print = |line: &[u8]| drop(printed.0.send((name.clone(), line.to_vec())));
                output.read(|bytes| lines.push(bytes, print));
                lines.end(print);
                drop(reading);
            };
            let reader = std::thread::Builder::new().name("output".into()).spawn(read);
            reader.map_err(|error| error.to_string())?;
        } else {
            drop(reading);
        }
        let events = self.events.clone();
        let tell = move || {
            let mut last = None;
            let mut started = Some(started);
            while let Some(report) = reports.next_report() {
                if let HelperReport::Started(pid) = report {
                    printed.say(&name, &process::started_with(pid));
                    started = None;
                }
                let _ = events.send(UpEvent::Report(id, report.clone()));
                last = Some(report);
            }
            drop(started);
            let _ = is_read.recv_timeout(LAST_OUTPUT);
            printed.say(&name, &escape::text(&process::words_of(last.as_ref())));
            let _ = events.send(UpEvent::Ended(id));
        };
        let spawned = std::thread::Builder::new().name("reports".into()).spawn(tell);
        spawned.map_err(|error| error.to_string())?;
        Ok(process)
    }
}

/// Waits for the helper to have made its namespaces.
fn ready(started: &mut Started) -> Result<(), String> {
    let timeout = PollTimeout::try_from(HELPER_TIMEOUT).unwrap_or(PollTimeout::MAX);
    let mut waited = [PollFd::new(started.reports.as_fd(), PollFlags::POLLIN)];
    let begin = Instant::now();
    while begin.elapsed() < HELPER_TIMEOUT {
        match poll(&mut waited, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.to_string()),
            Ok(0) => break,
            Ok(_) => {
                return match started.reports.next_report() {
                    Some(HelperReport::Ready) => Ok(()),
                    Some(HelperReport::Failed(why)) => Err(why),
                    _ => Err("its helper has ended".into()),
                };
            }
        }
    }
    Err(format!(
        "its helper has not answered within {}",
        duration::show(HELPER_TIMEOUT)
    ))
}
