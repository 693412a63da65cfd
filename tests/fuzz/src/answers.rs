//! Netlink answers: acknowledgements, refusals with the kernel's message, notifications.

use std::hint::black_box;
use std::sync::OnceLock;

use tcpgw_core::model::FlowMark;
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::room::Room;
use tcpgw_kernel::KernelError;
use tcpgw_kernel::netlink::exchange::NetlinkExchange as _;
use tcpgw_kernel::netlink::recorded::RecordedAnswers;
use tcpgw_kernel::netlink::tlv::{Attrs, Messages};
use tcpgw_kernel::nftables::monitor::{Decoder, TableChange};
use tcpgw_kernel::nftables::ownership::Ownership;
use tcpgw_kernel::nftables::transaction::{Sealed, Transaction};
use tcpgw_kernel::nftables::watch;

use super::sample::sample;
use tcpgw_kernel::netlink::error::NetlinkError;

/// Checks that any messages are decoded, and that every refusal has a text.
pub fn check(bytes: &[u8]) {
    let mut ear = Decoder::new(1);
    ear.decode(Messages::new(bytes));
    let heard = ear.take();
    assert!(
        heard.who.is_empty() || heard.table != TableChange::Untouched,
        "{heard:?}"
    );
    assert!(heard.by().is_none_or(|by| !by.contains(char::is_control)));
    for message in Messages::new(bytes).map_while(Result::ok) {
        black_box(&(message.reply(), message.family(), watch::is_about_us(&message)));
        for attr in Attrs::new(message.payload).map_while(Result::ok) {
            black_box(&(
                attr.u8(),
                attr.be16(),
                attr.be32(),
                attr.be64(),
                attr.ne32(),
                attr.str(),
            ));
            black_box(&attr.nested().map_while(Result::ok).count());
        }
    }
    let Some(Ok(first)) = Messages::new(bytes).next() else {
        return;
    };
    let mut refused = Vec::new();
    let acks = RecordedAnswers::new(bytes).acks(first.seq, |nack| {
        refused.extend(sealed().trace(nack));
        Ok(())
    });
    assert!(acks.is_ok() || acks.is_err_and(|error| !error.to_string().is_empty()));
    if !refused.is_empty() {
        let text = KernelError::Refused(refused).to_string();
        assert!(text.starts_with("the kernel refused the transaction; nothing was changed: "));
    }
    let mut seen = 0;
    let counts = |_: &tcpgw_kernel::netlink::tlv::Message<'_>| {
        seen += 1;
        if seen == 3 {
            Err(NetlinkError::Interrupted)
        } else {
            Ok(())
        }
    };
    let dump = RecordedAnswers::new(bytes).dump("look", |_, _| {}, counts);
    assert!(dump.is_ok() || dump.is_err_and(|error| !error.to_string().is_empty()));
}

/// Returns a transaction with messages of every kind, numbered from 1.
fn sealed() -> &'static Sealed {
    static SEALED: OnceLock<Sealed> = OnceLock::new();
    SEALED.get_or_init(|| {
        let (nothing, want) = (Ruleset::default(), &sample().ruleset);
        let mut transaction = Transaction::begin(Some(3), 0);
        transaction.new_table(FlowMark::default(), Room::of(want), Ownership::Persist, None);
        for step in plan(&nothing, want).steps.iter().chain(&plan(want, &nothing).steps) {
            transaction.step(step, FlowMark::default());
        }
        transaction.seal().expect("everything fits")
    })
}
