//! Settings of a service in words, as the data of a change has them.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::duration;
use crate::summary::{ServiceSettings, balance_name};

fn limit_words(limit: Option<(u32, u32, u32, bool)>) -> String {
    match limit {
        None => "none".into(),
        Some((pps, burst, mtu, shared)) => {
            let mut words = format!("{pps} packets/s");
            if u64::from(burst) != u64::from(pps) * 10 {
                let _ = write!(words, ", burst {burst}");
            }
            if mtu != 1500 {
                let _ = write!(words, ", mtu {mtu}");
            }
            if shared {
                words += ", shared";
            }
            words
        }
    }
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "none".into(), |number| number.to_string())
}

fn idle(settings: &ServiceSettings) -> String {
    settings.idle_timeout.map_or_else(
        || "none".into(),
        |seconds| duration::show(Duration::from_secs(seconds.get().into())),
    )
}

fn refusal(reset: bool) -> &'static str {
    if reset { "reset" } else { "drop" }
}

fn source(preserve: bool) -> &'static str {
    if preserve { "preserve" } else { "masquerade" }
}

fn sources(settings: &ServiceSettings) -> String {
    let words: Vec<String> = settings.source_addresses.iter().map(IpAddr::to_string).collect();
    if words.is_empty() {
        "none".into()
    } else {
        words.join(", ")
    }
}

fn list(networks: &[Box<str>]) -> String {
    const SHOWN: usize = 4;
    let mut words: Vec<&str> = networks.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = format!("{} more", networks.len().saturating_sub(SHOWN));
    if networks.len() > SHOWN {
        words.push(&more);
    }
    words.join(", ")
}

/// Describes a new service: its balance, and every setting that is not the default.
pub(super) fn described(settings: &ServiceSettings) -> Vec<String> {
    let mut words = vec![balance_name(settings.balance).to_owned()];
    if settings.limit.is_some() {
        words.push(format!("limit {}", limit_words(settings.limit)));
    }
    if settings.max_flows.is_some() {
        words.push(format!("max_flows {}", number(settings.max_flows)));
    }
    let (flows, rate) = settings.client;
    if flows.is_some() {
        words.push(format!("client.flows {}", number(flows)));
    }
    if rate.is_some() {
        words.push(format!("client.handshakes_per_second {}", number(rate)));
    }
    if settings.idle_timeout.is_some() {
        words.push(format!("idle_timeout {}", idle(settings)));
    }
    if settings.retire_reset {
        words.push(format!("on_retire {}", refusal(true)));
    }
    if settings.empty_reset == Some(false) {
        words.push(format!("on_empty {}", refusal(false)));
    }
    if settings.preserve {
        words.push(format!("source {}", source(true)));
    }
    if !settings.source_addresses.is_empty() {
        words.push(format!("source_addresses {}", sources(settings)));
    }
    if let Some(allow) = &settings.allow {
        words.push(format!("allow {}", list(allow)));
    }
    if !settings.deny.is_empty() {
        words.push(format!("deny {}", list(&settings.deny)));
    }
    words
}

pub(super) fn setting_changes(old: &ServiceSettings, new: &ServiceSettings) -> Vec<String> {
    let mut words = Vec::new();
    let mut changed = |what: &str, before: String, after: String| {
        if before != after {
            words.push(format!("{what} {before} -> {after}"));
        }
    };
    if old.balance.is_some() && new.balance.is_some() {
        changed(
            "balance",
            balance_name(old.balance).into(),
            balance_name(new.balance).into(),
        );
    }
    changed("limit", limit_words(old.limit), limit_words(new.limit));
    changed("max_flows", number(old.max_flows), number(new.max_flows));
    changed("client.flows", number(old.client.0), number(new.client.0));
    changed(
        "client.handshakes_per_second",
        number(old.client.1),
        number(new.client.1),
    );
    changed("idle_timeout", idle(old), idle(new));
    changed(
        "on_retire",
        refusal(old.retire_reset).into(),
        refusal(new.retire_reset).into(),
    );
    if let (Some(before), Some(after)) = (old.empty_reset, new.empty_reset) {
        changed("on_empty", refusal(before).into(), refusal(after).into());
    }
    changed("source", source(old.preserve).into(), source(new.preserve).into());
    changed("source_addresses", sources(old), sources(new));
    let allow = |settings: &ServiceSettings| settings.allow.as_deref().map_or_else(|| "everyone".to_owned(), list);
    if old.allow != new.allow {
        words.push(format!("allow {} -> {}", allow(old), allow(new)));
    }
    if old.deny != new.deny {
        let deny = |settings: &ServiceSettings| {
            if settings.deny.is_empty() {
                "nobody".to_owned()
            } else {
                list(&settings.deny)
            }
        };
        words.push(format!("deny {} -> {}", deny(old), deny(new)));
    }
    words
}
