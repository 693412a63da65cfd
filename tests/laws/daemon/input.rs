//! The events of the law, and what they do to the world.

use std::time::Duration;

use tcpgw_core::model::State;
use tcpgw_core::ruleset::links::Links;
use tcpgw_kernel::Kernel as _;
use tcpgw_kernel::fake::Fake;

use super::{Event, LastTable, World};
use crate::clients::{endpoints, syns};
use crate::states::{FIRST_PORT, PORTS, with_source};
use crate::world;

impl World {
    /// Returns a world whose daemon follows this file, and has no store.
    pub(super) fn new(file: State) -> Self {
        let mut world = world::World::without_daemon(LastTable::default());
        world.remove_store();
        world.file.is_named = true;
        world.file.may_be_empty = true;
        world.file.content = Some(file);
        world.start(Fake::default());
        world
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::File(state) => {
                self.file.content = Some(*state);
                self.tell_file();
            }
            Event::Flip(at) => self.containers.flip(*at.get(&endpoints())),
            Event::Wait(millis) => return self.wait(Duration::from_millis(millis)),
            Event::Connect(at, pick) => {
                self.connect(at.get(&syns()), pick);
            }
            Event::End(at) => self.end_flow(at),
            Event::Disturb => self.kernel().disturb(),
            Event::Remove(heard) => {
                let _ = self.kernel().remove();
                let now = self.time();
                if heard {
                    self.core.drift(None, "removed".into(), true, now);
                } else {
                    self.is_troubled = true;
                }
            }
            Event::Fail(call, fail) => self.fail_next(call, fail),
            Event::Clock(seconds) => self.clock.set(seconds),
            Event::Restart => self.restart(),
            Event::Listen(at) => {
                let port = *at.get(&[FIRST_PORT, FIRST_PORT + 1, FIRST_PORT + PORTS - 1]);
                if !self.surroundings.listening.remove(&port) {
                    self.surroundings.listening.insert(port);
                }
            }
            Event::Own(at) => {
                let endpoint = *at.get(&endpoints());
                if !self.surroundings.own.remove(&endpoint) {
                    self.surroundings.own.insert(endpoint);
                }
                self.core.addresses_changed(self.time());
            }
            Event::Links(count) => {
                // The last link has an address of its own, another one each time there are more or fewer.
                let mut links: Links = (1..count).map(|n| format!("br{n}")).collect();
                if count > 0 {
                    links.insert("int".into(), with_source(count));
                }
                self.set_links(links);
            }
        }
        self.run();
    }
}
