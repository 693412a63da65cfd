//! Kernel options that provide each feature, so that the message about a refusal can name what is missing.

use std::fmt;

use nix::errno::Errno;

use crate::nftables::transaction::MessageSubject;
use tcpgw_core::ruleset::spec::{Payload, SetSpec};

/// A part of the kernel that can be left out when it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelOption {
    module: &'static str,
    option: &'static str,
}

impl fmt::Display for KernelOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this kernel may lack it ({}, module {})", self.option, self.module)
    }
}

const fn feature(module: &'static str, option: &'static str) -> KernelOption {
    KernelOption { module, option }
}

/// Returns what is probably missing when the kernel refuses this with that error (`net/netfilter/Kconfig` and
/// `Makefile`).
pub(crate) fn missing(subject: &MessageSubject, expression: Option<&str>, error: Errno) -> Option<KernelOption> {
    if !matches!(error, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) {
        return None;
    }
    match subject {
        MessageSubject::Rule(_) => of_expression(expression?),
        // Base chains of type `nat` are the only ones that are not of nf_tables itself.
        MessageSubject::Chain(_) => Some(feature("nft_chain_nat", "CONFIG_NFT_NAT")),
        // Only buckets need more than nf_tables itself, of all sets of the table.
        MessageSubject::Set(name) if SetSpec::of(*name).payload == Payload::Limits => of_expression("limit"),
        MessageSubject::Set(name) if matches!(SetSpec::of(*name).payload, Payload::Flows(_) | Payload::OneFlow(_)) => {
            of_expression("connlimit")
        }
        MessageSubject::Table => Some(feature("nf_tables", "CONFIG_NF_TABLES_INET")),
        MessageSubject::Timeouts => Some(feature("nft_ct", "CONFIG_NF_CONNTRACK_TIMEOUT")),
        _ => None,
    }
}

fn of_expression(kind: &str) -> Option<KernelOption> {
    let feature = match kind {
        "connlimit" => feature("nft_connlimit", "CONFIG_NFT_CONNLIMIT"),
        "ct" => feature("nft_ct", "CONFIG_NFT_CT"),
        "fib" => feature("nft_fib_inet", "CONFIG_NFT_FIB_INET"),
        "hash" => feature("nft_hash", "CONFIG_NFT_HASH"),
        "limit" => feature("nft_limit", "CONFIG_NFT_LIMIT"),
        "masq" => feature("nft_masq", "CONFIG_NFT_MASQ"),
        "nat" => feature("nft_nat", "CONFIG_NFT_NAT"),
        "numgen" => feature("nft_numgen", "CONFIG_NFT_NUMGEN"),
        "objref" => feature("nft_objref", "CONFIG_NFT_OBJREF"),
        "reject" => feature("nft_reject_inet", "CONFIG_NFT_REJECT_INET"),
        _ => return None,
    };
    Some(feature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpgw_core::ruleset::name::{Family, SetName};

    #[test]
    fn what_a_kernel_lacks_is_named_with_its_option() {
        let rule = MessageSubject::Rule("spread_v4".into());
        let lacking = missing(&rule, Some("numgen"), Errno::ENOENT).expect("a feature");
        assert_eq!(
            lacking.to_string(),
            "this kernel may lack it (CONFIG_NFT_NUMGEN, module nft_numgen)"
        );
        let option = |subject| missing(&subject, None, Errno::ENOENT).map(|feature| feature.option);
        assert_eq!(option(MessageSubject::Chain("balance".into())), Some("CONFIG_NFT_NAT"));
        assert_eq!(
            option(MessageSubject::Set(SetName::LimitTo(Family::V4))),
            Some("CONFIG_NFT_LIMIT")
        );
        assert_eq!(option(MessageSubject::Set(SetName::Limited(Family::V4))), None);
        assert_eq!(option(MessageSubject::Timeouts), Some("CONFIG_NF_CONNTRACK_TIMEOUT"));
    }

    #[test]
    fn other_refusals_are_not_blamed_on_the_kernel() {
        let rule = MessageSubject::Rule("spread_v4".into());
        assert_eq!(missing(&rule, Some("numgen"), Errno::EINVAL), None);
        assert_eq!(missing(&rule, Some("lookup"), Errno::ENOENT), None);
        assert_eq!(missing(&MessageSubject::Batch, None, Errno::ENOENT), None);
    }
}
