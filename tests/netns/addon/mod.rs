//! The add-on, as platforms, their users and hostile clients meet it.

mod bad_input;
mod check;
mod commands;
mod damaged;
mod dialects;
mod held_back;
mod json_output;
mod many;
mod mqtt;
mod page;
pub(crate) mod platform;
mod served;
mod settings;
mod sign_on;
mod slow;
