//! A network namespace that vanishes with its thread, and a way to put flows into its conntrack table.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use tcpgw_kernel::netlink::exchange::NetlinkExchange as _;
use tcpgw_kernel::netlink::socket::Netlink;
use tcpgw_kernel::netlink::tlv::{Header, Nack, NetfilterHeader, Writer};

/// A flow to be put into conntrack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    pub client: SocketAddr,
    pub public: SocketAddr,
    pub backend: SocketAddr,
    pub seen_as: SocketAddr,
    pub mark: u32,
    pub zone: u16,
    /// True when the flow is translated; otherwise `backend` is `public`.
    pub translated: bool,
    /// State according to `enum tcp_conntrack`: 1 a SYN was sent, 2 it was answered, 3 the handshake is complete.
    pub state: u8,
}

/// Runs `test` in a network namespace of its own.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes a network namespace: it needs root"
    );
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace (it needs CAP_SYS_ADMIN)");
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Puts flows into this thread's conntrack table, many at once.
pub(crate) fn inject(flows: impl IntoIterator<Item = Injected>) {
    let mut netlink = Netlink::netfilter().unwrap();
    let mut flows = flows.into_iter().peekable();
    let mut writer = Writer::new();
    while flows.peek().is_some() {
        writer.clear();
        let mut last = 0;
        for flow in flows.by_ref().take(500) {
            last = netlink.next_seq();
            new_flow(&mut writer, last, &flow);
        }
        // A GET without a tuple is refused: that answers for the whole batch.
        last += 1;
        assert_eq!(netlink.next_seq(), last);
        writer.message(
            Header {
                kind: 0x101,
                flags: 1 | 4,
                seq: last,
            },
            NetfilterHeader::default(),
            |_| {},
        );
        netlink
            .send("inject flows", &[IoSlice::new(writer.bytes().unwrap())])
            .unwrap();
        netlink
            .acks(last, |nack: Nack| {
                assert_eq!(nack.seq, last, "a flow was refused: {nack}");
                Ok(())
            })
            .unwrap();
    }
}

fn new_flow(writer: &mut Writer, seq: u32, flow: &Injected) {
    const CREATE_NEW: u16 = 1 | 0x400 | 0x200;
    let family = if flow.client.is_ipv4() { 2 } else { 10 };
    let header = Header {
        kind: 0x100,
        flags: CREATE_NEW,
        seq,
    };
    writer.message(
        header,
        NetfilterHeader {
            family,
            ..NetfilterHeader::default()
        },
        |w| {
            tuple(w, 1, flow.client, flow.public);
            tuple(w, 2, flow.public, flow.client);
            w.be32(7, 600);
            w.be32(8, flow.mark);
            w.be32(3, [8, 8, 2 | 8, 2 | 4 | 8][usize::from(flow.state.min(3))]);
            w.nest(4, |w| w.nest(1, |w| w.u8(1, flow.state)));
            if flow.zone != 0 {
                w.be16(18, flow.zone);
            }
            if flow.translated {
                translation(w, 13, flow.backend);
                translation(w, 6, flow.seen_as);
            }
        },
    );
}

fn tuple(w: &mut Writer, kind: u16, from: SocketAddr, to: SocketAddr) {
    w.nest(kind, |w| {
        w.nest(1, |w| {
            address(w, if from.is_ipv4() { 1 } else { 3 }, from.ip());
            address(w, if to.is_ipv4() { 2 } else { 4 }, to.ip());
        });
        w.nest(2, |w| {
            w.u8(1, 6);
            w.be16(2, from.port());
            w.be16(3, to.port());
        });
    });
}

/// Writes a `CTA_NAT_*` attribute: one address and one port.
fn translation(w: &mut Writer, kind: u16, to: SocketAddr) {
    w.nest(kind, |w| {
        let (least, most) = if to.is_ipv4() { (1, 2) } else { (4, 5) };
        address(w, least, to.ip());
        address(w, most, to.ip());
        w.nest(3, |w| {
            w.be16(1, to.port());
            w.be16(2, to.port());
        });
    });
}

fn address(w: &mut Writer, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => w.attr(kind, &ip.octets()),
        IpAddr::V6(ip) => w.attr(kind, &ip.octets()),
    }
}
