//! A conformance test of providers: what is asked, in which order, and what an answer has to be, by the documents of each dialect.
//!
//! Pure: a [`CheckRun`] says what to send next and takes what came of it. Sockets, clocks and signals are the caller's. The checks are
//! the tables in `osb` and `resources`; each names the document and the section that its rule is from.

mod all_answers;
mod catalog;
mod checks;
mod context;
mod created_resource;
mod definition;
mod judge;
mod judgement;
mod manifest;
mod message;
mod need;
mod offer;
mod osb;
mod redacted;
mod resources;
mod run;
mod settings;

pub use self::manifest::sign_on;
pub use self::message::{AnswerBody, Body, CheckRequest, Login, NoAnswer, PathBase, ProviderAnswer, Version};
pub use self::run::{CheckFinding, CheckReport, CheckRun, CheckVerdict, Next};
pub use self::settings::{CheckSettings, CheckSettingsError};

#[cfg(test)]
mod tests;
