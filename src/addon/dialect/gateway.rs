//! Properties of the gateway that answers contain.

use std::num::NonZeroU16;

use crate::addon::plan::Plans;

/// Properties of the gateway that answers contain.
#[derive(Debug, Clone, Copy)]
pub struct GatewayProperties<'g> {
    /// The public name or address.
    pub host: &'g str,
    /// Start of the URL of an app's page, to which the resource's id is added; `None`: not known.
    pub pages: Option<&'g str>,
    /// Plans that the catalog offers.
    pub plans: &'g Plans,
}

impl GatewayProperties<'_> {
    /// Returns the value of `TCP_URL`.
    pub fn tcp_url(&self, port: NonZeroU16) -> String {
        tcp_url(self.host, port)
    }
}

/// Returns the value of `TCP_URL`. An IPv6 address stands in brackets (RFC 3986, 3.2.2).
pub fn tcp_url(host: &str, port: NonZeroU16) -> String {
    if host.contains(':') {
        format!("tcp://[{host}]:{port}")
    } else {
        format!("tcp://{host}:{port}")
    }
}
