//! Findings about the kernel and the table.

use super::*;

#[test]
fn kernels() {
    let lack = |fallback| MissingFeature {
        feature: Feature {
            what: "dice",
            config: "CONFIG_NFT_NUMGEN",
            module: Some("nft_numgen"),
            since: None,
            fallback,
        },
        answer: "No such file or directory (ENOENT)".into(),
    };
    let lacks = |fallback| move |facts: &mut Facts| facts.lacks = Ok(vec![lack(fallback)]);
    let found = only(&with(lacks(None)), "kernel-feature-missing", FindingSeverity::Broken);
    assert!(found.seen.contains("CONFIG_NFT_NUMGEN"), "{}", found.seen);
    assert!(found.fix.unwrap().to_string().contains("modprobe nft_numgen"));
    only(&with(lacks(Some("coins"))), "kernel-fallback", FindingSeverity::Note);
    only(
        &with(|facts| facts.conntrack_filter = Ok(false)),
        "kernel-fallback",
        FindingSeverity::Note,
    );
    only(
        &with(|facts| facts.release = "5.15.0-91-generic".into()),
        "kernel-untested",
        FindingSeverity::Warning,
    );
    let mut facts = well();
    facts.release = "odd".into();
    assert_eq!(examine(&facts).unchecked.len(), 1);
}

#[test]
fn our_table() {
    let state = |state| move |facts: &mut Facts| facts.table.as_mut().unwrap().state = state;
    let ours = tcpgw_core::ruleset::skeleton::comment(FlowMark::default(), tcpgw_core::ruleset::room::Room::default());
    for (case, id, severity) in [
        (TableState::Absent, "table-missing", FindingSeverity::Note),
        (TableState::Gone, "table-missing", FindingSeverity::Broken),
        (TableState::Unrecorded, "table-unrecorded", FindingSeverity::Note),
        (TableState::Changed, "table-changed", FindingSeverity::Broken),
        (TableState::Other(Some(ours)), "table-changed", FindingSeverity::Broken),
        (
            TableState::Other(Some("tcpgw skeleton 0".into())),
            "table-of-another-version",
            FindingSeverity::Warning,
        ),
        (
            TableState::Other(None),
            "table-of-another-version",
            FindingSeverity::Warning,
        ),
    ] {
        only(&with(state(case)), id, severity);
    }
    let owned = |facts: &mut Facts| facts.table.as_mut().unwrap().owner = Some((77, None));
    only(&with(owned), "table-owned", FindingSeverity::Warning);
    let by_daemon = |facts: &mut Facts| {
        owned(facts);
        facts.table.as_mut().unwrap().daemon = Some(77);
    };
    only(&with(by_daemon), "table-owned", FindingSeverity::Note);
    let other = FlowMark::new(1, 1).unwrap();
    only(
        &with(|facts| facts.configured_mark = other),
        "table-of-another-mark",
        FindingSeverity::Warning,
    );
}
