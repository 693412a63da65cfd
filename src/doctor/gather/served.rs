//! Clients that were served: those of the last minutes, and the last ones of before while nobody else is served.
//!
//! conntrack forgets a connection some minutes after its end. If nobody is served any more, the clients that were served
//! last are remembered, because checks ask what would become of their packets now. This holds for each service and address
//! family: clients elsewhere come by other ports, addresses and routes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::super::facts::{ClientOfService, Fact};
use super::memory::{KeptClient, KeptMemory, Moment};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::conntrack::Conntrack;

/// Maximum number of pairs of a client and its backend that are read, of one service and family.
const MOST_CLIENTS: usize = 64;
/// Maximum number of flows that are read for them.
const MOST_FLOWS: usize = 4096;
/// Maximum number of pairs that are read and remembered.
const MOST_REMEMBERED: usize = 256;
/// Time for which a client is remembered before the last connection that began, of the same service and family.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);

/// A connection of a client that was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServedPair {
    pub(super) client: SocketAddr,
    pub(super) public: SocketAddr,
    pub(super) backend: SocketAddr,
}

/// The service of clients, by its position, and their family. Clients of services that are not known are together.
type PairGroup = (Family, Option<usize>);

impl ServedPair {
    pub(super) const fn of_service(&self) -> ClientOfService {
        ClientOfService::new(self.client, self.public)
    }

    fn key(&self) -> PairKey {
        (self.of_service(), self.backend)
    }

    fn group(&self, services: &Summary) -> PairGroup {
        (Family::of(self.client.ip()), services.position_at(self.public))
    }
}

type PairKey = (ClientOfService, SocketAddr);

/// Returns connections of some clients whose handshake was completed, and which conntrack still has: those of the last
/// minutes; one for each client, service and backend.
pub(super) fn served(mark: FlowMark, services: &Summary) -> Fact<Vec<ServedPair>> {
    let mut conntrack = Conntrack::open().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    let mut number: BTreeMap<PairGroup, usize> = BTreeMap::new();
    let mut read = 0;
    let listed = conntrack.completed(mark, |flow| {
        let pair = ServedPair {
            client: flow.client,
            public: flow.public,
            backend: flow.backend,
        };
        if let Entry::Vacant(vacant) = found.entry(pair.key()) {
            let number = number.entry(pair.group(services)).or_default();
            if *number < MOST_CLIENTS {
                *number += 1;
                vacant.insert(pair);
            }
        }
        read += 1;
        if found.len() >= MOST_REMEMBERED || read >= MOST_FLOWS {
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
    pairs: BTreeMap<PairKey, RememberedFlow>,
    /// Clients whose packets would not pass now.
    lost: BTreeMap<ClientOfService, LostClient>,
    last_read: Option<Instant>,
}

/// The last connection of a client to a backend, by a service.
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
    /// Whether other clients of the same service and family were served after the packets of this one began to be lost, so
    /// that this is probably intended.
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
            Some((served.key(), known))
        });
        let lost = kept
            .lost_clients
            .iter()
            .filter_map(|(client, public, since, is_banned)| {
                let lost = LostClient {
                    since: moment.instant(*since)?,
                    is_banned: *is_banned,
                };
                let of = ClientOfService {
                    client: *client,
                    public: *public,
                };
                Some((of, lost))
            });
        Self {
            pairs: pairs.collect(),
            lost: lost.collect(),
            last_read: None,
        }
    }

    /// Adds the clients that the next process continues with.
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
            .map(|(of, lost)| (of.client, of.public, moment.kept(lost.since), lost.is_banned))
            .collect();
    }

    /// Takes a reading.
    pub(super) fn read(&mut self, connections: Vec<ServedPair>, services: &Summary, now: Instant) {
        self.last_read = Some(now);
        for served in connections {
            let new = RememberedFlow {
                served,
                begun: now,
                last: now,
            };
            let known = self.pairs.entry(served.key()).or_insert(new);
            if known.served != served {
                (known.served, known.begun) = (served, now);
            }
            known.last = now;
        }
        let mut newest: BTreeMap<PairGroup, Instant> = BTreeMap::new();
        let mut reached = newest.clone();
        for ((of_service, _), known) in &self.pairs {
            let group = known.served.group(services);
            let latest = |times: &mut BTreeMap<PairGroup, Instant>| {
                let last = times.entry(group).or_insert(known.begun);
                *last = known.begun.max(*last);
            };
            latest(&mut newest);
            // What conntrack lists of clients that are lost shows nothing: it may be old.
            if !self.lost.contains_key(of_service) {
                latest(&mut reached);
            }
        }
        for (of, lost) in &mut self.lost {
            let group = (Family::of(of.client), services.position_at(of.public));
            lost.is_banned |= reached.get(&group).is_some_and(|reached| lost.since < *reached);
        }
        self.pairs.retain(|_, known| {
            let newest = newest.get(&known.served.group(services));
            newest.is_some_and(|newest| newest.saturating_duration_since(known.last) < REMEMBERED)
        });
        self.forget_too_many(services);
    }

    /// Forgets the oldest pairs of the largest groups, so that a service with many clients leaves room for the others.
    fn forget_too_many(&mut self, services: &Summary) {
        let mut groups: BTreeMap<PairGroup, BTreeSet<(Instant, PairKey)>> = BTreeMap::new();
        for (key, known) in &self.pairs {
            let group = groups.entry(known.served.group(services)).or_default();
            group.insert((known.last, *key));
        }
        while self.pairs.len() > MOST_REMEMBERED {
            let largest = groups.values_mut().max_by_key(|group| group.len());
            let Some((_, oldest)) = largest.and_then(BTreeSet::pop_first) else {
                break;
            };
            self.pairs.remove(&oldest);
        }
    }

    /// Takes the clients whose packets, or the answers to them, would be lost now.
    pub(super) fn judged(&mut self, lost: &BTreeSet<ClientOfService>, now: Instant) {
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
        let known = self.pairs.iter().map(|((of, _), known)| RememberedPair {
            served: known.served,
            is_recent: Some(known.last) == self.last_read,
            is_banned: self.lost.get(of).is_some_and(|lost| lost.is_banned),
        });
        known.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

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

    fn lost(clients: &[u8]) -> BTreeSet<ClientOfService> {
        clients.iter().map(|client| served(*client, 0).of_service()).collect()
    }

    #[test]
    fn the_last_clients_are_remembered_until_others_are_served() {
        let mut memory = ServedMemory::new();
        let mut now = Instant::now();
        memory.read(vec![served(2, 40_000), served(3, 40_000)], &Summary::default(), now);
        memory.read(vec![], &Summary::default(), now + REMEMBERED * 9);
        assert_eq!(told(&memory)[..2], [vec![2, 3], vec![]], "nobody was served since");
        now += REMEMBERED * 10;
        // A connection that stays is no news.
        memory.read(vec![served(2, 40_000)], &Summary::default(), now);
        assert_eq!(told(&memory)[..2], [vec![2, 3], vec![2]]);
        memory.read(vec![served(4, 40_000)], &Summary::default(), now + REMEMBERED / 2);
        assert_eq!(told(&memory)[..2], [vec![2, 4], vec![4]]);
        memory.read(vec![served(4, 50_000)], &Summary::default(), now + REMEMBERED);
        assert_eq!(told(&memory)[0], [4]);
    }

    #[test]
    fn who_is_lost_while_others_are_served_is_banned() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        memory.read(vec![served(2, 40_000), served(3, 40_000)], &Summary::default(), now);
        memory.judged(&lost(&[2]), now);
        assert_eq!(told(&memory)[2], [0; 0], "nobody was served since");
        memory.read(vec![served(2, 40_000), served(3, 40_000)], &Summary::default(), at(1));
        memory.judged(&lost(&[2]), at(1));
        assert_eq!(told(&memory)[2], [0; 0]);
        memory.read(vec![served(2, 40_000), served(3, 40_001)], &Summary::default(), at(2));
        assert_eq!(told(&memory)[2], [2]);
        // Now all are lost.
        memory.judged(&lost(&[2, 3]), at(3));
        memory.read(vec![served(3, 40_002)], &Summary::default(), at(4));
        assert_eq!(told(&memory)[2], [2]);
        memory.judged(&lost(&[3]), at(5));
        memory.judged(&lost(&[2, 3]), at(6));
        assert_eq!(told(&memory)[2], [0; 0], "it was reached in between");
    }

    /// Returns the same client by IPv6, and by another service.
    fn elsewhere(client: u8, port: u16) -> [ServedPair; 2] {
        let of = served(client, port);
        let v6 = ServedPair {
            client: SocketAddr::new([0x2001, 0xdb8, 0, 0, 0, 0, 0, client.into()].into(), port),
            public: (std::net::Ipv6Addr::LOCALHOST, 20003).into(),
            ..of
        };
        let other = ServedPair {
            public: ([203, 0, 113, 1], 20004).into(),
            ..of
        };
        [v6, other]
    }

    fn services() -> Summary {
        let state = r#"{"version":1,"services":[
            {"name":"web","port":20003,"backends":["10.2.0.11:3000"]},
            {"name":"other","port":20004,"backends":["10.2.0.11:3000"]}]}"#;
        Summary::from(&tcpgw_core::model::parse(state.as_bytes()).unwrap())
    }

    #[test]
    fn who_is_served_by_another_service_or_family_shows_nothing() {
        for which in [0, 1] {
            let mut memory = ServedMemory::new();
            let now = Instant::now();
            let at = |seconds| now + Duration::from_secs(seconds);
            memory.read(vec![served(2, 40_000), elsewhere(2, 40_000)[which]], &services(), now);
            memory.judged(&lost(&[2]), now);
            for seconds in [2, 700, 1400, 9000] {
                let port = 40_000 + u16::try_from(seconds).unwrap();
                memory.read(vec![elsewhere(2, port)[which]], &services(), at(seconds));
                let known = memory.known();
                let lost = known
                    .iter()
                    .find(|known| known.served.of_service() == served(2, 0).of_service());
                assert!(lost.is_some_and(|lost| !lost.is_banned), "{which}: {known:?}");
            }
            memory.read(vec![served(3, 40_000)], &services(), at(9001));
            let known = memory.known();
            let is_lost = |known: &&RememberedPair| known.served.of_service() == served(2, 0).of_service();
            assert_eq!(
                known.iter().find(is_lost),
                None,
                "others of the same service and family are served"
            );
        }
    }

    #[test]
    fn many_clients_of_one_service_leave_room_for_others() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        memory.read(vec![elsewhere(2, 40_000)[0]], &services(), now);
        for nth in 0..9 {
            let client = |last| ServedPair {
                client: ([198, 51, nth, last], 40_000).into(),
                ..served(2, 0)
            };
            let at = now + Duration::from_secs(nth.into());
            memory.read((0..100).map(client).collect(), &services(), at);
        }
        let known = memory.known();
        assert_eq!(known.len(), MOST_REMEMBERED);
        assert!(known.iter().any(|known| known.served.client.is_ipv6()));
    }

    #[test]
    fn clients_are_known_to_the_next_process() {
        let mut memory = ServedMemory::new();
        let now = Instant::now();
        let moment = Moment::at(now + Duration::from_secs(2));
        memory.read(
            vec![served(2, 40_000), served(3, 40_000), served(4, 40_000)],
            &Summary::default(),
            now,
        );
        memory.judged(&lost(&[2, 3]), now);
        memory.read(
            vec![served(4, 40_001)],
            &Summary::default(),
            now + Duration::from_secs(2),
        );
        let mut kept = KeptMemory::default();
        memory.keep(&mut kept, moment);
        let mut next = ServedMemory::restored(&kept, moment);
        assert_eq!(told(&next), [vec![2, 3, 4], vec![], vec![2, 3]]);
        // Nobody is served any more, and conntrack has forgotten all.
        next.read(vec![], &Summary::default(), now + Duration::from_secs(3));
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
                &Summary::default(),
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
