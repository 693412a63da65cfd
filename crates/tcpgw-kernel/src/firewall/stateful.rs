//! Conditions that depend on earlier packets, such as limits and quotas.
//!
//! Source: `net/netfilter/nft_quota.c`, `nft_connlimit.c`, `nft_dynset.c`, `include/uapi/linux/netfilter/xt_*.h`.

use super::Test;
use super::attributes::ExpressionData;
use crate::netlink::tlv::{Attrs, Malformed};
use crate::nftables::nft::{LIST_ELEM, expr};

/// `NFT_QUOTA_F_INV`, `NFT_CONNLIMIT_F_INV`: inverted: the condition holds above the limit.
const OVER: u32 = 1;

/// Returns the condition of a `quota`, `connlimit` or `dynset`; `None` if it holds for every packet.
pub(super) fn test(name: &str, parts: &ExpressionData<'_>) -> Result<Option<Test>, Malformed> {
    Ok(match name {
        "quota" => quota(parts)?,
        "connlimit" => connections(parts)?,
        _ => return of_set(parts),
    })
}

fn quota(parts: &ExpressionData<'_>) -> Result<Option<Test>, Malformed> {
    const BYTES: u16 = 1;
    const FLAGS: u16 = 2;
    const CONSUMED: u16 = 4;
    let number = |kind| parts.get(kind)?.map_or(Ok(0), |attr| attr.be64());
    let over = parts.number(FLAGS)? & OVER != 0;
    let used_up = number(CONSUMED)? >= number(BYTES)?;
    Ok(match (over, used_up) {
        (true, true) => None,
        (true, false) => Some(Test::Exceeds),
        (false, _) => Some(Test::Unknown("a quota".into())),
    })
}

/// Returns the condition of a `connlimit`. Connections are counted with the one that the packet belongs to.
fn connections(parts: &ExpressionData<'_>) -> Result<Option<Test>, Malformed> {
    const COUNT: u16 = 1;
    const FLAGS: u16 = 2;
    let over = parts.number(FLAGS)? & OVER != 0;
    Ok(match (over, parts.number(COUNT)?) {
        (true, 0) => None,
        (true, _) => Some(Test::Exceeds),
        (false, _) => Some(Test::Unknown("a number of connections".into())),
    })
}

/// Returns the condition of an update of a set: adding an element succeeds unless the set is full; a limit for each
/// element applies to some clients.
fn of_set(parts: &ExpressionData<'_>) -> Result<Option<Test>, Malformed> {
    const OPERATION: u16 = 2;
    const EXPRESSION: u16 = 7;
    const FLAGS: u16 = 9;
    const EXPRESSIONS: u16 = 10;
    const DELETE: u32 = 2;
    const INVERTED: u32 = 1;
    if parts.number(OPERATION)? == DELETE {
        return Ok(None);
    }
    if parts.number(FLAGS)? & INVERTED != 0 {
        return Ok(Some(Test::Unknown("a set that may be full".into())));
    }
    let single = parts.get(EXPRESSION)?.map(|attr| attr.payload);
    let mut all: Vec<&[u8]> = single.into_iter().collect();
    if let Some(list) = parts.get(EXPRESSIONS)? {
        for attr in list.nested() {
            let attr = attr?;
            if attr.kind == LIST_ELEM {
                all.push(attr.payload);
            }
        }
    }
    for payload in all {
        let name = Attrs::new(payload).first(expr::NAME)?;
        let data = Attrs::new(payload).first(expr::DATA)?;
        let parts = ExpressionData(data.map_or(&[][..], |data| data.payload));
        let test = match name.map(|name| name.str()).transpose()? {
            Some("quota") => quota(&parts)?,
            Some("connlimit") => connections(&parts)?,
            Some("counter" | "last") => None,
            _ => Some(Test::Sometimes),
        };
        if test.is_some() {
            return Ok(Some(Test::Sometimes));
        }
    }
    Ok(None)
}

/// Returns the conditions of a match of iptables that depends on earlier packets; `None` if it is not understood.
/// `info` is its structure.
pub(super) fn matches(name: &str, revision: u32, info: &[u8]) -> Option<Vec<Test>> {
    let word = |at: usize| info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let half = |at: usize| info.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let test = match name {
        // seconds, hit count, what is done, whether it is inverted
        "recent" => recent(*info.get(8)?, word(4)?, *info.get(9)? != 0),
        // mode, flags; the probability, or the number of packets less one
        "statistic" => statistic(half(0)? == 0, word(4)?, half(2)? & 1 != 0),
        // a mask of 16 bytes, the limit, flags
        "connlimit" => connlimit(
            info.get(..16)?.iter().all(|byte| *byte == 0),
            word(16)?,
            word(20)? & 1 != 0,
        ),
        "hashlimit" => {
            let mode = match revision {
                1 => word(16)?,
                2 | 3 => word(256 + 16)?,
                _ => return None,
            };
            Some(hashlimit(mode & 0xc != 0, mode & 0x10 != 0))
        }
        _ => return None,
    };
    Some(test.into_iter().collect())
}

/// The matches of iptables that depend on earlier packets, or on the time.
pub(super) const COUNTING: [&str; 7] = [
    "limit",
    "hashlimit",
    "recent",
    "connlimit",
    "statistic",
    "quota",
    "time",
];

/// `XT_RECENT_SET` of `--set`.
pub(super) const RECENT_SET: u8 = 2;

/// Returns the condition of `-m recent`. `--set` always matches; a hit count above 1 selects single clients, any other
/// may match every client.
pub(super) fn recent(does: u8, hits: u32, inverted: bool) -> Option<Test> {
    match (does & RECENT_SET != 0, inverted) {
        (true, false) => None,
        (true, true) => Some(Test::Never),
        (false, false) if hits > 1 => Some(Test::Sometimes),
        (false, _) => Some(Test::Unknown("-m recent".into())),
    }
}

/// Value of the probability 1.0.
pub(super) const CERTAIN: u32 = 1 << 31;

/// Returns the condition of `-m statistic`: a probability, or every n-th packet, counted from 0.
pub(super) fn statistic(random: bool, value: u32, inverted: bool) -> Option<Test> {
    let (always, never) = if random {
        (value >= CERTAIN, value == 0)
    } else {
        (value == 0, false)
    };
    match (always, never) {
        (true, _) if inverted => Some(Test::Never),
        (_, true) if !inverted => Some(Test::Never),
        (false, false) => Some(Test::Unknown("-m statistic".into())),
        _ => None,
    }
}

/// Returns the condition of `-m connlimit`: more connections than a limit, or at most as many; of all clients together
/// or of each.
pub(super) fn connlimit(of_all: bool, limit: u32, up_to: bool) -> Option<Test> {
    match (up_to, limit) {
        (false, 0) => None,
        (true, 0) => Some(Test::Never),
        (false, _) if of_all => Some(Test::Exceeds),
        (false, _) => Some(Test::Sometimes),
        (true, _) => Some(Test::Unknown("-m connlimit".into())),
    }
}

/// Returns the condition of `-m hashlimit`: above a rate, or up to it; for each client or for groups.
pub(super) fn hashlimit(of_clients: bool, above: bool) -> Test {
    match (above, of_clients) {
        (true, true) => Test::Sometimes,
        (true, false) => Test::Exceeds,
        (false, _) => Test::Unknown("-m hashlimit".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{TableFamily, parse_save};

    #[test]
    fn saved_rules_are_read_alike() {
        for (option, test) in [
            ("-m recent --set --name DEFAULT --mask 255.255.255.255 --rsource", None),
            (
                "-m recent --rcheck --seconds 60 --hitcount 4 --name x --rsource",
                Some(Test::Sometimes),
            ),
            ("-m statistic --mode random --probability 1.00000000000", None),
            (
                "-m statistic --mode random --probability 0.00000000000",
                Some(Test::Never),
            ),
            ("-m statistic --mode nth --every 1", None),
            (
                "-m connlimit --connlimit-above 0 --connlimit-mask 32 --connlimit-saddr",
                None,
            ),
            (
                "-m connlimit --connlimit-above 9 --connlimit-mask 0 --connlimit-saddr",
                Some(Test::Exceeds),
            ),
            (
                "-m hashlimit --hashlimit-above 9/sec --hashlimit-mode srcip --hashlimit-name x",
                Some(Test::Sometimes),
            ),
            (
                "-m time --timestart 00:00:00 --timestop 23:59:00",
                Some(Test::Unknown("-m time".into())),
            ),
            ("-m quota --quota 1000", Some(Test::Unknown("-m quota".into()))),
            ("-m limit --limit 9/sec", Some(Test::Unknown("-m limit".into()))),
        ] {
            let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {option} -p tcp -j DROP\nCOMMIT\n");
            let chains = parse_save(TableFamily::Ip, &text);
            let tests = &chains[0].rules[0].tests;
            assert_eq!(
                tests[..tests.len() - 1],
                test.into_iter().collect::<Vec<_>>(),
                "{option}"
            );
        }
    }

    #[test]
    fn what_holds_always_asks_nothing() {
        let unknown = |what: &str| Some(Test::Unknown(what.into()));
        assert_eq!(recent(RECENT_SET, 0, false), None);
        assert_eq!(recent(RECENT_SET, 0, true), Some(Test::Never));
        assert_eq!(recent(4, 4, false), Some(Test::Sometimes));
        assert_eq!(recent(1, 0, false), unknown("-m recent"));
        assert_eq!(statistic(true, CERTAIN, false), None);
        assert_eq!(statistic(true, CERTAIN, true), Some(Test::Never));
        assert_eq!(statistic(true, 0, false), Some(Test::Never));
        assert_eq!(statistic(true, 0, true), None);
        assert_eq!(statistic(true, CERTAIN / 2, true), unknown("-m statistic"));
        assert_eq!(statistic(false, 0, false), None);
        assert_eq!(statistic(false, 1, false), unknown("-m statistic"));
        assert_eq!(connlimit(false, 0, false), None);
        assert_eq!(connlimit(false, 9, false), Some(Test::Sometimes));
        assert_eq!(connlimit(true, 9, false), Some(Test::Exceeds));
        assert_eq!(hashlimit(true, true), Test::Sometimes);
        assert_eq!(hashlimit(false, true), Test::Exceeds);
    }
}
