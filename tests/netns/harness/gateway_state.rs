//! Reads the nftables rules, links and records of the gateway.

use std::fs;

use tcpgw_core::ruleset::links::Links;
use tcpgw_kernel::linux::Linux;
use tcpgw_kernel::route::Routes;
use tcpgw_kernel::{Kernel, RulesetIdentity};

use super::Net;

impl Net {
    /// Returns the identity of the present state of the gateway's rules, which differs from that of other states.
    pub(crate) fn identity(&self) -> RulesetIdentity {
        self.within("gateway", || Linux::open().map(|mut kernel| kernel.identity()))
            .expect("a netlink socket")
            .expect("an answer")
    }

    /// Removes the records of what was applied, so that the next run reads the kernel.
    pub(crate) fn forget(&self) {
        for entry in fs::read_dir(self.file("run")).expect("a run directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "state") {
                fs::remove_file(path).expect("a record can be removed");
            }
        }
    }

    /// Returns the gateway's links except loopback.
    pub(crate) fn own_links(&self) -> Links {
        self.within("gateway", || Routes::open()?.own_links())
            .expect("an answer")
    }

    /// Returns the names of the gateway's links.
    pub(crate) fn links(&self) -> Vec<String> {
        let output = self.run("gateway", &["ip", "-o", "link"]).ok();
        let name = |line: &str| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned());
        let mut names: Vec<String> = output.lines().filter_map(name).filter(|name| name != "lo").collect();
        names.sort();
        names
    }
}
