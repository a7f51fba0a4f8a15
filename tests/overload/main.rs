//! Too much of everything, at one manager: links, frames, threads that send, an application that is slow or does not
//! listen. Nothing grows, nothing starves, and every frame is accounted for.
//!
//! Nothing here depends on how fast the machine is; what is measured is printed and kept in `target/figures`.

#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod application;
mod fairness;
mod senders;
mod stage;
