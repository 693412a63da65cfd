//! The public ports that resources get: from one range, each given once, and not again for a while after it came back.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use tcpgw_core::model::PortRange;

/// A port that was given back, and the time until which it rests, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// The port that was given back.
    pub port: NonZeroU16,
    /// End of its quarantine, since 1970.
    pub until: Duration,
}

/// Set of ports with one bit for each: it always takes 8 KiB, and a port is added and found without a search.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(vec![0; 1 << 10].into())
    }
}

impl PortSet {
    /// Adds a port.
    pub fn insert(&mut self, port: NonZeroU16) {
        self.0[usize::from(port.get() >> 6)] |= bit(port);
    }

    /// Removes a port.
    pub fn remove(&mut self, port: NonZeroU16) {
        self.0[usize::from(port.get() >> 6)] &= !bit(port);
    }

    /// Returns whether a port is in it.
    pub fn contains(&self, port: NonZeroU16) -> bool {
        self.0[usize::from(port.get() >> 6)] & bit(port) != 0
    }

    /// Returns the ports of a range that are not in it, the lowest first. Ports that are in it cost little: 64 of them are passed
    /// over at once.
    pub fn missing(&self, range: PortRange) -> impl Iterator<Item = NonZeroU16> + '_ {
        let (first, last) = range.bounds();
        let blocks = (first.get() >> 6)..=(last.get() >> 6);
        let blocks = blocks.filter(|block| self.0[usize::from(*block)] != u64::MAX);
        let ports = blocks.flat_map(|block| (block << 6)..=(block << 6 | 63));
        let ports = ports.filter_map(NonZeroU16::new);
        ports.filter(move |port| range.contains(*port) && !self.contains(*port))
    }
}

/// Ports that resources cannot have: those in use by other services or programs, and those that fences exclude.
pub trait BusyPorts: fmt::Debug {
    /// Returns whether a port is in use.
    fn has(&self, port: NonZeroU16) -> bool;

    /// Returns whether `fences.ports` allows a port. A reload may take fences whose `[addon]` cannot be used yet.
    fn allows(&self, port: NonZeroU16) -> bool;
}

impl BusyPorts for PortSet {
    fn has(&self, port: NonZeroU16) -> bool {
        self.contains(port)
    }

    fn allows(&self, _: NonZeroU16) -> bool {
        true
    }
}

fn bit(port: NonZeroU16) -> u64 {
    1 << (port.get() & 63)
}

impl Extend<NonZeroU16> for PortSet {
    fn extend<T: IntoIterator<Item = NonZeroU16>>(&mut self, ports: T) {
        for port in ports {
            self.insert(port);
        }
    }
}

impl FromIterator<NonZeroU16> for PortSet {
    fn from_iter<T: IntoIterator<Item = NonZeroU16>>(ports: T) -> Self {
        let mut set = Self::default();
        set.extend(ports);
        set
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = (1..=u16::MAX).filter_map(NonZeroU16::new);
        f.debug_set().entries(all.filter(|port| self.contains(*port))).finish()
    }
}

/// Advice for the case that no ports are left.
const REMEDY: &str = "let `addon.ports` have more ports, or `addon.quarantine` be shorter, and reload the daemon \
                      (`systemctl reload tcpgw`); `tcpgw addon ls` says which ports rest";

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn fenced_of(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(", and `fences.ports` does not allow {count}"),
    }
}

fn resting_of(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => ", and 1 rests since it was given back".into(),
        count => format!(", and {count} rest since they were given back"),
    }
}

/// Use of the port range: ports in use, and ports in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Range of public ports.
    pub range: Box<str>,
    /// Number of ports in the range.
    pub all: usize,
    /// Number of ports in use by resources, other services or, as far as requests of the last hour found, local programs.
    pub used: usize,
    /// Number of ports that nothing uses and `fences.ports` does not allow.
    pub fenced: usize,
    /// Ports in quarantine, by number.
    pub resting: Vec<RestingPort>,
}

/// A port in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestingPort {
    /// The port.
    pub port: NonZeroU16,
    /// Time from which the port can be given again, in seconds since 1970.
    pub until: u64,
}

impl PortUse {
    /// Returns the number of ports that can be given.
    pub fn free(&self) -> usize {
        let not_free = [self.used, self.fenced, self.resting.len()];
        not_free.into_iter().fold(self.all, usize::saturating_sub)
    }

    /// Returns whether fewer than 5 % or than 10 ports can be given; of a range of less than 20 ports, fewer than half of them.
    pub fn is_scarce(&self) -> bool {
        let fewest = self.all.div_ceil(20).max((self.all / 2).min(10)).max(1);
        self.free() < fewest
    }

    /// Returns a warning for the case that ports are scarce.
    pub fn warning(&self) -> String {
        let Self { range, all, used, .. } = self;
        let left = match self.free() {
            0 => "no public port is left".into(),
            1 => "1 public port is left".into(),
            free => format!("{free} public ports are left"),
        };
        format!(
            "{left} for resources of the add-on in {range}: {used} of {all} {} in use{}{}; {REMEDY}",
            are(*used),
            fenced_of(self.fenced),
            resting_of(self.resting.len())
        )
    }
}

/// Reason why no port was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PortRefusal {
    /// No port is left.
    #[error(
        "no public port is left in {range}: {used} of {all} {} in use{}{}; {REMEDY}",
        are(*used),
        fenced_of(*fenced),
        resting_of(*resting)
    )]
    Exhausted {
        /// Range of public ports.
        range: PortRange,
        /// Number of ports in the range.
        all: usize,
        /// Number of ports in use by resources, other services or local programs.
        used: usize,
        /// Number of other ports that `fences.ports` does not allow.
        fenced: usize,
        /// Number of ports in quarantine.
        resting: usize,
    },
    /// Local programs listen on all ports that were tried.
    #[error(
        "local programs listen on all of the {0} public ports that were tried; choose another range for addon.ports"
    )]
    Listening(usize),
    /// The requested port is not in the range.
    #[error("port {port} is not in {range}")]
    OutOfRange {
        /// The requested port.
        port: NonZeroU16,
        /// Range of public ports.
        range: PortRange,
    },
    /// The requested port is not one of those that the configuration allows services.
    #[error("port {0} is outside of the ports that the gateway allows (fences.ports)")]
    Fenced(NonZeroU16),
    /// The requested port is in use.
    #[error("port {0} is in use")]
    InUse(NonZeroU16),
    /// The requested port was given back a short time ago.
    #[error("port {port} was given back a short time ago; it is available again in {seconds} s")]
    Resting {
        /// The requested port.
        port: NonZeroU16,
        /// Remaining time of the quarantine, in seconds.
        seconds: u64,
    },
}

impl PortRefusal {
    /// Returns the message for a platform, whose users read it. It leaves out advice for the operator, who gets that by the
    /// problem `addon_ports`.
    pub fn for_platform(&self) -> String {
        match self {
            Self::Exhausted { range, .. } => {
                format!(
                    "no public port is left in {range}; nothing was made. The gateway's operator is told: ask again later"
                )
            }
            Self::Listening(_) => {
                "no public port can be had at the moment; nothing was made. Ask again later, or the gateway's operator"
                    .to_owned()
            }
            Self::OutOfRange { .. } | Self::Fenced(_) | Self::InUse(_) | Self::Resting { .. } => self.to_string(),
        }
    }
}

/// Ports of the range that are given, and ports in quarantine.
#[derive(Debug, Clone)]
pub struct PortPool {
    range: PortRange,
    quarantine: Duration,
    given: PortSet,
    resting: BTreeMap<NonZeroU16, PortRest>,
}

/// Quarantine of a port, in times since 1970.
#[derive(Debug, Clone, Copy)]
struct PortRest {
    /// Time at which the port was given back.
    at: Duration,
    /// End of the quarantine that was configured then.
    until: Duration,
}

impl PortPool {
    /// Creates a pool in which no port is given.
    pub fn new(range: PortRange, quarantine: Duration) -> Self {
        Self {
            range,
            quarantine,
            given: PortSet::default(),
            resting: BTreeMap::new(),
        }
    }

    /// Changes the range and the quarantine. Ports in use stay so.
    pub fn configure(&mut self, range: PortRange, quarantine: Duration) {
        (self.range, self.quarantine) = (range, quarantine);
    }

    /// Returns the port to give: the requested one, or the lowest that is free. `busy` are ports of others.
    ///
    /// # Errors
    /// Fails with [`PortRefusal`] when the requested port cannot be given, or no port is free.
    pub fn choose(
        &self,
        wished: Option<NonZeroU16>,
        busy: &dyn BusyPorts,
        now: Duration,
    ) -> Result<NonZeroU16, PortRefusal> {
        let range = self.range;
        let is_used = |port: &NonZeroU16| self.given.contains(*port) || busy.has(*port);
        if let Some(port) = wished {
            return match self.rests(port, now) {
                _ if !range.contains(port) => Err(PortRefusal::OutOfRange { port, range }),
                _ if is_used(&port) => Err(PortRefusal::InUse(port)),
                _ if !busy.allows(port) => Err(PortRefusal::Fenced(port)),
                Some(left) => Err(PortRefusal::Resting {
                    port,
                    seconds: left.as_secs().max(1),
                }),
                None => Ok(port),
            };
        }
        let free = self
            .given
            .missing(range)
            .find(|port| !busy.has(*port) && busy.allows(*port) && self.rests(*port, now).is_none());
        free.ok_or_else(|| {
            let (all, used, fenced) = self.counts(busy);
            PortRefusal::Exhausted {
                range,
                all,
                used,
                fenced,
                resting: all.saturating_sub(used).saturating_sub(fenced),
            }
        })
    }

    /// Returns the numbers of ports in the range: all, those in use, and others that fences exclude.
    fn counts(&self, busy: &dyn BusyPorts) -> (usize, usize, usize) {
        let is_used = |port: NonZeroU16| self.given.contains(port) || busy.has(port);
        let ports = self.range.iter();
        ports.fold((0, 0, 0), |(all, used, fenced), port| {
            let is_used = is_used(port);
            let is_fenced = !is_used && !busy.allows(port);
            (all + 1, used + usize::from(is_used), fenced + usize::from(is_fenced))
        })
    }

    /// Returns the use of the range; `busy` are ports of others.
    pub fn usage(&self, busy: &dyn BusyPorts, now: Duration) -> PortUse {
        let is_used = |port: &NonZeroU16| self.given.contains(*port) || busy.has(*port);
        let resting = self.resting.keys();
        let resting = resting.filter(|port| self.range.contains(**port) && !is_used(port) && busy.allows(**port));
        let resting = resting.filter_map(|port| {
            let until = now.saturating_add(self.rests(*port, now)?);
            Some(RestingPort {
                port: *port,
                until: until.as_secs(),
            })
        });
        let (all, used, fenced) = self.counts(busy);
        PortUse {
            range: self.range.to_string().into(),
            all,
            used,
            fenced,
            resting: resting.collect(),
        }
    }

    /// Marks a port as given.
    pub fn give(&mut self, port: NonZeroU16) {
        self.given.insert(port);
        self.resting.remove(&port);
    }

    /// Returns the end of the quarantine of a port that is given back now.
    pub fn rest_until(&self, now: Duration) -> Duration {
        now.saturating_add(self.quarantine)
    }

    /// Records that a port was given back at the time `at`. Forgets ports whose quarantine is over.
    pub fn take_back(&mut self, port: Quarantined, at: Duration, now: Duration) {
        let Quarantined { port, until } = port;
        self.given.remove(port);
        self.resting.retain(|_, rest| rest.until > now);
        self.resting.insert(port, PortRest { at, until });
    }

    /// Limits the rest of every port to one quarantine from now on, since the clock may have been set back after a port
    /// was given back. Returns the ports that count as given back now, with the ends of their rests.
    pub fn limit_rests(&mut self, now: Duration) -> Vec<Quarantined> {
        let longest = self.rest_until(now);
        let from_future = self.resting.iter_mut().filter(|(_, rest)| rest.at > now);
        let limited = from_future.map(|(port, rest)| {
            *rest = PortRest {
                at: now,
                until: longest.min(rest.until),
            };
            Quarantined {
                port: *port,
                until: rest.until,
            }
        });
        limited.collect()
    }

    /// Returns the time for which a port still rests: one quarantine at most, whatever was configured when it was given
    /// back, and also where [`Self::limit_rests`] was not called yet.
    fn rests(&self, port: NonZeroU16, now: Duration) -> Option<Duration> {
        let rest = self.resting.get(&port)?;
        let until = rest.until.min(rest.at.saturating_add(self.quarantine));
        let left = until.checked_sub(now)?;
        Some(left.min(self.quarantine)).filter(|left| !left.is_zero())
    }
}
