//! Reads the JSON views of tcpgw.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Conn, Greeting};
use super::plan;
use super::shell::Ran;
use super::{Net, state};

/// An open connection, as its ends know it.
pub(crate) struct Held {
    pub(crate) conn: Conn,
    pub(crate) host: &'static str,
    pub(crate) public: SocketAddr,
    pub(crate) client: SocketAddr,
    /// Greeting of the backend.
    pub(crate) greeting: Greeting,
}

impl Held {
    /// Returns the backend's endpoint.
    pub(crate) fn backend(&self, port: u16) -> SocketAddr {
        state::endpoints(&self.greeting.backend, port)[usize::from(self.public.is_ipv6())]
    }
}

impl Net {
    /// Runs tcpgw with `-o json`, and reads what it prints.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str], status: i32) -> Value {
        let ran = self.tcpgw(&[args, &["-o", "json"]].concat()).exits(status);
        parsed(&ran)
    }

    /// Returns the flows that `tcpgw flows` lists.
    #[track_caller]
    pub(crate) fn flows(&self, args: &[&str]) -> Vec<Value> {
        let listed = self.json(&[&["flows"], args].concat(), 0);
        let flows = listed["flows"].as_array().expect("a list").clone();
        assert_eq!(listed["count"], flows.len());
        flows
    }

    /// Connects and keeps the connection.
    #[track_caller]
    pub(crate) fn hold(&self, host: &'static str, to: SocketAddr) -> Held {
        self.hold_from(
            host,
            SocketAddr::new(plan::ip(if to.is_ipv4() { "0.0.0.0" } else { "::" }), 0),
            to,
        )
    }

    /// Connects from this address and port, and keeps the connection.
    #[track_caller]
    pub(crate) fn hold_from(&self, host: &'static str, from: SocketAddr, to: SocketAddr) -> Held {
        let connect = || super::client::connect_from(Some(from), to, super::client::PATIENCE);
        let mut conn = self
            .within(host, connect)
            .unwrap_or_else(|e| panic!("{host} to {to}: {e}"));
        let greeting = conn.greeting().expect("a greeting");
        Held {
            host,
            public: to,
            client: conn.local(),
            greeting,
            conn,
        }
    }

    /// Sets a sysctl in the gateway.
    pub(crate) fn sysctl(&self, name: &str, value: u32) {
        self.run("gateway", &["sysctl", "-q", "-w", &format!("{name}={value}")])
            .ok();
    }
}

#[track_caller]
pub(crate) fn parsed(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran}"))
}
