//! An open connection that is sent more packets than a limit lets pass.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::harness::client::{Conn, PATIENCE};
use crate::harness::forge::{Forger, Segment};
use crate::harness::plan;
use crate::harness::wire::{ACK, Capture, SYN};
use crate::harness::{Net, wait_until};

/// An open connection through which duplicates of one empty segment are sent, which its other end does not answer.
pub(super) struct Flow<'a> {
    net: &'a Net,
    pub(super) from: &'static str,
    pub(super) backend: SocketAddr,
    /// Address of the other end, as the backend sees it.
    seen_as: SocketAddr,
    conn: Option<Conn>,
    forger: Forger,
    segment: Segment,
    arriving: Capture,
    /// Set that counts the packets over the limit, if there is one.
    pub(super) over: Option<&'static str>,
}

impl<'a> Flow<'a> {
    /// Connects until the connection is to that backend.
    #[track_caller]
    pub(super) fn open(net: &'a Net, from: &'static str, to: SocketAddr, host: &str, port: u16) -> Self {
        let family = usize::from(to.is_ipv6());
        let backend = SocketAddr::new(plan::addresses(host)[family], port);
        let answers = net.capture(host, move |packet| packet.src == backend && packet.has(SYN | ACK));
        let (conn, answer) = (0..100)
            .find_map(|_| {
                let conn = net.connect(from, to).expect("a connection");
                wait_until(Duration::from_millis(200), || answers.count() > 0);
                Some((conn, answers.so_far().pop()?))
            })
            .expect("a connection to that backend");
        let seen_as = answer.dst;
        Self {
            net,
            from,
            backend,
            seen_as,
            forger: net.forger(from),
            segment: Segment::new(conn.local(), to, ACK)
                .seq(answer.ack)
                .ack(answer.seq.wrapping_add(1)),
            arriving: net.capture(host, move |packet| (packet.src, packet.dst) == (seen_as, backend)),
            conn: Some(conn),
            over: Some(["over_to_v4", "over_to_v6"][family]),
        }
    }

    pub(super) fn free(self) -> Self {
        Self { over: None, ..self }
    }

    pub(super) fn turned(mut self) -> Self {
        let conn = self.conn.take();
        let mut back = self.back();
        back.conn = conn;
        back
    }

    /// Returns the same connection as the backend sees it.
    pub(super) fn back(&self) -> Self {
        let (client, public) = (self.segment.src, self.segment.dst);
        let host = plan::BACKENDS
            .into_iter()
            .find(|host| plan::addresses(host).contains(&self.backend.ip()));
        Self {
            net: self.net,
            from: self.from,
            backend: self.backend,
            seen_as: self.seen_as,
            conn: None,
            forger: self.net.forger(host.expect("a backend")),
            segment: Segment::new(self.backend, self.seen_as, ACK)
                .seq(self.segment.ack)
                .ack(self.segment.seq),
            arriving: self
                .net
                .capture(self.from, move |packet| (packet.src, packet.dst) == (public, client)),
            over: Some(["over_from_v4", "over_from_v6"][usize::from(public.is_ipv6())]),
        }
    }

    /// Sends more than the bucket holds until the first of it was counted as over: the packet that is to add the counter's
    /// element adds none while the kernel has no memory ready for it, and is dropped all the same.
    #[track_caller]
    pub(super) fn make_counter(&self, burst: u32) {
        let made = wait_until(PATIENCE, || {
            let send = || self.forger.send(&self.segment).expect("failed to send a segment");
            (0..2 * burst).for_each(|_| send());
            self.over.is_none() || self.dropped() > 0
        });
        assert!(made, "{} to {}: nothing was over", self.from, self.backend);
    }

    /// Waits until every packet that was sent has either arrived or been counted as over.
    #[track_caller]
    pub(super) fn send(&self, pps: u32, time: Duration) -> Passed {
        self.send_once(|| (), pps, time)
    }

    /// Sends packets once `ready` has returned.
    #[track_caller]
    pub(super) fn send_once(&self, ready: impl FnOnce(), pps: u32, time: Duration) -> Passed {
        let (arrived, dropped) = (self.arriving.count(), self.dropped());
        ready();
        let since = Instant::now();
        let sent = self.forger.blast(pps, time, |_| self.segment.clone());
        let seconds = since.elapsed().as_secs_f64();
        let mut packets = 0;
        let all = wait_until(PATIENCE, || {
            packets = u64::try_from(self.arriving.count() - arrived).expect("some packets");
            packets + self.dropped() - dropped == sent
        });
        let dropped = self.dropped() - dropped;
        assert!(
            all,
            "{} to {}: {packets} passed, {dropped} over, of {sent}",
            self.from, self.backend
        );
        Passed { sent, packets, seconds }
    }

    fn dropped(&self) -> u64 {
        let key = format!("{} . {}", self.backend.ip(), self.backend.port());
        self.over.map_or(0, |set| self.net.tallied(set, &key))
    }
}

/// Packets that passed, of those that were sent. The rest was counted as over the limit.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) sent: u64,
    pub(super) packets: u64,
    pub(super) seconds: f64,
}

impl Passed {
    /// Asserts that as many packets passed as a full bucket and its rate allow for the time, to within 2 % and a few packets.
    #[track_caller]
    pub(super) fn is_about(&self, burst: u32, pps: u32) {
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let passed = self.packets as f64;
        let due = f64::from(burst) + f64::from(pps) * self.seconds;
        assert!(
            (0.98 * due - 5.0..=1.02 * due + 5.0).contains(&passed),
            "{self:?}, due are {due}"
        );
    }
}
