//! Clients that were served: those of the last minutes, and the last ones of before while nobody else is served.
//!
//! conntrack forgets a connection some minutes after its end. If nobody is served any more, the clients that were served
//! last are remembered, because checks ask what would become of their packets now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::super::facts::Fact;
use super::memory::{KeptClient, KeptMemory, Moment};
use tcpgw_core::model::FlowMark;
use tcpgw_kernel::conntrack::Conntrack;

/// Maximum number of pairs of a client and its backend that are read.
const MOST_CLIENTS: usize = 64;
/// Maximum number of flows that are read for them.
const MOST_FLOWS: usize = 4096;
/// Maximum number of pairs that are remembered.
const MOST_REMEMBERED: usize = 256;
/// Time for which a client is remembered before the last connection that began.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);

/// A connection of a client that was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServedPair {
    pub(super) client: SocketAddr,
    pub(super) public: SocketAddr,
    pub(super) backend: SocketAddr,
}

/// Returns connections of some clients whose handshake was completed, and which conntrack still has: those of the last
/// minutes; one for each client and backend.
pub(super) fn served(mark: FlowMark) -> Fact<Vec<ServedPair>> {
    let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    let mut read = 0;
    let listed = conntrack.completed(mark, |flow| {
        let (client, public, backend) = (flow.client, flow.public, flow.backend);
        found.entry((client.ip(), backend)).or_insert(ServedPair {
            client,
            public,
            backend,
        });
        read += 1;
        if found.len() >= MOST_CLIENTS || read >= MOST_FLOWS {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    listed.map_err(|error| error.to_string())?;
    Ok(found.into_values().collect())
}

/// Memory of clients from reading to reading.
#[derive(Debug, Default)]
pub(super) struct ServedMemory {
    pairs: BTreeMap<(IpAddr, SocketAddr), RememberedFlow>,
    /// Clients whose packets would not pass now.
    lost: BTreeMap<IpAddr, LostClient>,
    last_read: Option<Instant>,
}

/// The last connection of a client to a backend.
#[derive(Debug)]
struct RememberedFlow {
    served: ServedPair,
    /// Time of the reading that found it first, and last.
    begun: Instant,
    last: Instant,
}

#[derive(Debug)]
struct LostClient {
    since: Instant,
    is_banned: bool,
}

/// A remembered client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RememberedPair {
    pub(super) served: ServedPair,
    /// Whether conntrack still had the connection at the last reading.
    pub(super) is_recent: bool,
    /// Whether other clients were served after the packets of this one began to be lost, so that this is probably
    /// intended.
    pub(super) is_banned: bool,
}

impl ServedMemory {
    /// Creates an empty memory.
    pub(super) const fn new() -> Self {
        Self {
            pairs: BTreeMap::new(),
            lost: BTreeMap::new(),
            last_read: None,
        }
    }

    /// Returns what an earlier process has kept.
    pub(super) fn restored(kept: &KeptMemory, moment: Moment) -> Self {
        let pairs = kept.clients.iter().take(MOST_REMEMBERED).filter_map(|client| {
            let served = ServedPair {
                client: client.client,
                public: client.public,
                backend: client.backend,
            };
            let known = RememberedFlow {
                served,
                begun: moment.instant(client.begun)?,
                last: moment.instant(client.last)?,
            };
            Some(((served.client.ip(), served.backend), known))
        });
        let lost = kept.lost_clients.iter().filter_map(|(client, since, is_banned)| {
            let lost = LostClient {
                since: moment.instant(*since)?,
                is_banned: *is_banned,
            };
            Some((*client, lost))
        });
        Self {
            pairs: pairs.collect(),
            lost: lost.collect(),
            last_read: None,
        }
    }

    /// Adds what the next process has to know.
    pub(super) fn keep(&self, kept: &mut KeptMemory, moment: Moment) {
        let clients = self.pairs.values().map(|known| KeptClient {
            client: known.served.client,
            public: known.served.public,
            backend: known.served.backend,
            begun: moment.kept(known.begun),
            last: moment.kept(known.last),
        });
        kept.clients = clients.collect();
        let lost = self.lost.iter();
        kept.lost_clients = lost
            .map(|(client, lost)| (*client, moment.kept(lost.since), lost.is_banned))
            .collect();
    }

    /// Takes a reading.
    pub(super) fn read(&mut self, connections: Vec<ServedPair>, now: Instant) {
        self.last_read = Some(now);
        for served in connections {
            let new = RememberedFlow {
                served,
                begun: now,
                last: now,
            };
            let known = self.pairs.entry((served.client.ip(), served.backend)).or_insert(new);
            if known.served != served {
                (known.served, known.begun) = (served, now);
            }
            known.last = now;
        }
        // What conntrack lists of clients that are lost shows nothing: it may be old.
        let reached = self
            .pairs
            .iter()
            .filter(|((client, _), _)| !self.lost.contains_key(client));
        if let Some(reached) = reached.map(|(_, known)| known.begun).max() {
            for lost in self.lost.values_mut() {
                lost.is_banned |= lost.since < reached;
            }
        }
        let Some(newest) = self.pairs.values().map(|known| known.begun).max() else {
            return;
        };
        self.pairs
            .retain(|_, known| newest.saturating_duration_since(known.last) < REMEMBERED);
        while self.pairs.len() > MOST_REMEMBERED {
            let oldest = self.pairs.iter().min_by_key(|(_, known)| known.last);
            let Some(oldest) = oldest.map(|(pair, _)| *pair) else {
                break;
            };
            self.pairs.remove(&oldest);
        }
    }

    /// Takes the clients whose packets, or the answers to them, would be lost now.
    pub(super) fn judged(&mut self, lost: &BTreeSet<IpAddr>, now: Instant) {
        self.lost.retain(|client, _| lost.contains(client));
        for client in lost {
            self.lost.entry(*client).or_insert(LostClient {
                since: now,
                is_banned: false,
            });
        }
    }

    /// Returns the remembered clients.
    pub(super) fn known(&self) -> Vec<RememberedPair> {
        let known = self.pairs.iter().map(|((client, _), known)| RememberedPair {
            served: known.served,
            is_recent: Some(known.last) == self.last_read,
            is_banned: self.lost.get(client).is_some_and(|lost| lost.is_banned),
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(client: u8, port: u16) -> ServedPair {
        ServedPair {
            client: ([203, 0, 113, client], port).into(),
            public: ([203, 0, 113, 1], 20003).into(),
            backend: ([10, 2, 0, 11], 3000).into(),
        }
    }

    /// Returns the last bytes of the clients' addresses that are remembered, recent and banned.
    fn told(memory: &ServedMemory) -> [Vec<u8>; 3] {
        let known = memory.known();
        let last = |filter: fn(&RememberedPair) -> bool| {
            let of = known.iter().filter(|known| filter(known));
            of.map(|known| match known.served.client.ip() {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect()
        };
        [
            last(|_| true),
            last(|known| known.is_recent),
            last(|known| known.is_banned),
        ]
    }

    fn lost(clients: &[u8]) -> BTreeSet<IpAddr> {
        clients.iter().map(|client| served(*client, 0).client.ip()).collect()
    }

    #[test]
    fn the_last_clients_are_remembered_until_others_are_served() {
        let mut memory = ServedMemory::new();
        let mut now = Instant::now();
        memory.read(vec![served(2, 40_000), served(3, 40_000)], now);
        memory.read(vec![], now + REMEMBERED * 9);
        assert_eq!(told(&memory)[..2], [vec![2, 3], vec![]], "nobody was served since");
        now += REMEMBERED * 10;
        // A connection that stays is no news.
        memory.read(vec![served(2, 40_000)], now);
        assert_eq!(told(&memory)[..2], [vec![2, 3], vec![2]]);
        memory.read(vec![served(4, 40_000)], now + REMEMBERED / 2);
        assert_eq!(told(&memory)[..2], [vec![2, 4], vec![4]]);
        memory.read(vec![served(4, 50_000)], now + REMEMBERED);
        assert_eq!(told(&memory)[0], [4]);
    }

    #[test]
    fn who_is_lost_while_others_are_served_is_banned() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        memory.read(vec![served(2, 40_000), served(3, 40_000)], now);
        memory.judged(&lost(&[2]), now);
        assert_eq!(told(&memory)[2], [0; 0], "nobody was served since");
        memory.read(vec![served(2, 40_000), served(3, 40_000)], at(1));
        memory.judged(&lost(&[2]), at(1));
        assert_eq!(told(&memory)[2], [0; 0]);
        memory.read(vec![served(2, 40_000), served(3, 40_001)], at(2));
        assert_eq!(told(&memory)[2], [2]);
        // Now all are lost.
        memory.judged(&lost(&[2, 3]), at(3));
        memory.read(vec![served(3, 40_002)], at(4));
        assert_eq!(told(&memory)[2], [2]);
        memory.judged(&lost(&[3]), at(5));
        memory.judged(&lost(&[2, 3]), at(6));
        assert_eq!(told(&memory)[2], [0; 0], "it was reached in between");
    }

    #[test]
    fn clients_are_known_to_the_next_process() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        let moment = Moment::at(now + Duration::from_secs(2));
        memory.read(vec![served(2, 40_000), served(3, 40_000), served(4, 40_000)], now);
        memory.judged(&lost(&[2, 3]), now);
        memory.read(vec![served(4, 40_001)], now + Duration::from_secs(2));
        let mut kept = KeptMemory::default();
        memory.keep(&mut kept, moment);
        let mut next = ServedMemory::restored(&kept, moment);
        assert_eq!(told(&next), [vec![2, 3, 4], vec![], vec![2, 3]]);
        // Nobody is served any more, and conntrack has forgotten all.
        next.read(vec![], now + Duration::from_secs(3));
        assert_eq!(told(&next)[0], [2, 3, 4]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        for nth in 0..=u32::try_from(MOST_REMEMBERED).unwrap() {
            let client = SocketAddr::new(IpAddr::from((0xcb00_0000_u32 + nth).to_be_bytes()), 40_000);
            memory.read(
                vec![ServedPair {
                    client,
                    ..served(2, 40_000)
                }],
                now + Duration::from_millis(nth.into()),
            );
        }
        assert_eq!(memory.known().len(), MOST_REMEMBERED);
        assert!(
            memory
                .known()
                .iter()
                .all(|known| known.served.client.ip() != IpAddr::from([0xcb, 0, 0, 0]))
        );
    }
}
