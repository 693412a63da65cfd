//! `tcpgw up`: runs an app's processes on this machine as a platform does, each in a network namespace of its own, and makes the
//! app known to the gateway.
//!
//! [`supervisor`] decides what is started and ended, and when; [`procfile`], [`env_file`], [`formation`] and [`printer`] are what
//! foreman has. All of these are pure. [`container`] is the helper around a process, [`network`] and [`egress`] are the kernel's
//! part, [`gateway`] is the daemon's, [`control`] the socket for the other commands, [`leftovers`] what another `tcpgw up` left
//! behind and [`owner`] whose something is, [`resolver`] names, [`problems`] what the daemon says of the app, and [`run`] has them all together.

pub mod abandoned;
pub mod addresses;
pub mod container;
pub mod control;
pub mod egress;
pub mod env_file;
pub mod error;
pub mod formation;
pub mod gateway;
pub mod id;
pub mod leftovers;
pub mod network;
pub mod own_daemon;
pub mod owner;
pub mod printer;
pub mod problems;
pub mod process;
pub mod procfile;
pub mod record;
pub mod resolver;
pub mod run;
pub mod settings;
pub mod supervisor;
