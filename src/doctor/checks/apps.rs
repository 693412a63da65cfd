//! Check of other programs' chains for packets between processes of `tcpgw up` and the outside.

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity};
use super::super::judge::{PacketVerdict, RuleLocation, walk};
use super::super::packet::{FromApp, Interface, Packet, PacketStage};
use super::chain::{ChainContext, ForeignBaseChain, sees};
use super::firewall::foreign_base_chains;
use super::samples::{merged, of_link, outside, packet_mark};
use super::text::some;
use crate::app_link;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::FirewallHook;

/// The links of an app.
struct AppLinks {
    prefix: String,
    link: Interface,
    client: FromApp,
}

pub(in super::super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    judge_all(facts, &apps(facts), diagnosis);
}

/// Checks the packets of one app only.
pub(in super::super) fn check_one(facts: &CheapFacts, id: &str, diagnosis: &mut Diagnosis) {
    let mut apps = apps(facts);
    apps.retain(|app| app.prefix == app_link::process_prefix(id));
    judge_all(facts, &apps, diagnosis);
}

fn judge_all(facts: &CheapFacts, apps: &[AppLinks], diagnosis: &mut Diagnosis) {
    if apps.is_empty() {
        return;
    }
    for seen in foreign_base_chains(facts, diagnosis) {
        let is_forward = seen.base.hook == FirewallHook::Forward && !seen.base.nat;
        if is_forward && sees(seen.chain.table.family, Family::V4) {
            judge(seen, apps, diagnosis);
        }
    }
}

fn apps(facts: &CheapFacts) -> Vec<AppLinks> {
    let links = facts.links.as_deref().unwrap_or_default();
    let app = |gateway: &tcpgw_kernel::route::links::LinkDetails| {
        let prefix = app_link::process_prefix(app_link::app_of_gateway(&gateway.name)?);
        let link = links.iter().find(|link| link.name.starts_with(&prefix))?;
        let mut addresses = gateway.addresses.iter().map(|(address, _)| *address);
        Some(AppLinks {
            link: of_link(link),
            client: FromApp {
                client: addresses.find(|address| Family::of(*address) == Family::V4)?,
                mark: facts.mark,
            },
            prefix,
        })
    };
    links.iter().filter_map(app).collect()
}

fn judge(seen: ForeignBaseChain<'_>, apps: &[AppLinks], diagnosis: &mut Diagnosis) {
    let fates = apps.iter().map(|app| (app, fate(seen, app)));
    let stopped: Vec<(&AppLinks, RuleLocation, bool)> = fates
        .filter_map(|(app, fate)| match fate {
            PacketVerdict::Ends(place) => Some((app, place, true)),
            PacketVerdict::MayEnd(place) => Some((app, place, false)),
            PacketVerdict::Passes | PacketVerdict::Unjudged => None,
        })
        .collect();
    let Some((_, place, _)) = stopped.first() else { return };
    let context = ChainContext {
        examined: stopped.len(),
        ..seen.context(Family::V4)
    };
    let verb = if place.rejects { "reject" } else { "drop" };
    let does = if stopped.iter().any(|(.., sure)| *sure) {
        format!("{verb}s")
    } else {
        format!("may {verb}")
    };
    let prefixes: Vec<&str> = stopped.iter().map(|(app, ..)| app.prefix.as_str()).collect();
    diagnosis.found(
        "packets-dropped",
        FindingSeverity::Warning,
        format!(
            "{} {does} what processes of `tcpgw up` and the outside send each other ({}): {}",
            context.name(),
            some(prefixes.iter().map(|prefix| format!("links {prefix}*"))),
            context.place_of_end(place)
        ),
        format!(
            "the processes reach no name server, registry or database outside of this machine, and clients elsewhere may not reach \
             the public port. {}",
            context.lasting()
        ),
        Some(context.let_links_pass(&prefixes)),
    );
}

/// Returns the verdict on the first packet of a connection to the outside, and on its answer.
fn fate(seen: ForeignBaseChain<'_>, app: &AppLinks) -> PacketVerdict {
    let ForeignBaseChain {
        facts,
        chains,
        chain,
        base,
    } = seen;
    let mut all = PacketVerdict::Passes;
    let outside = outside(facts, Family::V4);
    for outside in outside.into_iter().filter(|link| !app_link::is_of_app(&link.name)) {
        for reply in [false, true] {
            let (input, output) = if reply {
                (outside.clone(), app.link.clone())
            } else {
                (app.link.clone(), outside.clone())
            };
            let packet = Packet {
                family: Family::V4,
                input: Some(input),
                output: Some(output),
                server: None,
                port: None,
                reply,
                stage: PacketStage::Handshake,
                seen_by: base,
                ours: None,
                mark: packet_mark(facts),
                client: None,
                from_app: Some(app.client.clone()),
                neighbour: None,
            };
            all = merged(all, walk(chains, chain, &packet).0, true);
        }
    }
    all
}
