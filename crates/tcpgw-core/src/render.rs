//! The ruleset as nft text: input for `nft -f`, in the form in which `nft list table inet tcpgw` shows it.

use std::fmt::{self, Write};

use crate::model::FlowMark;
use crate::ruleset::Ruleset;
use crate::ruleset::cap::{CLIENT_MILLISECONDS, CLIENT_SET_SIZE};
use crate::ruleset::name::{Family, ListenScope, SetName, SpreadRule};
use crate::ruleset::room::Room;
use crate::ruleset::rows::{Limits, Rows, read_address, read_endpoint};
use crate::ruleset::skeleton::{self, Hook, SkeletonChain};
use crate::ruleset::spec::{
    COUNTER_SET_SIZE, Field, MOMENT_MILLISECONDS, MOMENT_SET_SIZE, Payload, RESERVE_BURST, RESERVE_MILLISECONDS,
    RESERVE_RATE, SetSpec,
};
use crate::ruleset::stmt::concat;
use crate::ruleset::text::{key, range};
use crate::ruleset::timeouts::{KernelTimeouts, TimeoutState, Timeouts};

/// Writes the whole table. Loading the text replaces an existing table in one transaction.
pub fn table(out: &mut dyn Write, ruleset: &Ruleset, mark: FlowMark) -> fmt::Result {
    // `delete` fails on a table that does not exist, so it is created first.
    writeln!(out, "table inet tcpgw\ndelete table inet tcpgw")?;
    writeln!(
        out,
        "table inet tcpgw {{\n\tcomment \"{}\"\n",
        skeleton::comment(mark, Room::of(ruleset))
    )?;
    for timeouts in Timeouts::FIXED.into_iter().chain(ruleset.idle_timeouts()) {
        object(out, timeouts, ruleset.timeouts())?;
    }
    for name in SetName::fixed() {
        set(out, name, ruleset)?;
    }
    for name in ruleset.sets().keys().filter(|name| matches!(name, SetName::Spread(..))) {
        set(out, *name, ruleset)?;
        if let SetName::Spread(listen_scope, SpreadRule::Cap(cap)) = name {
            set(out, SetName::Capped(*listen_scope, *cap), ruleset)?;
        }
    }
    let spreads =
        ListenScope::ALL.map(|listen_scope| skeleton::spread(listen_scope, &ruleset.widths(listen_scope), mark));
    let round_robin = ruleset
        .round_robin_chains()
        .into_iter()
        .map(skeleton::round_robin_chain);
    let fixed = skeleton::fixed(mark, &ruleset.optional_sets());
    for chain in spreads.into_iter().chain(fixed).chain(round_robin) {
        write_chain(out, &chain)?;
    }
    writeln!(out, "}}")
}

fn object(out: &mut dyn Write, timeouts: Timeouts, kernel: &KernelTimeouts) -> fmt::Result {
    let l3proto = match timeouts.family() {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    writeln!(out, "\tct timeout {timeouts} {{")?;
    writeln!(out, "\t\tprotocol tcp\n\t\tl3proto {l3proto}")?;
    // nft lists only what differs from the kernel's own values.
    let timeout = |(state, seconds): (TimeoutState, u32)| {
        (seconds != state.default_seconds()).then(|| format!("{state} : {seconds}"))
    };
    let policy: Vec<String> = timeouts.policy(kernel).into_iter().filter_map(timeout).collect();
    writeln!(out, "\t\tpolicy = {{ {} }}\n\t}}\n", policy.join(", "))
}

fn set(out: &mut dyn Write, name: SetName, ruleset: &Ruleset) -> fmt::Result {
    let spec = SetSpec::of(name);
    let kind = if matches!(
        spec.payload,
        Payload::Endpoint(_) | Payload::Address(_) | Payload::Chain
    ) {
        "map"
    } else {
        "set"
    };
    writeln!(out, "\t{kind} {name} {{")?;
    match spec.payload {
        Payload::Endpoint(family) => {
            let data = concat(&[Field::DestAddress(family), Field::DestPort]);
            writeln!(out, "\t\ttypeof {} : {data}", concat(&spec.key))?;
        }
        Payload::Address(family) => {
            let data = concat(&[Field::SourceAddress(family)]);
            writeln!(out, "\t\ttypeof {} : {data}", concat(&spec.key))?;
        }
        Payload::Chain => {
            let datatype = |field: &Field| match field {
                Field::L4Proto => "inet_proto",
                Field::DestAddress(Family::V4) => "ipv4_addr",
                Field::DestAddress(Family::V6) => "ipv6_addr",
                _ => "inet_service",
            };
            let types: Vec<&str> = spec.key.iter().map(datatype).collect();
            writeln!(out, "\t\ttype {} : verdict", types.join(" . "))?;
        }
        _ => writeln!(out, "\t\ttypeof {}", concat(&spec.key))?,
    }
    if let Some(size) = Room::of(ruleset).size(name) {
        writeln!(out, "\t\tsize {size}")?;
    }
    if spec.interval {
        writeln!(out, "\t\tflags interval")?;
    }
    match spec.payload {
        Payload::Counter => writeln!(out, "\t\tsize {COUNTER_SET_SIZE}\n\t\tflags dynamic\n\t\tcounter")?,
        Payload::Moment => writeln!(
            out,
            "\t\tsize {MOMENT_SET_SIZE}\n\t\tflags dynamic,timeout\n\t\ttimeout {}s",
            MOMENT_MILLISECONDS / 1000
        )?,
        Payload::Reserve => writeln!(
            out,
            "\t\tsize {MOMENT_SET_SIZE}\n\t\tflags dynamic,timeout\n\t\tlimit rate {RESERVE_RATE}/second burst {RESERVE_BURST} packets\n\t\ttimeout {}m",
            RESERVE_MILLISECONDS / 60_000
        )?,
        Payload::Rate(rate) => writeln!(
            out,
            "\t\tsize {CLIENT_SET_SIZE}\n\t\tflags dynamic,timeout\n\t\tlimit rate over {rate}/second burst {rate} packets\n\t\ttimeout {}s",
            CLIENT_MILLISECONDS / 1000
        )?,
        Payload::Flows(flows) => writeln!(
            out,
            "\t\tsize {CLIENT_SET_SIZE}\n\t\tflags dynamic\n\t\tct count over {flows}"
        )?,
        Payload::OneFlow(flows) => writeln!(out, "\t\tsize {flows}\n\t\tflags dynamic\n\t\tct count over 0")?,
        Payload::Limits => writeln!(
            out,
            "\t\tlimit rate 1/second burst 1 packets limit rate 1500 bytes/second burst 1 bytes"
        )?,
        _ => {}
    }
    match name {
        SetName::RoundRobin(listen_scope) => round_robin_elements(out, ruleset, listen_scope)?,
        _ => elements(out, name, &spec, ruleset.rows(name))?,
    }
    writeln!(out, "\t}}\n")
}

fn round_robin_elements(out: &mut dyn Write, ruleset: &Ruleset, listen_scope: ListenScope) -> fmt::Result {
    let services = ruleset
        .round_robin_services()
        .iter()
        .filter(|((of, _), _)| *of == listen_scope);
    let mut lead = "\t\telements = { ";
    for ((_, key_bytes), chain) in services {
        let key = key(SetName::RoundRobin(listen_scope), key_bytes).unwrap_or_default();
        write!(out, "{lead}{key} : goto {chain}")?;
        lead = ",\n\t\t\t     ";
    }
    if lead.starts_with(',') {
        writeln!(out, " }}")
    } else {
        Ok(())
    }
}

fn elements(out: &mut dyn Write, name: SetName, spec: &SetSpec, rows: Option<&Rows>) -> fmt::Result {
    let Some(rows) = rows else { return Ok(()) };
    let mut lead = "\t\telements = { ";
    for row in rows {
        write!(out, "{lead}{}", element(name, spec, row).unwrap_or_default())?;
        lead = ",\n\t\t\t     ";
    }
    writeln!(out, " }}")
}

/// Returns one element as nft writes it.
fn element(name: SetName, spec: &SetSpec, row: &[u8]) -> Option<String> {
    let mut text = if spec.interval {
        range(spec, row)?
    } else {
        key(name, row)?
    };
    let data = row.get(spec.identity_len()..)?;
    match spec.payload {
        Payload::Endpoint(family) => {
            let endpoint = read_endpoint(family, data)?;
            write!(text, " : {} . {}", endpoint.address, endpoint.port).ok()?;
        }
        Payload::Address(family) => write!(text, " : {}", read_address(family, data)?).ok()?,
        Payload::Limits => {
            let limits = Limits::from_bytes(data.try_into().ok()?);
            write!(
                text,
                " limit rate {}/second burst {} packets limit rate {} bytes/second burst {} bytes",
                limits.packet_rate, limits.packet_burst, limits.byte_rate, limits.byte_burst
            )
            .ok()?;
        }
        _ => {}
    }
    Some(text)
}

fn write_chain(out: &mut dyn Write, chain: &SkeletonChain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(base) = &chain.base {
        let hook = match base.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let kind = if base.nat { "nat" } else { "filter" };
        writeln!(
            out,
            "\t\ttype {kind} hook {hook} priority {}; policy accept;",
            base.priority_name
        )?;
    }
    for rule in &chain.rules {
        let words: Vec<String> = rule.iter().map(ToString::to_string).collect();
        writeln!(out, "\t\t{}", words.join(" "))?;
    }
    writeln!(out, "\t}}\n")
}
