use proptest::prelude::*;

use super::message::decode;
use super::*;
use crate::netlink::tlv::{Message, Writer};
use crate::route::link_list::decode_link;
use std::net::{IpAddr, Ipv4Addr};

#[test]
fn this_machine_is_described() {
    let mut routes = Routes::open().unwrap();
    let lo = routes.links().unwrap().into_iter().find(|link| link.loopback).unwrap();
    assert_eq!(lo.kind, None);
    if lo.up {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(routes.local_addresses().unwrap().contains(&localhost));
        let route = routes.route_to(localhost).unwrap().unwrap();
        assert_eq!(
            route,
            RouteTo {
                index: lo.index,
                name: Some(lo.name),
                gateway: None,
                local: true,
                shared: false,
            }
        );
    }
}

proptest! {
    #[test]
    fn decoding_is_total(kind in 16u16..30, payload: Vec<u8>) {
        let _ = decode(&Message { kind, flags: 0, seq: 0, pid: 0, payload: &payload });
        let _ = decode_link(&payload);
    }

    #[test]
    fn decoding_odd_attributes_is_total(
        kind in prop::sample::select(vec![16u16, 20, 24]),
        header in prop::array::uniform16(any::<u8>()),
        attrs in prop::collection::vec((0u16..70, prop::collection::vec(any::<u8>(), 0..48)), 0..6),
    ) {
        let mut writer = Writer::new();
        let length = match kind {
            16 => 16,
            20 => 8,
            _ => 12,
        };
        writer.raw(&header[..length]);
        for (kind, value) in &attrs {
            writer.attr(*kind, value);
            writer.nest(*kind, |w| w.attr(1, value));
        }
        let payload = writer.finish().unwrap();
        let _ = decode(&Message { kind, flags: 0, seq: 0, pid: 0, payload: &payload });
        let _ = decode_link(&payload);
    }
}
