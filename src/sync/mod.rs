//! How threads and tasks wait and are woken, for the outboxes, the inbox and the loop.
//!
//! Nothing here knows sids, rules or the operating system. Each type is used through `&self` and is model-checked with loom:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p quorum-cnx --lib loom_`.

#[cfg(test)]
mod fixture;
mod held_locks;
mod loan;
mod primitives;
mod tasks;
mod waiters;
mod wake_flag;

#[cfg(test)]
pub(crate) use fixture::{Signal, complete};
pub(crate) use held_locks::assert_none_held;
pub(crate) use loan::{Held, Loan};
pub(crate) use primitives::{
    Condvar, Guard, Mutex, MutexGuard, atomic, block_on, lock, release, wake, yield_now,
};
pub(crate) use tasks::{Tasks, Ticket};
pub(crate) use waiters::Waiters;
pub(crate) use wake_flag::{Pending, WakeFlag};
