//! Access lists of services, applied to flows: whether the service that a flow came through denies its client now.
//!
//! It owns the look-up in the lists, and knows nothing of the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use tcpgw_core::model::network;
use tcpgw_core::summary::{ServiceSummary, Summary};
use tcpgw_kernel::conntrack::{Flow, TcpState};

/// The `allow` and `deny` lists of services that have any.
#[derive(Debug)]
pub struct AccessLists<'a> {
    summary: &'a Summary,
    /// Lists by the position of the service in the summary.
    lists: BTreeMap<usize, Lists>,
}

#[derive(Debug)]
struct Lists {
    allow: Option<Ranges>,
    deny: Ranges,
}

/// Disjoint ranges of addresses: the last address of each by its first.
#[derive(Debug)]
struct Ranges(BTreeMap<IpAddr, IpAddr>);

impl<'a> AccessLists<'a> {
    /// Returns the lists of these services.
    pub fn of(summary: &'a Summary) -> Self {
        let restricted =
            |service: &ServiceSummary| service.settings.allow.is_some() || !service.settings.deny.is_empty();
        let lists = summary
            .services
            .iter()
            .enumerate()
            .filter(|(_, service)| restricted(service))
            .map(|(at, service)| (at, Lists::of(service)))
            .collect();
        Self { summary, lists }
    }

    /// Returns whether no service has a list.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Returns the position of the service that a flow came through, if it denies the flow's client and the connection
    /// has not ended.
    pub fn denied_by(&self, flow: &Flow) -> Option<usize> {
        if matches!(flow.tcp_state, Some(TcpState::TimeWait | TcpState::Close)) {
            return None;
        }
        let at = self.summary.position_at(flow.public)?;
        let denied = self.lists.get(&at)?.deny(flow.client.ip());
        denied.then_some(at)
    }
}

impl Lists {
    fn of(service: &ServiceSummary) -> Self {
        Self {
            allow: service.settings.allow.as_deref().map(Ranges::of),
            deny: Ranges::of(&service.settings.deny),
        }
    }

    fn deny(&self, client: IpAddr) -> bool {
        self.deny.contains(client) || self.allow.as_ref().is_some_and(|allow| !allow.contains(client))
    }
}

impl Ranges {
    /// Parses networks. Text that is no network comes from another program, and matches no client.
    fn of(texts: &[Box<str>]) -> Self {
        let networks: Vec<IpNet> = texts.iter().filter_map(|text| network::parse(text).ok()).collect();
        let range = |network: &IpNet| (network.network(), network.broadcast());
        Self(network::aggregate(&networks).iter().map(range).collect())
    }

    fn contains(&self, address: IpAddr) -> bool {
        let at_or_before = self.0.range(..=address).next_back();
        at_or_before.is_some_and(|(first, last)| first.is_ipv4() == address.is_ipv4() && address <= *last)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use tcpgw_kernel::conntrack::CtStatus;

    fn summary(fields: &str) -> Summary {
        let text = format!(
            r#"{{"version":1,"services":[{{"name":"a","port":20003,"backends":["10.2.0.1:80","[fd00::1]:80"]{fields}}},
                {{"name":"b","port":20004,"backends":["10.2.0.2:80"]}}]}}"#
        );
        Summary::from(&tcpgw_core::model::parse(text.as_bytes()).unwrap())
    }

    fn flow(client: &str, port: u16) -> Flow {
        let client: IpAddr = client.parse().unwrap();
        let at = |v4: &str, v6: &str, port| {
            let address = if client.is_ipv4() { v4 } else { v6 };
            SocketAddr::new(address.parse().unwrap(), port)
        };
        Flow {
            client: SocketAddr::new(client, 40000),
            public: at("203.0.113.1", "2001:db8::1", port),
            backend: at("10.2.0.1", "fd00::1", 80),
            seen_as: at("10.2.0.254", "fd00::fe", 40000),
            id: 1,
            mark: 0,
            status: CtStatus(0),
            tcp_state: Some(TcpState::Established),
            zone: 0,
            timeout: None,
            counters: None,
            started: None,
        }
    }

    fn denied(summary: &Summary, client: &str) -> bool {
        AccessLists::of(summary).denied_by(&flow(client, 20003)).is_some()
    }

    #[test]
    fn deny_wins_and_an_allow_list_excludes_all_others() {
        let lists = summary(
            r#","allow":["198.18.0.0/15","2001:db8:f::/48"],"deny":["198.18.7.0/24","198.18.7.4","2001:db8:f:1::/64"]"#,
        );
        for (client, is_denied) in [
            ("198.18.0.1", false),
            ("198.19.255.255", false),
            ("198.20.0.0", true),
            ("198.18.7.4", true),
            ("198.18.7.255", true),
            ("198.18.8.0", false),
            ("2001:db8:f::1", false),
            ("2001:db8:f:1::1", true),
            ("2001:db8:10::1", true),
            ("0.0.0.1", true),
        ] {
            assert_eq!(denied(&lists, client), is_denied, "{client}");
        }
        assert!(AccessLists::of(&lists).denied_by(&flow("198.20.0.0", 20004)).is_none());
    }

    #[test]
    fn a_deny_list_of_one_family_leaves_the_other() {
        let lists = summary(r#","deny":["0.0.0.0/0"]"#);
        assert!(denied(&lists, "192.0.2.1") && !denied(&lists, "2001:db8::2"));
        let lists = summary(r#","deny":["::/0"]"#);
        assert!(!denied(&lists, "255.255.255.255") && denied(&lists, "::1:2"));
    }

    #[test]
    fn without_lists_and_for_what_is_over_nobody_is_denied() {
        assert!(AccessLists::of(&summary("")).is_empty());
        let lists = summary(r#","deny":["192.0.2.0/24"]"#);
        for state in [TcpState::TimeWait, TcpState::Close] {
            let over = Flow {
                tcp_state: Some(state),
                ..flow("192.0.2.1", 20003)
            };
            assert!(AccessLists::of(&lists).denied_by(&over).is_none());
        }
    }

    proptest! {
        #[test]
        fn nested_networks_are_as_if_asked_one_by_one(
            networks in prop::collection::vec((any::<u32>(), 4_u8..=32), 0..12),
            client in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let nets: Vec<IpNet> = networks
                .iter()
                .map(|(address, prefix)| IpNet::new(IpAddr::V4((*address).into()), *prefix).unwrap().trunc())
                .collect();
            let texts: Vec<Box<str>> = nets.iter().map(|net| net.to_string().into()).collect();
            let ranges = Ranges::of(&texts);
            let mut clients = vec![IpAddr::V4(client.into())];
            if !nets.is_empty() {
                clients.extend([near.get(&nets).network(), near.get(&nets).broadcast()]);
            }
            for client in clients {
                prop_assert_eq!(ranges.contains(client), nets.iter().any(|net| net.contains(&client)));
            }
        }
    }
}
