//! The store as a whole: against a model of it, killed at any moment, damaged.

#[path = "child.rs"]
mod child;
mod damage;
mod killed;
mod model;
