//! Commands that let packets of services pass a chain of another program, and where to make them permanent.

use std::net::SocketAddr;

use super::super::finding::{Fix, advice, command};
use super::chain::{ChainContext, is_probes, program};
use super::docker::{FOR_USERS, is_table};
use super::samples::{DSTNAT, shows_backend};
use super::text::{range_list, ranges};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::FirewallHook;

impl ChainContext<'_> {
    /// Returns the program that made the chain, and where to make a change of it permanent.
    pub(super) fn lasting(&self) -> &'static str {
        let has = |name: &str| {
            self.chains
                .iter()
                .any(|of| of.table == self.chain.table && of.name.starts_with(name))
        };
        if self.chain.table.name == "firewalld" {
            "This one is firewalld's, which undoes the line when it reloads; for good, set StrictForwardPorts=no in \
             /etc/firewalld/firewalld.conf, or allow the forwarding in a policy"
        } else if has("ufw") {
            "This one is ufw's, which undoes the line when it reloads; for good, `ufw default allow routed`, or the line in \
             /etc/ufw/before.rules"
        } else if is_table(self.chain) {
            "This one is Docker's, which drops all forwarded packets that are not its own, makes the table anew when it starts, and \
             accepts those with a mark that it was told (`bridge-accept-fwmark`). The line that gives them this mark is in effect \
             until the next boot"
        } else if has(FOR_USERS) {
            "Docker drops all forwarded packets that are not its own, also those from one of its networks to another; the line is in \
             effect until the next boot"
        } else {
            "The line is in effect until the next boot, or until that table is loaded again; add it to that table's configuration"
        }
    }

    /// Returns a command that lets packets of services pass before all other rules.
    pub(super) fn let_pass(&self) -> Fix {
        let table = &self.chain.table;
        if table.owned && table.name == "firewalld" {
            let line = "sed -i 's/^StrictForwardPorts=.*/StrictForwardPorts=no/' /etc/firewalld/firewalld.conf && \
                        firewall-cmd --reload";
            return command(line);
        }
        if table.owned {
            return advice("the table is owned by a running program: allow the forwarding in its configuration");
        }
        if is_table(self.chain) && self.base.hook == FirewallHook::Forward {
            return self.let_pass_docker();
        }
        let hook = self.base.hook;
        // Chains of interfaces cannot match conntrack's data.
        let sees_marks = !hook.is_of_interfaces() && (hook != FirewallHook::Prerouting || self.base.priority > DSTNAT);
        let (xt, nft) = if is_probes(self.base) || (!sees_marks && shows_backend(self.base, self.reply)) {
            match self.by_backends() {
                Some(matches) => matches,
                None => {
                    return advice(format!(
                        "let TCP from and to the backends pass in chain {} (there are too many for a line)",
                        self.chain.name
                    ));
                }
            }
        } else if sees_marks {
            let mark = self.facts.mark;
            (
                vec![format!("-m connmark --mark {mark}")],
                format!("ct mark and {:#010x} == {:#010x}", mark.mask(), mark.value()),
            )
        } else {
            self.by_ports()
        };
        match program(self.chain) {
            Some(program) => command(self.xt_lines(program, &xt)),
            None => command(format!(
                "nft insert rule {} {} {} {nft} accept",
                table.family, table.name, self.chain.name
            )),
        }
    }

    /// Returns a command that lets all packets from and to links with these name prefixes pass before all other rules.
    pub(super) fn let_links_pass(&self, prefixes: &[&str]) -> Fix {
        let table = &self.chain.table;
        if table.owned {
            let prefixes = prefixes.join("*, ");
            return advice(format!(
                "the table is owned by a running program: allow forwarding from and to {prefixes}* in its configuration"
            ));
        }
        if let Some(program) = program(self.chain) {
            let matches = prefixes
                .iter()
                .flat_map(|prefix| [format!("-i {prefix}+"), format!("-o {prefix}+")]);
            return command(self.xt_lines(program, &matches.collect::<Vec<_>>()));
        }
        let matches = prefixes
            .iter()
            .flat_map(|prefix| ["iifname", "oifname"].map(|key| format!("{key} \"{prefix}*\"")));
        let place = format!("{} {} {}", table.family, table.name, self.chain.name);
        let lines = matches.map(|links| format!("nft insert rule {place} '{links} accept'"));
        command(lines.collect::<Vec<_>>().join(" && "))
    }

    /// Returns a command that lets messages of neighbour discovery, or of ARP, pass before all other rules.
    pub(super) fn let_neighbours_pass(&self) -> Fix {
        let table = &self.chain.table;
        if table.owned {
            return advice(
                "the table is owned by a running program: allow neighbour solicitations and advertisements in its configuration",
            );
        }
        if let Some(program) = program(self.chain) {
            let matches = [135, 136].map(|kind| format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"));
            return command(self.xt_lines(program, &matches));
        }
        let messages = if self.family == Family::V4 {
            "arp operation { request, reply }"
        } else {
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"
        };
        let line = format!("{} {} {} {messages} accept", table.family, table.name, self.chain.name);
        command(format!("nft insert rule {line}"))
    }

    fn xt_lines(&self, program: &str, matches: &[String]) -> String {
        let table = match self.chain.table.name.as_str() {
            "filter" => String::new(),
            other => format!("-t {other} "),
        };
        let chain = self.first_chain();
        let lines = matches
            .iter()
            .map(|xt| format!("{program} {table}-I {chain} {xt} -j ACCEPT"));
        lines.collect::<Vec<_>>().join(" && ")
    }

    /// Returns matches by the ports of services, since packets have no mark before tcpgw's rules.
    fn by_ports(&self) -> (Vec<String>, String) {
        /// Maximum number of ranges for `-m multiport`; a range counts twice.
        const AT_ONCE: usize = 7;
        let ports = self
            .facts
            .services
            .services
            .iter()
            .map(|service| service.port)
            .collect();
        let ranges = ranges(&ports);
        let xt = ranges
            .chunks(AT_ONCE)
            .map(|chunk| {
                format!(
                    "-p tcp -m multiport --dports {}",
                    range_list(chunk, ",").replace('-', ":")
                )
            })
            .collect();
        let end = if self.reply { "sport" } else { "dport" };
        (xt, format!("tcp {end} {{ {} }}", range_list(&ranges, ", ")))
    }

    /// Returns matches by backends; `None` when there are too many.
    fn by_backends(&self) -> Option<(Vec<String>, String)> {
        const MOST: usize = 64;
        let (address, port, end) = if self.reply {
            ("-s", "--sport", "s")
        } else {
            ("-d", "--dport", "d")
        };
        let of_family = self
            .facts
            .backends()
            .filter(|backend| Family::of(backend.ip()) == self.family);
        let mut backends: Vec<SocketAddr> = of_family.collect();
        backends.sort_unstable();
        backends.dedup();
        if backends.len() > MOST {
            return None;
        }
        let xt = backends
            .iter()
            .map(|backend| format!("-p tcp {address} {} {port} {}", backend.ip(), backend.port()))
            .collect();
        let keyword = if self.family == Family::V4 { "ip" } else { "ip6" };
        let elements = backends
            .iter()
            .map(|backend| format!("{} . {}", backend.ip(), backend.port()));
        let elements = elements.collect::<Vec<_>>().join(", ");
        Some((xt, format!("{keyword} {end}addr . tcp {end}port {{ {elements} }}")))
    }
}
