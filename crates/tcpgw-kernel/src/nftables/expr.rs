//! Turns the statements of a rule into the expressions that nft makes of them, so that nft can read them back. Numbers of
//! attributes are libnftnl's (`libnftnl/expr.h`), the rest is `include/uapi/linux/netfilter/nf_tables.h`.

mod nat;
mod numbers;
mod stmt;
mod writer;

pub use self::writer::{AttributeValue, Expr};

use self::writer::ExprWriter;

use tcpgw_core::ruleset::stmt::Stmt;

/// Returns the expressions of one rule.
pub fn rule(stmts: &[Stmt]) -> Vec<Expr> {
    let mut writer = ExprWriter::default();
    for stmt in stmts {
        writer.stmt(stmt);
    }
    writer.exprs
}
