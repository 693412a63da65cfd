//! Threads that send events to the main loop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::event::UpEvent;
use crate::run_file;
use crate::up::gateway::{GatewayEvent, GatewayRequest, GatewayThread};
use crate::up::problems;

/// Starts the thread that gives the daemon the app's backends.
pub(super) fn tell_daemon(
    socket: PathBuf,
    app: String,
    grace: Duration,
    events: Sender<UpEvent>,
) -> io::Result<Sender<GatewayRequest>> {
    let (orders, taken) = channel();
    let tell = move |news| drop(events.send(UpEvent::Gateway(news)));
    let gateway = GatewayThread::new(socket, app, grace, taken, tell);
    std::thread::Builder::new()
        .name("gateway".into())
        .spawn(move || gateway.run())?;
    Ok(orders)
}

/// Tells problems of the app's service, by a thread of its own.
pub(super) fn tell_problems(socket: PathBuf, service: String, events: Sender<UpEvent>) -> io::Result<Sender<()>> {
    let (going_on, end) = channel();
    let tell = move |text| events.send(UpEvent::Gateway(GatewayEvent::Say(text))).is_ok();
    std::thread::Builder::new()
        .name("problems".into())
        .spawn(move || problems::follow(&socket, &service, &end, tell))?;
    Ok(going_on)
}

/// Passes signals on. More signals than have a meaning (one during the start, two later) end this process at once: its children
/// die with it, and the next `tcpgw up` removes what is left.
pub(super) fn listen_to_signals(events: Sender<UpEvent>, serves: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        run_file::survive_size_limit()?;
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let listen = async move {
        let mut count = 0;
        loop {
            let number = tokio::select! {
                Some(()) = interrupt.recv() => 2,
                Some(()) = terminate.recv() => 15,
                Some(()) = hangup.recv() => 15,
                else => return,
            };
            count += 1;
            if count > if serves.load(Ordering::SeqCst) { 2 } else { 1 } {
                std::process::exit(128 + i32::from(number));
            }
            if events.send(UpEvent::Signal(number)).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(move || runtime.block_on(listen)).map(drop)
}
