//! Loads a gateway, and says what came of it: the tool behind `scripts/bench`.
//!
//! `load serve` is a server that does what each connection asks of it. The other commands are clients; each prints one
//! JSON object. Where a server listens and who a client is follows from the network namespace it is started in.
//!
//! A target is `ADDRESS[+COUNT]:PORT[+COUNT]`: so many addresses and so many ports from there on, each as likely as the
//! others. `203.0.113.1:1024+30000` is 30,000 ports, `10.2.0.11+4:3000` four addresses.

mod clock;
mod connect;
mod latency;
mod opened;
mod outcome;
mod protocol;
mod request;
mod serve;
mod stream;
mod targets;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use targets::{Range, Sources};

#[derive(Parser)]
#[command(about = "Loads a gateway, and says what came of it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Accept, and do what each connection asks; ends at SIGTERM or SIGINT, with one JSON object
    Serve {
        /// Address and port, several times if need be
        #[arg(long, required = true)]
        listen: Vec<std::net::SocketAddr>,
    },
    /// Connect, send a request, read the answer and close, as often as possible
    Connect {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        for_long: ForLong,
        /// Connections under way at a time
        #[arg(long, default_value_t = 64)]
        concurrency: usize,
        /// No more new connections per second than that
        #[arg(long)]
        rate: Option<f64>,
        /// Bytes of the answer
        #[arg(long, default_value_t = 64)]
        answer: u64,
        /// Side that closes first
        #[arg(long, value_enum, default_value_t = Close::Server)]
        close: Close,
        /// Give a connection up after so many seconds
        #[arg(long, default_value_t = 5.0)]
        patience: f64,
    },
    /// One connection after the other, each to another target: how long `connect()` takes
    Latency {
        #[command(flatten)]
        to: To,
        /// Number of connections
        #[arg(long, default_value_t = 10_000)]
        samples: usize,
        /// Give a connection up after so many seconds
        #[arg(long, default_value_t = 5.0)]
        patience: f64,
    },
    /// Requests and answers, in turn, on connections that stay open
    Request {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        for_long: ForLong,
        /// Connections, each with one request under way
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Bytes of the answer
        #[arg(long, default_value_t = 64)]
        answer: u64,
    },
    /// Send as many bytes as possible
    Stream {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        for_long: ForLong,
        /// Number of connections
        #[arg(long, default_value_t = 4)]
        connections: usize,
        /// Direction of the bytes
        #[arg(long, value_enum)]
        direction: Direction,
    },
}

#[derive(Args, Clone)]
struct To {
    /// Targets: ADDRESS[+COUNT]:PORT[+COUNT], several times if need be
    #[arg(long = "target", required = true)]
    targets: Vec<Range>,
    /// The clients' addresses, in turn: ADDRESS[+COUNT]; the machine must have a local route to them
    #[arg(long)]
    sources: Option<Sources>,
    /// Seed of the random choice of targets
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args, Clone, Copy)]
struct ForLong {
    /// Duration in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads, each with its share of what is under way
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Side that closes a connection first, and so keeps it in `TIME_WAIT`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Close {
    Client,
    Server,
    /// The client closes, with a reset, so that no side has to wait.
    Reset,
}

/// Direction of the bytes of a stream.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    match command {
        Command::Serve { listen } => serve::run(&listen),
        Command::Connect {
            to,
            for_long,
            concurrency,
            rate,
            answer,
            close,
            patience,
        } => connect::run(&connect::Plan {
            to,
            seconds: seconds(for_long.seconds)?,
            threads: for_long.threads,
            concurrency,
            rate: rate.unwrap_or(f64::INFINITY),
            answer,
            close,
            patience: seconds(patience)?,
        }),
        Command::Latency { to, samples, patience } => latency::run(&to, samples, seconds(patience)?),
        Command::Request {
            to,
            for_long,
            connections,
            answer,
        } => request::run(&request::Plan {
            to,
            seconds: seconds(for_long.seconds)?,
            threads: for_long.threads,
            connections,
            answer,
        }),
        Command::Stream {
            to,
            for_long,
            connections,
            direction,
        } => stream::run(&to, seconds(for_long.seconds)?, connections, direction),
    }
}

fn seconds(value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value).map_err(|error| format!("{value} seconds: {error}"))
}
