//! Expressions and messages of libnftnl.

use std::ptr::NonNull;

use nftnl_sys as sys;

use crate::nftables::expr::{AttributeValue, Expr};

/// An expression made through libnftnl's generic setters: the kinds that `nftnl` has no type for.
struct Generic<'a>(&'a Expr);

impl nftnl::expr::Expression for Generic<'_> {
    fn to_expr(&self, _rule: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name is a C string; libnftnl copies what it is given, and lengths are those of the values.
        unsafe {
            let expr = NonNull::new(sys::nftnl_expr_alloc(self.0.kind.as_ptr()));
            // Out of memory, or a kind that this libnftnl does not know; the process cannot continue in either case.
            let expr = expr.unwrap_or_else(|| std::process::abort());
            for (number, value) in &self.0.attributes {
                match value {
                    AttributeValue::U8(value) => sys::nftnl_expr_set_u8(expr.as_ptr(), *number, *value),
                    AttributeValue::U32(value) => sys::nftnl_expr_set_u32(expr.as_ptr(), *number, *value),
                    AttributeValue::Bytes(bytes) => {
                        let length = u32::try_from(bytes.len()).unwrap_or(0);
                        sys::nftnl_expr_set(expr.as_ptr(), *number, bytes.as_ptr().cast(), length);
                    }
                    AttributeValue::Text(text) => {
                        sys::nftnl_expr_set_str(expr.as_ptr(), *number, text.as_ptr());
                    }
                }
            }
            expr
        }
    }
}

/// Adds an expression to a rule.
pub fn add_expression(rule: &mut nftnl::Rule<'_>, expr: &Expr) {
    rule.add_expr(&Generic(expr));
}

/// Returns the netlink message for an object of `nftnl`.
pub(crate) fn message(object: &impl nftnl::NlMsg, seq: u32, kind: nftnl::MsgType) -> Vec<u8> {
    let room = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(1 << 17);
    // Words, because the headers within must be aligned.
    let mut words = vec![0_u64; room / 8 + 1];
    // SAFETY: the buffer has at least the size that `write` asks for, is aligned, and was initialised.
    let bytes = unsafe {
        object.write(words.as_mut_ptr().cast(), seq, kind);
        std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8)
    };
    let length = bytes.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length));
    bytes
        .get(..usize::try_from(length).unwrap_or(0))
        .unwrap_or_default()
        .to_vec()
}
