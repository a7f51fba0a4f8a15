//! Tests one manager under overload: too many links, frames, sending threads, or a slow application. Memory does not grow, no link
//! or thread starves, and every frame is accounted for.
//!
//! The tests do not depend on the speed of the machine. The figures are printed, and written to `target/figures`.

#![cfg(target_os = "linux")]

mod application;
mod fairness;
mod senders;
mod setup;
