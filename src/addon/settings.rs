//! `[addon]` in the configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use thiserror::Error;

use super::host::host;
use super::id::{Guid, PlanName};
use super::plan::{AddonPlan, PlanError, Plans, Price};
use super::platform_url::{PlatformUrl, PlatformUrlError};
use crate::transport::{Transport, TransportError, unreachable};
use tcpgw_core::model::duration;
use tcpgw_core::model::limit::MAX_PPS;
use tcpgw_core::model::{Fences, PortRange};
use tcpgw_core::model::{Limit, LimitDirection};

/// Default quarantine of a port that was given back.
const QUARANTINE: Duration = Duration::from_secs(3600);
/// Maximum quarantine.
pub(crate) const MAX_QUARANTINE: Duration = Duration::from_secs(30 * 24 * 3600);
/// MTU of plans' limits: size in bytes that a packet counts as.
const MTU: u32 = 1500;
/// Default burst of a plan, in seconds of its rate.
const BURST_SECONDS: u32 = 10;

/// The section `[addon]` as it is written in the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddonSection {
    listen: SocketAddr,
    host: String,
    #[serde(deserialize_with = "one_range")]
    ports: PortRange,
    quarantine: Option<String>,
    credentials: PathBuf,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    #[serde(default)]
    behind_proxy: bool,
    platform_url: Option<String>,
    plans: Vec<PlanSection>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanSection {
    name: PlanName,
    id: Guid,
    pps: u32,
    burst: Option<u32>,
    #[serde(default)]
    price: f64,
    #[serde(default)]
    description: String,
}

fn one_range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
    PortRange::deserialize(deserializer).map_err(D::Error::custom)
}

/// The checked settings of the section `[addon]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonSettings {
    /// Address that the provider API listens on.
    pub listen: SocketAddr,
    /// Transport of the provider API: TLS or plain.
    pub transport: Transport,
    /// The public name or address of the gateway; an IPv6 address without brackets.
    pub host: String,
    /// Range of public ports.
    pub ports: PortRange,
    /// Time for which a port is not given again after it was given back.
    pub quarantine: Duration,
    /// The credentials file.
    pub credentials: PathBuf,
    /// URL of the platform that an app's page links back to.
    pub platform: Option<PlatformUrl>,
    /// Plans of the section, in its order.
    pub plans: Plans,
}

impl AddonSettings {
    /// Returns the URL of the provider API without a slash at its end, as far as the settings tell: a proxy may have
    /// another one.
    pub fn base_url(&self) -> String {
        let scheme = match self.transport {
            Transport::Plain { behind_proxy: false } => "http",
            Transport::Plain { behind_proxy: true } | Transport::Tls { .. } => "https",
        };
        let port = self.listen.port();
        if self.host.contains(':') {
            format!("{scheme}://[{}]:{port}", self.host)
        } else {
            format!("{scheme}://{}:{port}", self.host)
        }
    }
}

/// Reason why a section cannot be used. Each message names the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddonSettingsError {
    /// The provider API would be open to the network without encryption, or its keys contradict each other.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The value is neither a host name nor an address.
    #[error("addon.host must be a host name or an IP address, such as tcp-gateway-1.example.com")]
    Host,
    /// No client can connect to the address.
    #[error(
        "addon.host is {address}, which is {what}: no client can connect to it, and apps get it in TCP_URL; write the gateway's public \
         name or address"
    )]
    HostUnreachable {
        /// The address.
        address: IpAddr,
        /// Kind of the address, with an article.
        what: &'static str,
    },
    /// The fences exclude ports of the range.
    #[error("addon.ports is {range}, and fences.ports does not allow {port}")]
    Fenced {
        /// The range that `addon.ports` names.
        range: PortRange,
        /// The first port that is not allowed.
        port: u16,
    },
    /// The quarantine is no duration, or too long.
    #[error("addon.quarantine must be a duration from 0s to 720h, such as 1h")]
    Quarantine,
    /// The platform's URL is none that a page can lead to.
    #[error(transparent)]
    PlatformUrl(#[from] PlatformUrlError),
    /// A plan's limit is out of range.
    #[error("addon.plans: plan {plan}: {key} is out of range: pps is 1 to {MAX_PPS}, burst at least 1")]
    Limit {
        /// The plan.
        plan: PlanName,
        /// The key.
        key: &'static str,
    },
    /// The plans do not go together.
    #[error("addon.plans: {0}")]
    Plans(#[from] PlanError),
}

impl AddonSection {
    /// Returns the checked settings.
    ///
    /// # Errors
    /// Fails with [`AddonSettingsError`] when a value is not accepted, or values contradict each other or the fences.
    pub fn check(&self, fences: &Fences) -> Result<AddonSettings, AddonSettingsError> {
        if let Some(port) = self.ports.iter().find(|port| !fences.allow_port(*port)) {
            return Err(AddonSettingsError::Fenced {
                range: self.ports,
                port: port.get(),
            });
        }
        Ok(AddonSettings {
            listen: self.listen,
            transport: self.transport()?,
            host: self.host()?,
            ports: self.ports,
            quarantine: self.quarantine()?,
            credentials: self.credentials.clone(),
            platform: self.platform_url.as_deref().map(str::parse).transpose()?,
            plans: Plans::new(self.plans.iter().map(PlanSection::check).collect::<Result<_, _>>()?)?,
        })
    }

    fn host(&self) -> Result<String, AddonSettingsError> {
        let host = host(&self.host).ok_or(AddonSettingsError::Host)?;
        match host.parse().map(|address: IpAddr| (address, unreachable(address))) {
            Ok((address, Some(what))) => Err(AddonSettingsError::HostUnreachable { address, what }),
            _ => Ok(host),
        }
    }

    fn transport(&self) -> Result<Transport, TransportError> {
        let files = (self.tls_cert.as_deref(), self.tls_key.as_deref());
        Transport::new("addon", self.listen, files, self.behind_proxy)
    }

    fn quarantine(&self) -> Result<Duration, AddonSettingsError> {
        let Some(text) = &self.quarantine else {
            return Ok(QUARANTINE);
        };
        let time = duration::parse(text).ok().filter(|time| *time <= MAX_QUARANTINE);
        time.ok_or(AddonSettingsError::Quarantine)
    }
}

impl PlanSection {
    fn check(&self) -> Result<AddonPlan, AddonSettingsError> {
        let wrong = |key| AddonSettingsError::Limit {
            plan: self.name.clone(),
            key,
        };
        if !(1..=MAX_PPS).contains(&self.pps) {
            return Err(wrong("pps"));
        }
        let limit = Limit {
            pps: self.pps,
            burst: self.burst.unwrap_or(self.pps.saturating_mul(BURST_SECONDS)),
            direction: LimitDirection::Each,
            mtu: MTU,
        };
        if limit.burst == 0 || !limit.fits_kernel() {
            return Err(wrong("burst"));
        }
        Ok(AddonPlan {
            name: self.name.clone(),
            id: self.id.clone(),
            limit,
            price: Price::try_from(self.price)?,
            description: self.description.clone(),
        })
    }
}

/// Returns whether a host leads each client to its own machine.
pub fn is_loopback(host: &str) -> bool {
    let address = host
        .parse::<IpAddr>()
        .map(|address| address.to_canonical().is_loopback());
    let name = host.strip_suffix('.').unwrap_or(host);
    address.unwrap_or(name == "localhost" || name.ends_with(".localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        listen = "127.0.0.1:8080"
        host = "tcp-gateway-1.example.com"
        ports = "20000-29999"
        credentials = "/etc/tcpgw/addon.toml"
        plans = [{name = "free", id = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11", pps = 512}]
    "#;

    fn check(text: &str) -> Result<AddonSettings, String> {
        let section: AddonSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.check(&Fences::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_section_is_read_with_its_defaults() {
        let settings = check(GOOD).unwrap();
        assert_eq!(settings.quarantine, QUARANTINE);
        assert_eq!(settings.transport, Transport::Plain { behind_proxy: false });
        let plan = settings.plans.by_name("free").unwrap();
        assert_eq!((plan.limit.burst, plan.price.is_free()), (5120, true));
    }

    #[test]
    fn nothing_is_open_to_the_network_in_plain() {
        let open = GOOD.replace("127.0.0.1", "203.0.113.1");
        assert!(check(&open).unwrap_err().contains("not a loopback address"));
        assert!(check(&format!("{open}\nbehind_proxy = true")).is_ok());
        assert!(check(&format!("{open}\ntls_cert = 'c'\ntls_key = 'k'")).is_ok());
        assert!(
            check(&format!("{open}\ntls_cert = 'c'"))
                .unwrap_err()
                .contains("go together")
        );
        let both = format!("{open}\ntls_cert = 'c'\ntls_key = 'k'\nbehind_proxy = true");
        assert!(check(&both).unwrap_err().contains("exclude each other"));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let cases = [
            ("pps = 512", "pps = 0", "plan free: pps is out of range"),
            ("pps = 512", "pps = 1000001", "plan free: pps is out of range"),
            ("pps = 512", "pps = 512, burst = 0", "plan free: burst is out of range"),
            ("pps = 512", "pps = 512, price = -1.0", "price must be"),
            ("20000-29999", "80-29999", "does not allow 80"),
            ("tcp-gateway-1.example.com", "a b", "addon.host"),
            ("tcp-gateway-1.example.com", "gw.1", "addon.host"),
            ("tcp-gateway-1.example.com", "<b>", "addon.host"),
            (
                "tcp-gateway-1.example.com",
                "0.0.0.0",
                "addon.host is 0.0.0.0, which is the address of no machine",
            ),
            ("tcp-gateway-1.example.com", "::", "the address of no machine"),
            ("tcp-gateway-1.example.com", "[::]", "the address of no machine"),
            (
                "tcp-gateway-1.example.com",
                "::ffff:0.0.0.0",
                "the address of no machine",
            ),
            ("tcp-gateway-1.example.com", "0.1.2.3", "of no machine"),
            ("tcp-gateway-1.example.com", "255.255.255.255", "the broadcast address"),
            ("tcp-gateway-1.example.com", "224.0.0.1", "a multicast address"),
            ("tcp-gateway-1.example.com", "ff02::1", "a multicast address"),
            ("tcp-gateway-1.example.com", "fe80::1", "a link-local address"),
            ("tcp-gateway-1.example.com", "169.254.1.1", "a link-local address"),
            ("tcp-gateway-1.example.com", "240.0.0.1", "a reserved address"),
            ("127.0.0.1:8080", "127.0.0.1:0", "addon.listen is 127.0.0.1:0"),
            ("credentials", "quarantine = '800h'\ncredentials", "addon.quarantine"),
            (
                "credentials",
                "platform_url = 'javascript:alert(1)'\ncredentials",
                "addon.platform_url",
            ),
            ("credentials", "unknown = 1\ncredentials", "unknown field"),
        ];
        for (old, new, expected) in cases {
            let error = check(&GOOD.replace(old, new)).unwrap_err();
            assert!(error.contains(expected), "{new}: {error}");
        }
    }

    #[test]
    fn hosts_that_lead_clients_to_themselves_are_known() {
        for host in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "::ffff:127.0.0.1",
            "localhost",
            "a.localhost",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["203.0.113.1", "2001:db8::1", "gw.example.com", "localhost.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
