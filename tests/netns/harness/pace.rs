//! Measures the load that this machine can carry, for tests whose load has to fit it. An emulated machine forwards a tenth of the
//! packets that others do, and loses packets that it has no time for, which is not the effect of a limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::PATIENCE;
use super::forge::Segment;
use super::wire::RST;
use super::{Net, plan, wait_until};

/// Number of packets of a measurement.
const SAMPLE: u32 = 1000;
/// Port without a listener. A reset gets no answer.
const NOWHERE: u16 = 9;

impl Net {
    /// Returns the number by which a load of so many packets/s must be divided so that forwarding them takes no more than half of
    /// a processor's time: 1, or on a slow machine 2, 4, 8 and so on.
    #[track_caller]
    pub(crate) fn divisor(&self, pps: u32) -> u32 {
        let [from, to] = ["client", "routed"].map(|host| SocketAddr::new(plan::addresses(host)[0], NOWHERE));
        let arriving = self.capture("routed", move |packet| packet.dst == to);
        let (forger, segment) = (self.forger("client"), Segment::new(from, to, RST));
        let since = Instant::now();
        for _ in 0..SAMPLE {
            forger.send(&segment).expect("failed to send a segment");
        }
        let all = wait_until(PATIENCE, || arriving.count() >= SAMPLE as usize);
        assert!(all, "{} of {SAMPLE} arrived", arriving.count());
        let took = since.elapsed() / SAMPLE;
        let fits = |divisor: &u32| took * (pps / divisor) <= Duration::from_millis(500);
        let divisor = (0..10).map(|doublings| 1 << doublings).find(fits).unwrap_or(1 << 10);
        eprintln!("a packet takes {took:?}: {pps} packets/s are divided by {divisor}");
        divisor
    }
}
