//! Compares what the kernel lists with what it was sent.

use crate::netlink::tlv::{Attr, Attrs, Writer};

/// Returns whether the kernel lists every attribute that it was sent, unchanged, and as many of each kind. It may list further
/// kinds, such as handles and counters.
pub(super) fn matches(sent: &[u8], listed: &[u8]) -> bool {
    // libnftnl sends the name of an object without its NUL.
    if sent == listed || listed.strip_suffix(&[0]) == Some(sent) {
        return true;
    }
    let (Some(sent), Some(listed)) = (all_attrs(sent), all_attrs(listed)) else {
        return false;
    };
    let of = |attrs: &[Attr<'_>], kind: u16| attrs.iter().filter(|attr| attr.kind == kind).count();
    sent.iter().enumerate().all(|(at, attr)| {
        let earlier = of(&sent[..at], attr.kind);
        let same = listed.iter().filter(|other| other.kind == attr.kind);
        of(&sent, attr.kind) == same.clone().count()
            && same
                .clone()
                .nth(earlier)
                .is_some_and(|other| matches(attr.payload, other.payload))
    })
}

/// Returns the attributes of a body without those of the given kinds.
pub(super) fn without(body: &[u8], kinds: &[u16]) -> Vec<u8> {
    let mut writer = Writer::new();
    for attr in Attrs::new(body)
        .map_while(Result::ok)
        .filter(|attr| !kinds.contains(&attr.kind))
    {
        writer.attr(attr.kind, attr.payload);
    }
    writer.finish().unwrap_or_default()
}

fn all_attrs(bytes: &[u8]) -> Option<Vec<Attr<'_>>> {
    Attrs::new(bytes).collect::<Result<_, _>>().ok()
}

/// Logs that something is not as this program makes it, and returns `false`.
pub(super) fn alien(what: &str, name: Option<&str>) -> bool {
    tracing::debug!(name, "the kernel has another {what} than expected");
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tlv::written;

    fn sent() -> Vec<u8> {
        written(|writer| {
            writer.str(1, "tcpgw");
            writer.be32(3, 8);
            writer.nest(9, |writer| {
                writer.nest(1, |writer| writer.be32(1, 2));
                writer.nest(1, |writer| writer.be32(1, 4));
            });
        })
    }

    fn listed(flags: u32, fields: &[u32], handle: Option<u64>) -> Vec<u8> {
        written(|writer| {
            writer.str(1, "tcpgw");
            if let Some(handle) = handle {
                writer.be64(20, handle);
            }
            writer.be32(3, flags);
            writer.nest(9, |writer| {
                for field in fields {
                    writer.nest(1, |writer| writer.be32(1, *field));
                }
            });
        })
    }

    #[test]
    fn what_the_kernel_adds_is_no_difference() {
        assert!(matches(&sent(), &listed(8, &[2, 4], None)));
        assert!(matches(&sent(), &listed(8, &[2, 4], Some(7))));
        assert!(matches(b"turn", b"turn\0"));
    }

    #[test]
    fn what_it_changed_or_lacks_is_one() {
        for other in [
            listed(9, &[2, 4], None),
            listed(8, &[4, 2], None),
            listed(8, &[2], None),
            listed(8, &[2, 4, 4], None),
            without(&sent(), &[3]),
            Vec::new(),
            vec![1, 2, 3],
        ] {
            assert!(!matches(&sent(), &other), "{other:?}");
        }
        assert!(!matches(b"turn", b"turns"));
    }
}
