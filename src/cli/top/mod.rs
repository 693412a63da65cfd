//! The command `tcpgw top`.

mod confirmation;
mod frame;
mod history;
mod inputs;
mod keys;
mod list;
mod live;
mod model;
#[cfg(test)]
mod model_tests;
mod query;
mod sample;
#[cfg(test)]
mod sample_tests;
mod source;
mod terminal;
#[cfg(test)]
mod terminal_tests;
mod view;

use std::io::{self, BufWriter, IsTerminal as _};
use std::time::{Duration, Instant};

use clap::Args;

use self::history::TopHistory;
use self::list::{ServiceListing, TopSort};
use self::live::LiveSettings;
use super::arguments::parse_duration;
use super::failure::{Code, Failure, Outcome};
use super::global::{Global, OutputFormat};
use super::print::unless_closed;
use super::screen;
use crate::api::client::Client;
use crate::date::since_1970;

/// Shortest and longest time over which rates are measured.
const INTERVALS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(60)];

/// Show services, backends and flows live in a terminal, by traffic
///
/// Shows the services of the daemon: state, flows, traffic per second, the used part of the limit and its history. Services can be
/// sorted and filtered; Enter opens the backends of a service, f its flows with their clients. A backend can be drained, and a
/// service paused and resumed, after a question. The key ? lists all keys. Needs the right to connect to the daemon's socket, and
/// no other. Without a terminal, `--once` prints one sample as text, and `-o json` prints each sample as a line of JSON.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Time over which packets and drops are counted for the rates, and between two samples: 200ms to 60s
    #[arg(long, value_name = "T", default_value = "2s", value_parser = parse_interval)]
    interval: Duration,
    /// Print one sample and end
    #[arg(long)]
    once: bool,
    /// Value by which services are sorted
    #[arg(long, value_enum, default_value_t = TopSort::Traffic)]
    sort: TopSort,
    /// Show only services whose name, port, address, state or backends contain this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    let [shortest, longest] = INTERVALS;
    if (shortest..=longest).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be between 200ms and 60s".into())
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let is_json = global.output == OutputFormat::Json;
    let is_live = !arguments.once && !is_json;
    if is_live && (!io::stdin().is_terminal() || !io::stdout().is_terminal()) {
        return Err(Failure::Usage(
            "`tcpgw top` needs a terminal on standard input and standard output; `tcpgw top --once` prints one sample as text, and \
             `tcpgw top -o json` prints samples as JSON"
                .into(),
        ));
    }
    let connect = || global.must_daemon("knows the traffic of services");
    let daemon = connect()?;
    if !is_live {
        unless_closed(print(global, arguments, &daemon))?;
        return Ok(Code::Success);
    }
    let settings = LiveSettings {
        interval: arguments.interval,
        sort: arguments.sort,
        filter: &arguments.filter,
        has_colors: global.colors(&io::stdout()),
    };
    live::run(settings, daemon, connect()?)
}

/// Prints samples until the command is ended, or one.
fn print(global: &Global, arguments: &Arguments, daemon: &Client) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut history = TopHistory::default();
    let mut list = ServiceListing::new(arguments.sort, &arguments.filter);
    // Connections per second need two samples.
    let first = source::sample(daemon, Duration::ZERO)?;
    history.add(begin.elapsed(), &first);
    drop(first);
    loop {
        let sample = source::sample(daemon, arguments.interval)?;
        history.add(begin.elapsed(), &sample);
        list.arrange(&sample, &history);
        let view = (&sample, &history);
        let written = if global.output == OutputFormat::Json {
            frame::write_json(BufWriter::new(screen::json()), since_1970().as_secs(), view, &list)
        } else {
            frame::write_text(BufWriter::new(screen::stdout()), view, &list, global.extent())
        };
        written.map_err(|source| Failure::Io {
            what: "write to standard output",
            source,
        })?;
        if arguments.once {
            return Ok(());
        }
    }
}
