//! The events of the law, and what clients expect after them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tcpgw::control::request::{ApplyOptions, ServiceEdit};

use super::services::{OF_API, OF_FILE, is_named, port, state};
use super::{Event, LISTENERS, Loss, WRITTEN, World};

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Restart(losses) => self.restart_after(&losses),
            Event::FileGone => {
                self.write_file(None);
                if self.file.is_named {
                    self.tell_file();
                }
            }
            Event::File(which) => {
                if self.file.is_named {
                    // Services that the file lacks may end, whether they are the file's or orphans by now.
                    self.clients
                        .ports
                        .retain(|port| *port > 9002 || which.contains(&usize::from(*port - 9001)));
                }
                self.write_file(Some(which));
                if self.file.is_named {
                    self.forget_moved_and_unserved();
                    self.tell_file();
                    self.run();
                    self.see();
                    self.expect_files();
                }
            }
            Event::KeyGone(by_restart) => self.set_key(false, by_restart),
            Event::KeyBack(by_restart) => {
                if let Some(which) = self.clients.file.clone().filter(|_| !self.file.is_named) {
                    self.clients
                        .ports
                        .retain(|port| *port > 9002 || which.contains(&usize::from(*port - 9001)));
                    self.forget_moved_and_unserved();
                }
                self.set_key(true, by_restart);
                self.see();
                self.expect_files();
            }
            Event::Put(at) => {
                let name = OF_API[at];
                if self.order(name, ServiceEdit::Put(self.wanted(name).to_string().into_bytes())) {
                    self.clients.ports.insert(port(name));
                }
            }
            Event::Remove(name) => {
                if self.order(name, ServiceEdit::Delete) {
                    self.clients.ports.remove(&port(name));
                }
            }
            Event::LastRemoval(name, loss) => self.remove_last(name, loss),
            Event::RecordStuck => {
                self.forbid_record();
                self.clients.is_record_stuck = true;
            }
            Event::Label(at) => {
                let label = json!({"labels": {"x": format!("{:?}", self.clock.passed())}});
                self.order(OF_API[at], ServiceEdit::Patch(label.to_string().into_bytes()));
            }
            Event::Listen(name, true) => {
                if self.surroundings.listening.insert(port(name)) && !self.served().contains(&port(name)) {
                    self.clients.theirs.insert(port(name));
                }
            }
            Event::Listen(name, false) => {
                self.surroundings.listening.remove(&port(name));
                self.clients.theirs.remove(&port(name));
                self.see();
                self.wait(LISTENERS);
            }
            Event::Move(name, leaves) => self.moves(name, leaves),
            Event::Blind(seconds) => {
                let time = Duration::from_secs(seconds);
                self.examinations.stick(self.clock.now, time);
                self.clients.sees_at = self.clock.now + time + LISTENERS;
                if self.clock.now < self.clients.waits_until {
                    self.clients.waits_until = self.clients.sees_at;
                }
            }
            Event::Prune => {
                let orphans: Vec<String> = self
                    .providers()
                    .into_iter()
                    .filter(|of| of.1 == "orphan")
                    .map(|of| of.0)
                    .collect();
                let export = self.export();
                if self.apply(&export, true) {
                    // An applied export defines its services anew.
                    assert!(self.providers().iter().all(|of| of.1 != "orphan"), "{orphans:?}");
                }
            }
        }
        self.wait(WRITTEN);
        // A service that was removed has left its port to the local program that listens there.
        let served = self.served();
        let taken = self.listening().into_iter().filter(|port| !served.contains(port));
        self.clients.theirs.extend(taken);
    }

    /// Drops the expectation of ports whose services the file has moved and which have not been served since the boot.
    fn forget_moved_and_unserved(&mut self) {
        self.see();
        let served = self.served();
        let moved = self
            .clients
            .moved
            .iter()
            .filter(|name| OF_FILE.contains(name))
            .map(|name| port(name));
        for port in moved.filter(|port| !served.contains(port)) {
            self.clients.ports.remove(&port);
        }
    }

    fn remove_last(&mut self, name: &'static str, loss: Option<Loss>) {
        let losses = loss.into_iter().collect();
        if self.last_order(name, ServiceEdit::Delete, &losses).is_ok() {
            self.clients.ports.remove(&port(name));
            self.see();
            self.wait(Duration::from_secs(40));
            // The service's file may define it anew when the daemon starts.
            let may_return = self.file.is_named && OF_FILE.contains(&name);
            assert!(may_return || !self.served().contains(&port(name)), "{name} comes back");
        }
    }

    fn moves(&mut self, name: &'static str, leaves: bool) {
        self.see();
        if leaves {
            self.clients.moved.insert(name);
            // The service was not served since the machine booted.
            if !self.served().contains(&port(name)) {
                self.clients.ports.remove(&port(name));
            }
        } else {
            self.clients.moved.remove(name);
        }
        self.write_file(self.clients.file.clone());
        if OF_API.contains(&name) {
            let of_api: Vec<String> = self
                .providers()
                .into_iter()
                .filter(|of| of.1 == "api")
                .map(|of| of.0)
                .collect();
            // One that only the kernel knew by its port may have become the API's by an export: an apply would remove it.
            if !of_api.iter().all(|name| is_named(name)) {
                return;
            }
            let wanted = state(of_api.iter().map(|name| self.wanted(name)));
            let options = ApplyOptions {
                hold_back: true,
                ..ApplyOptions::default()
            };
            let is_applied = self.apply_with(&wanted, options);
            if is_applied && !leaves && of_api.iter().any(|of| of == name) {
                self.clients.ports.insert(port(name));
            }
        } else if self.file.is_named && self.file.content.is_some() {
            self.tell_file();
            self.run();
            self.see();
            self.expect_files();
        }
    }

    /// Expects from now on the ports of the file's services that were not rejected.
    fn expect_files(&mut self) {
        for (name, provider) in self.providers() {
            if provider == "file" && !self.clients.moved.contains(&*name) {
                self.clients.ports.insert(port(&name));
            }
        }
    }

    pub(super) fn set_key(&mut self, key: bool, by_restart: bool) {
        self.file.is_named = key;
        if by_restart {
            return self.restart_after(&BTreeSet::new());
        }
        if !key {
            self.core.no_file(self.time());
        }
        self.reload();
        if key {
            self.tell_file();
            self.run();
        }
    }
}
