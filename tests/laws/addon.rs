//! The add-on in the daemon's core, with a store on disk and a kernel in memory: whatever is requested through any provider API,
//! and whenever the daemon dies or the store fails, acknowledged requests are neither lost nor doubled, ports are distinct, and
//! the kernel serves each resource according to its status and plan.

mod applies;
mod apps;
mod checks;
mod configuration;
mod deploys;
mod fences;
mod listeners;
mod lost_store;
mod paused;
mod ports;
mod refusing;
mod writes;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tcpgw::addon::id::PlatformId;
use tcpgw::addon::{Dialect, ResourceTarget, WantedPlan};
use tcpgw::config::Config;
use tcpgw_kernel::fake::Fail;

use self::apps::Apps;
use crate::world;

type World = world::World<Apps>;

const FIRST: u16 = 9001;
const LAST: u16 = 9005;
const APPS: usize = 4;
const QUARANTINE: Duration = Duration::from_secs(300);
/// Time that is longer than any drain, timeout or retry.
const LONG: Duration = Duration::from_secs(180);
const PLANS: [(&str, u32); 3] = [("small", 100), ("medium", 1000), ("large", 10_000)];
const DIALECTS: [Dialect; 5] = [
    Dialect::Osb,
    Dialect::Scalingo,
    Dialect::Heroku,
    Dialect::CleverCloud,
    Dialect::Local,
];

#[derive(Debug, Clone)]
enum Event {
    /// An app asks for a resource, of this plan, and perhaps with a port of its choice.
    Provision(Dialect, usize, usize, Option<u16>),
    /// The last request for a resource of that app is sent again.
    Again(usize),
    Plan(usize, usize),
    Suspend(usize),
    Resume(usize),
    Deprovision(usize),
    Bind(usize, u8),
    Unbind(usize, u8),
    /// The platform registers so many containers of the app.
    Register(usize, u8),
    Wait(u64),
    /// The kernel refuses the next transaction, or its answer is lost.
    Fail(Fail),
    /// The next write fails; the flag tells whether it took effect all the same.
    Store(bool),
    /// The daemon is killed before or after the next write, and another one starts.
    Kill(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let app = || 0..APPS;
    let plan = || 0..PLANS.len();
    let port = prop::option::weighted(0.2, FIRST - 1..=LAST);
    let fail = prop::sample::select(vec![Fail::Outdated, Fail::UnknownBefore, Fail::UnknownAfter]);
    prop_oneof![
        8 => (prop::sample::select(DIALECTS.to_vec()), app(), plan(), port)
            .prop_map(|(dialect, app, plan, port)| Event::Provision(dialect, app, plan, port)),
        3 => app().prop_map(Event::Again),
        4 => (app(), plan()).prop_map(|(app, plan)| Event::Plan(app, plan)),
        3 => app().prop_map(Event::Suspend),
        3 => app().prop_map(Event::Resume),
        3 => app().prop_map(Event::Deprovision),
        2 => (app(), 0..3_u8).prop_map(|(app, id)| Event::Bind(app, id)),
        1 => (app(), 0..3_u8).prop_map(|(app, id)| Event::Unbind(app, id)),
        4 => (app(), 0..3_u8).prop_map(|(app, count)| Event::Register(app, count)),
        3 => (0..400_u64).prop_map(Event::Wait),
        1 => fail.prop_map(Event::Fail),
        2 => any::<bool>().prop_map(Event::Store),
        3 => any::<bool>().prop_map(Event::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn acknowledged_requests_are_neither_lost_nor_doubled(
        events in prop::collection::vec((event(), prop::bool::weighted(0.25)), 1..40),
    ) {
        let mut world = World::new();
        for (event, held) in events {
            world.clients.is_held = held;
            world.happen(&event);
            if !held {
                world.run();
                world.check()?;
            }
        }
        world.end()?;
    }
}

fn config() -> Config {
    config_with("", FIRST, &PLANS)
}

/// Returns a configuration with these fences, ports from `first` on, and plans: name and packets per second.
fn config_with(fences: &str, first: u16, plans: &[(&str, u32)]) -> Config {
    let plans: Vec<String> = plans
        .iter()
        .enumerate()
        .map(|(at, (name, pps))| {
            format!("{{name = \"{name}\", id = \"5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c1{at}\", pps = {pps}}}")
        })
        .collect();
    let text = format!(
        "[fences]\n{fences}\n[addon]\nlisten = \"127.0.0.1:9443\"\nhost = \"gateway.example.com\"\nports = \"{first}-{LAST}\"\n\
         quarantine = \"{}s\"\ncredentials = \"/nowhere\"\nplans = [{}]",
        QUARANTINE.as_secs(),
        plans.join(", ")
    );
    Config::parse(Path::new("config.toml"), text.as_bytes()).unwrap()
}

fn app(at: usize) -> PlatformId {
    format!("app-{at}").parse().unwrap()
}

fn target(at: usize) -> ResourceTarget {
    ResourceTarget::Any(app(at))
}

fn plan_named(at: usize) -> WantedPlan {
    WantedPlan::Named(PLANS[at].0.parse().unwrap())
}
