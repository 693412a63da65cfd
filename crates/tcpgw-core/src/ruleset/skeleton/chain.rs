//! Chains of the table, and their hooks.

use crate::ruleset::name::ListenScope;
use crate::ruleset::stmt::Stmt;

/// Hook of a base chain (include/uapi/linux/netfilter.h, `enum nf_inet_hooks`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// Packets to the gateway itself.
    Input,
    /// Packets from the gateway itself.
    Output,
    /// After the routing decision, before packets leave.
    Postrouting,
}

/// Properties of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkeletonBase {
    /// Hook of the chain.
    pub hook: Hook,
    /// Whether the chain is of type `nat`, which sees only the first packet of a flow; otherwise `filter`.
    pub nat: bool,
    /// Priority among the chains of the hook.
    pub priority: i32,
    /// Priority as nft writes it.
    pub priority_name: &'static str,
}

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkeletonChain {
    /// Name of the chain.
    pub name: String,
    /// Properties of a base chain; `None` for other chains.
    pub base: Option<SkeletonBase>,
    /// Rules in order.
    pub rules: Vec<Vec<Stmt>>,
}

impl SkeletonChain {
    pub(super) fn new(name: impl Into<String>, rules: Vec<Vec<Stmt>>) -> Self {
        Self {
            name: name.into(),
            base: None,
            rules,
        }
    }

    pub(super) fn base(
        name: &str,
        hook: Hook,
        nat: bool,
        priority: (i32, &'static str),
        rules: Vec<Vec<Stmt>>,
    ) -> Self {
        let base = SkeletonBase {
            hook,
            nat,
            priority: priority.0,
            priority_name: priority.1,
        };
        Self {
            name: name.into(),
            base: Some(base),
            rules,
        }
    }
}

pub(super) fn goto(chain: &str) -> Stmt {
    Stmt::Goto(chain.into())
}

/// Returns the name of the chain that has a rule for each number of slots in use.
pub fn spread_name(listen_scope: ListenScope) -> String {
    format!("spread{listen_scope}")
}
