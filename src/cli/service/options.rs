//! The fields of a service as options.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::view::endpoint;
use tcpgw_core::model::{duration, network};

use crate::cli::arguments::parse_duration;
use crate::cli::failure::Failure;
use crate::state_file;

/// Names and meanings are those of the state file.
#[derive(Debug, Args)]
pub(super) struct ServiceOptions {
    /// A file with the service, or the fields to change, as JSON; `-` is standard input. Other options override it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The public TCP port
    #[arg(long, value_name = "P")]
    port: Option<u16>,
    /// A local address to listen on; may be repeated [default: all]
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
    /// A backend; may be repeated. `set` replaces all backends by these
    #[arg(long, value_name = "IP:PORT[=WEIGHT]", value_parser = backend)]
    backend: Vec<Value>,
    /// The limit of each backend, in packets per second
    #[arg(long, value_name = "N")]
    pps: Option<u32>,
    /// The burst of the limit, in packets
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Maximum number of flows of the service at a time, for each address family
    #[arg(long, value_name = "N")]
    max_flows: Option<u32>,
    /// Maximum number of flows of each client at a time
    #[arg(long, value_name = "N")]
    client_flows: Option<u32>,
    /// Maximum number of new connections of each client, per second
    #[arg(long, value_name = "N")]
    client_handshakes: Option<u32>,
    /// Time that a connection without traffic is kept: 1s to 480h [default: `idle_timeout` of the configuration]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,
    /// Method that spreads new connections over the backends
    #[arg(long, value_parser = ["client-hash", "random", "source-hash", "round-robin"])]
    balance: Option<String>,
    /// The answer to a late packet of a flushed flow
    #[arg(long, value_parser = ["drop", "reset"])]
    on_retire: Option<String>,
    /// The answer to a new connection while no backend is active
    #[arg(long, value_parser = ["drop", "reset"])]
    on_empty: Option<String>,
    /// The address that backends see: the gateway's (masquerade) or the client's (preserve)
    #[arg(long, value_parser = ["masquerade", "preserve"])]
    source: Option<String>,
    /// A network of clients that may connect, excluding all others; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network::parse)]
    allow: Vec<IpNet>,
    /// A network of clients that may not connect; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network::parse)]
    deny: Vec<IpNet>,
    /// Longest time that flows of a removed backend may live
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
}

impl ServiceOptions {
    /// Returns the given options as JSON; fields to be reset are null.
    pub(super) fn json(&self, reset: &[String]) -> Result<Value, Failure> {
        let mut service = self.file()?;
        for field in reset {
            put(&mut service, field, Value::Null);
        }
        let texts = [
            ("balance", &self.balance),
            ("on_retire", &self.on_retire),
            ("on_empty", &self.on_empty),
            ("source", &self.source),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                put(&mut service, field, json!(text));
            }
        }
        let numbers = [
            ("port", self.port.map(u32::from)),
            ("limit.pps", self.pps),
            ("limit.burst", self.burst),
            ("max_flows", self.max_flows),
            ("client.flows", self.client_flows),
            ("client.handshakes_per_second", self.client_handshakes),
        ];
        for (field, number) in numbers {
            if let Some(number) = number {
                put(&mut service, field, json!(number));
            }
        }
        let lists = [
            ("addresses", self.address.iter().map(|address| json!(address)).collect()),
            ("backends", self.backend.clone()),
            ("allow", self.allow.iter().map(|net| json!(net.to_string())).collect()),
            ("deny", self.deny.iter().map(|net| json!(net.to_string())).collect()),
        ];
        for (field, list) in lists {
            if !list.is_empty() {
                put(&mut service, field, Value::Array(list));
            }
        }
        for (field, time) in [
            ("idle_timeout", self.idle_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            if let Some(time) = time {
                put(&mut service, field, json!(duration::show(time)));
            }
        }
        for (key, value) in &self.label {
            let labels = service.entry("labels").or_insert_with(|| json!({}));
            if !labels.is_object() {
                *labels = json!({});
            }
            labels[key] = json!(value);
        }
        Ok(Value::Object(service))
    }

    fn file(&self) -> Result<Map<String, Value>, Failure> {
        let Some(file) = &self.file else {
            return Ok(Map::new());
        };
        let text = state_file::read(file)?;
        let wrong = |message: String| Failure::Usage(format!("{}: {message}", tcpgw_core::escape::path(file)));
        match serde_json::from_slice(&text) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(wrong("must be an object with the fields of a service".into())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// Sets a field, or one of a nested object: `limit.burst`.
fn put(service: &mut Map<String, Value>, field: &str, value: Value) {
    let Some((outer, inner)) = field.split_once('.') else {
        service.insert(field.to_owned(), value);
        return;
    };
    let there = service.entry(outer).or_insert_with(|| json!({}));
    if !there.is_object() {
        *there = json!({});
    }
    there[inner] = value;
}

/// Parses a backend: `10.2.0.11:3000`, or with a weight `10.2.0.11:3000=5`.
pub(in crate::cli) fn backend(text: &str) -> Result<Value, String> {
    let Some((address, weight)) = text.split_once('=') else {
        return Ok(json!(endpoint(text)?));
    };
    let weight: u16 = weight
        .parse()
        .ok()
        .filter(|weight| (1..=256).contains(weight))
        .ok_or_else(|| format!("weight {weight:?} is no number from 1 to 256"))?;
    let at = endpoint(address)?;
    Ok(json!({"address": at.ip(), "port": at.port(), "weight": weight}))
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
