//! Check of IPsec policies that drop packets of services: a forwarded packet must pass those of the directions "fwd" and
//! "out" (`ip xfrm policy`).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::super::facts::CheapFacts;
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use ipnet::IpNet;
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::xfrm::{Policies, Policy, PolicyDirection};

/// Maximum number of backends that are checked.
const MOST_SAMPLES: usize = 64;
/// Maximum number of steps through policies: some milliseconds.
const MOST_STEPS: usize = 500_000;
/// Number of the protocol TCP (`IPPROTO_TCP`).
const TCP: u8 = 6;

/// Match of a policy with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Covers {
    None,
    Some,
    All,
}

/// Source or destination of packets, as a policy sees it.
#[derive(Debug, Clone)]
enum PolicyEnd {
    /// Clients, with any address and port.
    Client,
    /// One of these addresses, with this port if it is known.
    At(Vec<IpAddr>, Option<u16>),
}

/// Packets that are forwarded.
struct Forwarded {
    family: Family,
    out: bool,
    reply: bool,
    source: PolicyEnd,
    destination: PolicyEnd,
}

/// Policy that drops packets, by its number; `None`: the default does.
type Cause = Option<usize>;

pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let Some(policies) = diagnosis.known("policies of IPsec", &facts.ipsec) else {
        return;
    };
    if policies.list.is_empty() && !policies.forward_blocked && !policies.out_blocked {
        return;
    }
    if policies.left_out > 0 {
        let reason = format!("there are too many: {} were not examined", policies.left_out);
        diagnosis.unchecked("policies of IPsec", reason);
    }
    let mut found: BTreeMap<(Cause, bool), FindingSeverity> = BTreeMap::new();
    let mut transforms = false;
    let mut steps = MOST_STEPS;
    for packets in all_packets(facts) {
        steps = steps.saturating_sub(policies.list.len());
        if steps == 0 {
            diagnosis.unchecked("policies of IPsec", "there are too many for so many backends");
            break;
        }
        let judged = judge(policies, &packets);
        transforms |= judged.transforms;
        if let Some((cause, severity)) = judged.dropped {
            let worst = found.entry((cause, packets.reply)).or_insert(severity);
            *worst = severity.min(*worst);
        }
    }
    if transforms {
        diagnosis.unchecked(
            "policies of IPsec",
            "some ask for encrypted packets (`ip xfrm policy`): whether packets of services meet them is not known",
        );
    }
    for ((cause, reply), severity) in found {
        report(cause.and_then(|at| policies.list.get(at)), reply, severity, diagnosis);
    }
}

fn report(policy: Option<&Policy>, reply: bool, severity: FindingSeverity, diagnosis: &mut Diagnosis) {
    let what = if reply {
        "answers of backends"
    } else {
        "packets to services"
    };
    let verb = if severity == FindingSeverity::Broken {
        "drops"
    } else {
        "may drop"
    };
    let (by, fix) = match policy {
        Some(policy) => (
            format!(
                "the IPsec policy from {} to {} (direction {}, priority {})",
                policy.source,
                policy.destination,
                if policy.direction == PolicyDirection::Out {
                    "out"
                } else {
                    "fwd"
                },
                policy.priority
            ),
            "see `ip xfrm policy`; delete the policy, or add one for these packets with `action allow` and a lower priority",
        ),
        None => (
            "the default of IPsec for packets without a policy".to_owned(),
            "see `ip xfrm policy getdefault`; set it with `ip xfrm policy setdefault fwd accept out accept`, or add policies for these \
             packets with `action allow`",
        ),
    };
    diagnosis.found(
        "packets-dropped",
        severity,
        format!("{by} {verb} {what}"),
        "the kernel drops such packets beside all firewall rules; a VPN usually made the policies".into(),
        Some(advice(fix)),
    );
}

/// Verdict of the policies about packets.
struct PolicyVerdict {
    dropped: Option<(Cause, FindingSeverity)>,
    /// Whether a policy asks for encrypted packets.
    transforms: bool,
}

/// Judges packets: the first policy that is for a packet decides.
fn judge(policies: &Policies, packets: &Forwarded) -> PolicyVerdict {
    let mut may: Option<Cause> = None;
    let mut transforms = false;
    // Whether a policy lets some of the packets pass.
    let mut lets_some_pass = false;
    let of_direction = policies
        .list
        .iter()
        .enumerate()
        .filter(|(_, policy)| (policy.direction == PolicyDirection::Out) == packets.out);
    let mut end = None;
    for (at, policy) in of_direction {
        match (covers(policy, packets), policy.blocks) {
            (Covers::None, _) => {}
            (Covers::All, true) => {
                end = Some(Some(at));
                break;
            }
            (Covers::Some, true) => drop(may.get_or_insert(Some(at))),
            (covered, false) => {
                transforms |= policy.transforms;
                lets_some_pass = true;
                if covered == Covers::All {
                    let dropped = may.map(|cause| (cause, FindingSeverity::Warning));
                    return PolicyVerdict { dropped, transforms };
                }
            }
        }
    }
    let by_default = if packets.out {
        policies.out_blocked
    } else {
        policies.forward_blocked
    };
    let end = end.or(by_default.then_some(None));
    let dropped = match (end, lets_some_pass, may) {
        (Some(cause), false, _) => Some((cause, FindingSeverity::Broken)),
        (_, _, Some(cause)) | (Some(cause), true, None) => Some((cause, FindingSeverity::Warning)),
        (None, _, None) => None,
    };
    PolicyVerdict { dropped, transforms }
}

fn covers(policy: &Policy, packets: &Forwarded) -> Covers {
    let is_v4 = matches!(policy.source, IpNet::V4(_));
    if is_v4 != (packets.family == Family::V4) || (policy.protocol != 0 && policy.protocol != TCP) {
        return Covers::None;
    }
    let condition = if policy.conditional { Covers::Some } else { Covers::All };
    condition
        .min(end_in(&packets.source, policy.source, policy.source_port))
        .min(end_in(
            &packets.destination,
            policy.destination,
            policy.destination_port,
        ))
}

fn end_in(end: &PolicyEnd, network: IpNet, (port, mask): (u16, u16)) -> Covers {
    let (addresses, known) = match end {
        PolicyEnd::Client => (None, None),
        PolicyEnd::At(addresses, port) => (Some(addresses), *port),
    };
    let of_port = match known {
        _ if mask == 0 => Covers::All,
        // Few clients have one particular port.
        None if mask == u16::MAX => Covers::None,
        None => Covers::Some,
        Some(known) if (known ^ port) & mask == 0 => Covers::All,
        Some(_) => Covers::None,
    };
    let of_address = match addresses {
        _ if network.prefix_len() == 0 => Covers::All,
        None => Covers::Some,
        Some(addresses) => {
            let inside = addresses.iter().filter(|address| network.contains(*address)).count();
            match inside {
                0 => Covers::None,
                all if all == addresses.len() => Covers::All,
                _ => Covers::Some,
            }
        }
    };
    of_port.min(of_address)
}

/// Returns the packets of services. Policies of the direction "fwd" see addresses as they were before the translation
/// (`nf_nat_decode_session`), those of "out" see what leaves.
fn all_packets(facts: &CheapFacts) -> Vec<Forwarded> {
    let mut all = Vec::new();
    let services = facts.services.services.iter();
    let pairs = services.flat_map(|service| service.backends().map(move |backend| (service, backend)));
    let local = facts.local.iter().flat_map(|local| &local.addresses);
    let own = |family| -> Vec<IpAddr> {
        let of_family = local.clone().filter(|address| Family::of(**address) == family);
        of_family.filter(|address| !address.is_loopback()).copied().collect()
    };
    let own = BTreeMap::from(Family::BOTH.map(|family| (family, own(family))));
    for (service, backend) in pairs.take(MOST_SAMPLES) {
        let family = Family::of(backend.ip());
        let mut public: Vec<IpAddr> = service.addresses.iter().copied().collect();
        public.retain(|address| Family::of(*address) == family);
        if public.is_empty() {
            public.clone_from(&own[&family]);
        }
        let server = |of: SocketAddr| PolicyEnd::At(vec![of.ip()], Some(of.port()));
        for out in [false, true] {
            let destination = if out {
                server(backend)
            } else {
                PolicyEnd::At(public.clone(), Some(service.port))
            };
            all.push(Forwarded {
                family,
                out,
                reply: false,
                source: PolicyEnd::Client,
                destination,
            });
            all.push(Forwarded {
                family,
                out,
                reply: true,
                source: server(backend),
                destination: PolicyEnd::Client,
            });
        }
    }
    all
}
