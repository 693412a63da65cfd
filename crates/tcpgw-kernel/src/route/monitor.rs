//! Monitor of links, addresses, routes, rules and settings of interfaces by rtnetlink's multicast groups, with short,
//! debounced [`Notification`]s. They do not contain the changes: the receiver reads what it needs.
//!
//! A message whose attributes the codec cannot read is lost, so receivers also read at intervals. The codec does not
//! know settings (`RTM_NEWNETCONF`) at all, so these have a connection of their own, and only the type of their
//! messages is read.
//!
//! Sources: `rtnl_notify` in `net/core/rtnetlink.c`, `netlink_overrun` in `net/netlink/af_netlink.c`; for settings
//! `inet_netconf_notify_devconf` in `net/ipv4/devinet.c` and `inet6_netconf_notify_devconf` in `net/ipv6/addrconf.c`.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteMessage, RouteType};
use netlink_proto::sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_stream::{Stream, StreamExt as _};

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
const GROUPS_OF_SETTINGS: [MulticastGroup; 2] = [MulticastGroup::Ipv4Netconf, MulticastGroup::Ipv6Netconf];
/// Time without a notification after which a burst has ended.
const QUIET: Duration = Duration::from_millis(50);
/// Longest delay of the notification of a burst that does not end.
const LONGEST: Duration = Duration::from_secs(1);
/// Pause before a connection that died is opened again, doubled up to [`RETRY_MOST`] as long as that fails.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Changes since the last notification, certain or possible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each kind of change is independent of the others"
)]
pub struct Notification {
    /// Whether links were added, removed, renamed, switched on or off.
    pub links: bool,
    /// Whether addresses of this machine were added or removed, among them local routes to single addresses or
    /// prefixes.
    pub addresses: bool,
    /// Whether routes changed.
    pub routes: bool,
    /// Whether routing rules (`ip rule`) were added or removed.
    pub rules: bool,
    /// Whether settings of interfaces, or of all, changed: `forwarding` and `ip_forward`, `force_forwarding`,
    /// `rp_filter`.
    pub settings: bool,
    /// Whether messages were lost: anything may have changed, and all other fields are set, too.
    pub lost: bool,
}

impl Notification {
    /// The notification after a loss of messages: anything may have changed.
    pub const LOST: Self = Self {
        links: true,
        addresses: true,
        routes: true,
        rules: true,
        settings: true,
        lost: true,
    };

    /// Returns the changes that a message reports; none for messages of other kinds.
    fn of(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Self {
        use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, DelRule, NewAddress, NewLink, NewRoute, NewRule};
        let mut changes = Self::default();
        match payload {
            NetlinkPayload::InnerMessage(NewLink(_) | DelLink(_)) => changes.links = true,
            NetlinkPayload::InnerMessage(NewAddress(_) | DelAddress(_)) => changes.addresses = true,
            NetlinkPayload::InnerMessage(NewRoute(route) | DelRoute(route)) if is_local(route) => {
                changes.addresses = true;
            }
            NetlinkPayload::InnerMessage(NewRoute(_) | DelRoute(_)) => changes.routes = true,
            NetlinkPayload::InnerMessage(NewRule(_) | DelRule(_)) => changes.rules = true,
            NetlinkPayload::Overrun(_) => return Self::LOST,
            _ => {}
        }
        changes
    }

    /// Returns the changes that a message about settings reports.
    fn of_settings(payload: &NetlinkPayload<AnyMessage>) -> Self {
        match payload {
            NetlinkPayload::InnerMessage(AnyMessage) => Self {
                settings: true,
                ..Self::default()
            },
            NetlinkPayload::Overrun(_) => Self::LOST,
            _ => Self::default(),
        }
    }

    /// Adds the changes of another notification.
    pub fn add(&mut self, other: Self) {
        self.links |= other.links;
        self.addresses |= other.addresses;
        self.routes |= other.routes;
        self.rules |= other.rules;
        self.settings |= other.settings;
        self.lost |= other.lost;
    }
}

fn is_local(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local
}

/// A message of groups that tell of one thing alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AnyMessage;

impl NetlinkDeserializable for AnyMessage {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self)
    }
}

/// A connection wants to be able to send what it receives; nothing is ever sent.
impl NetlinkSerializable for AnyMessage {
    fn message_type(&self) -> u16 {
        0
    }

    fn buffer_len(&self) -> usize {
        0
    }

    fn serialize(&self, _: &mut [u8]) {}
}

/// Merges a burst of messages into one notification. Takes the time as an argument.
#[derive(Debug, Default)]
struct Debounce {
    changes: Notification,
    /// Times of the first and the last message of the burst.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    fn add(&mut self, changes: Notification, now: Instant) {
        if changes == Notification::default() {
            return;
        }
        self.changes.add(changes);
        let (_, last) = self.burst.get_or_insert((now, now));
        *last = now;
    }

    /// Returns the time at which the notification is due; `None` while there is no change.
    fn due(&self) -> Option<Instant> {
        self.burst.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    fn take(&mut self) -> Notification {
        self.burst = None;
        std::mem::take(&mut self.changes)
    }
}

/// Begins to monitor the network namespace of the calling thread, in a task of the current runtime. No change after the
/// return is missed. At most one notification waits in the channel; later changes are added to the next one.
///
/// A connection that cannot be opened, or that fails, is opened again in the task, and changes that may have been
/// missed are reported as [`Notification::LOST`]. The task ends when the receiver is dropped.
pub fn follow() -> mpsc::Receiver<Notification> {
    let (sender, receiver) = mpsc::channel(1);
    let first = connect();
    tokio::spawn(keep_following(first, sender));
    receiver
}

type NotificationStream = std::pin::Pin<Box<dyn Stream<Item = Notification> + Send>>;
type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens the connections. Messages come as long as the driver is polled, which ends when one of the connections fails.
fn connect() -> io::Result<(Driver, NotificationStream)> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)?;
    let (mut settings, _, of_settings) =
        netlink_proto::new_connection_with_socket::<AnyMessage, TokioSocket>(NETLINK_ROUTE)?;
    let groups = GROUPS_OF_SETTINGS
        .into_iter()
        .fold(0, |groups, group| groups | 1 << (group as u32 - 1));
    settings.socket_mut().socket_mut().bind(&SocketAddr::new(0, groups))?;
    // Port 0 is the kernel.
    let messages =
        messages.filter_map(|(message, from)| (from.port_number() == 0).then(|| Notification::of(&message.payload)));
    let of_settings = of_settings
        .filter_map(|(message, from)| (from.port_number() == 0).then(|| Notification::of_settings(&message.payload)));
    let driver = async {
        tokio::select! {
            () = connection => {}
            () = settings => {}
        }
    };
    Ok((Box::pin(driver), Box::pin(messages.merge(of_settings))))
}

async fn keep_following(first: io::Result<(Driver, NotificationStream)>, sender: mpsc::Sender<Notification>) {
    let mut debounce = Debounce::default();
    let mut connected = first;
    let mut pause = RETRY;
    loop {
        match connected {
            Ok((driver, messages)) => {
                let begin = Instant::now();
                if listen(driver, messages, &mut debounce, &sender).await.is_err() {
                    return;
                }
                if begin.elapsed() > RETRY_MOST {
                    pause = RETRY;
                }
                tracing::warn!(
                    "the connection that follows links, addresses, routes and settings has died: opening it again"
                );
            }
            Err(error) => tracing::warn!(%error, "failed to follow links, addresses, routes and settings"),
        }
        if sender.is_closed() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
        connected = connect();
        debounce.add(Notification::LOST, Instant::now());
    }
}

/// Error: the receiver of notifications has been dropped.
struct Closed;

/// Passes notifications on until the connection has failed.
async fn listen(
    driver: Driver,
    messages: NotificationStream,
    debounce: &mut Debounce,
    sender: &mpsc::Sender<Notification>,
) -> Result<(), Closed> {
    let (mut driver, mut messages) = (pin!(driver), pin!(messages));
    loop {
        let now = Instant::now();
        let due = debounce.due();
        tokio::select! {
            // The driver reads from the socket only when all that it has read is used up: memory stays bounded.
            biased;
            changes = messages.next() => match changes {
                Some(changes) => debounce.add(changes, now),
                None => return Ok(()),
            },
            permit = sender.reserve(), if due.is_some_and(|due| due <= now) => match permit {
                Ok(permit) => permit.send(debounce.take()),
                Err(_) => return Err(Closed),
            },
            () = at(due), if due.is_some_and(|due| due > now) => {}
            () = &mut driver => return Ok(()),
            () = sender.closed() => return Err(Closed),
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{ErrorMessage, NetlinkPayload};
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::LinkMessage;
    use netlink_packet_route::neighbour::NeighbourMessage;
    use netlink_packet_route::rule::RuleMessage;
    use tokio::time::timeout;

    use super::*;

    fn of(message: RouteNetlinkMessage) -> Notification {
        Notification::of(&NetlinkPayload::InnerMessage(message))
    }

    const LINKS: Notification = Notification {
        links: true,
        addresses: false,
        routes: false,
        rules: false,
        settings: false,
        lost: false,
    };
    const NOTHING: Notification = Notification { links: false, ..LINKS };
    const ADDRESSES: Notification = Notification {
        addresses: true,
        ..NOTHING
    };

    #[test]
    fn messages_are_told_apart() {
        use RouteNetlinkMessage as Message;
        let route = |kind| {
            let mut route = RouteMessage::default();
            route.header.kind = kind;
            route
        };
        let routes = Notification {
            routes: true,
            ..NOTHING
        };
        let rules = Notification { rules: true, ..NOTHING };
        for (message, changes) in [
            (Message::NewLink(LinkMessage::default()), LINKS),
            (Message::DelLink(LinkMessage::default()), LINKS),
            (Message::NewAddress(AddressMessage::default()), ADDRESSES),
            (Message::DelAddress(AddressMessage::default()), ADDRESSES),
            (Message::NewRoute(route(RouteType::Unicast)), routes),
            (Message::DelRoute(route(RouteType::BlackHole)), routes),
            (Message::NewRoute(route(RouteType::Local)), ADDRESSES),
            (Message::DelRoute(route(RouteType::Local)), ADDRESSES),
            (Message::NewRule(RuleMessage::default()), rules),
            (Message::DelRule(RuleMessage::default()), rules),
            (Message::NewNeighbour(NeighbourMessage::default()), NOTHING),
            (Message::GetLink(LinkMessage::default()), NOTHING),
        ] {
            assert_eq!(of(message.clone()), changes, "{message:?}");
        }
        let settings = Notification {
            settings: true,
            ..NOTHING
        };
        assert_eq!(
            Notification::of_settings(&NetlinkPayload::InnerMessage(AnyMessage)),
            settings
        );
        assert_eq!(
            Notification::of_settings(&NetlinkPayload::Overrun(Vec::new())),
            Notification::LOST
        );
        assert_eq!(
            Notification::of(&NetlinkPayload::Overrun(Vec::new())),
            Notification::LOST
        );
        assert_eq!(
            Notification::of(&NetlinkPayload::Error(ErrorMessage::default())),
            NOTHING
        );
    }

    #[test]
    fn a_burst_is_one_notification() {
        let begin = Instant::now();
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.add(NOTHING, begin);
        assert_eq!(debounce.due(), None, "what tells nothing is no burst");
        for step in 0..10 {
            let now = begin + QUIET / 2 * step;
            debounce.add(if step == 3 { LINKS } else { ADDRESSES }, now);
            assert_eq!(debounce.due(), Some(now + QUIET));
        }
        let changes = debounce.take();
        assert_eq!(
            changes,
            Notification {
                links: true,
                ..ADDRESSES
            }
        );
        assert_eq!((debounce.due(), debounce.take()), (None, NOTHING));
    }

    #[test]
    fn a_storm_is_told_of_all_the_same() {
        let begin = Instant::now();
        let mut debounce = Debounce::default();
        for millis in 0..5000 {
            debounce.add(LINKS, begin + Duration::from_millis(millis));
        }
        assert_eq!(debounce.due(), Some(begin + LONGEST));
        debounce.add(Notification::LOST, begin + LONGEST);
        assert_eq!(debounce.take(), Notification::LOST);
    }

    fn stream(messages: Vec<Notification>) -> NotificationStream {
        let stream = tokio_stream::iter(messages);
        Box::pin(stream.chain(tokio_stream::once(NOTHING)).chain(tokio_stream::pending()))
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    }

    #[test]
    fn one_notification_waits_at_most() {
        runtime().block_on(async {
            let (sender, mut receiver) = mpsc::channel(1);
            sender.send(LINKS).await.unwrap();
            let task = tokio::spawn(async move {
                let mut debounce = Debounce::default();
                let driver: Driver = Box::pin(pending());
                let ended = listen(driver, stream(vec![ADDRESSES; 100_000]), &mut debounce, &sender).await;
                ended.is_err()
            });
            sleep(QUIET * 3).await;
            assert_eq!(receiver.recv().await, Some(LINKS));
            assert_eq!(receiver.recv().await, Some(ADDRESSES));
            assert!(
                timeout(QUIET * 3, receiver.recv()).await.is_err(),
                "it was told already"
            );
            drop(receiver);
            assert!(
                timeout(LONGEST, task).await.unwrap().unwrap(),
                "it ends with its reader"
            );
        });
    }

    #[test]
    fn a_connection_that_dies_is_opened_again() {
        runtime().block_on(async {
            let (sender, mut receiver) = mpsc::channel(1);
            let dead: (Driver, NotificationStream) =
                (Box::pin(std::future::ready(())), Box::pin(tokio_stream::pending()));
            let task = tokio::spawn(keep_following(Ok(dead), sender));
            let changes = timeout(RETRY * 50, receiver.recv()).await.expect("a notification");
            assert_eq!(changes, Some(Notification::LOST));
            assert!(!task.is_finished());
            let refused = Err(io::ErrorKind::PermissionDenied.into());
            let (sender, mut receiver) = mpsc::channel(1);
            tokio::spawn(keep_following(refused, sender));
            let changes = timeout(RETRY * 50, receiver.recv()).await.expect("a notification");
            assert_eq!(changes, Some(Notification::LOST));
        });
    }
}
