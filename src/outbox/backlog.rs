//! What a slot and a queue have in common for the writer: frames that wait, frames that are being written.
//!
//! Nothing here locks. Both kinds keep these rules, on which the writer depends:
//!
//! - The methods of [`Backlog`] are called under the lock of the outbox. [`InFlight::write_to`] and [`Deferred::release`] are called
//!   without it.
//! - A frame that `first` or `next` returns no longer waits in the backlog. It comes back by one of `next`, `on_blocked`, `requeue`
//!   and `on_written`.
//! - No payload and no buffer of frames is dropped by a method of [`Backlog`]: what is no longer needed is put into `deferred`.
//! - After `close` the backlog is empty and stays empty. What comes back then is counted as written or discarded. After `seal` it still has
//!   what was in it, and what comes back waits again.

use std::{fmt, io};

use super::{
    clock::Stamp,
    types::{LoopRequest, SendCounts, Wire},
};

/// The frames that wait for a peer, and the rules of what is written next. It is used under the lock.
pub(super) trait Backlog: fmt::Debug {
    /// What is written in one go.
    type InFlight: InFlight;

    /// What is to be dropped after the lock is released.
    type Deferred: Deferred;

    /// What is written first over a new link.
    fn first(&mut self) -> Option<Self::InFlight>;

    /// What is written next over the same link. `rest` was not written to its end.
    fn next(
        &mut self,
        rest: Option<Self::InFlight>,
        deferred: &mut Self::Deferred,
    ) -> Option<Self::InFlight>;

    /// The socket is full. Returns what must be finished first once there is room.
    fn on_blocked(
        &mut self,
        rest: Self::InFlight,
        deferred: &mut Self::Deferred,
    ) -> Option<Self::InFlight>;

    /// Takes back what cannot be finished on its link, so that it waits again.
    fn requeue(&mut self, rest: Self::InFlight, deferred: &mut Self::Deferred);

    /// Counts what was written to its end.
    fn on_written(&mut self, in_flight: Self::InFlight, deferred: &mut Self::Deferred);

    /// The loop is about to write, perhaps because it was asked to.
    fn on_loop_resume(&mut self);

    /// Whether a frame waits, apart from those that a writer has.
    fn has_waiting(&self) -> bool;

    /// Whether a frame would be taken and replace none; see [`Waiters`](crate::sync::Waiters). A backlog that takes nothing more has room: the next
    /// send returns the error.
    fn has_room(&self) -> bool;

    /// Asks the loop, once, to free spare buffers after a while, if there are any.
    fn request_release(&mut self) -> LoopRequest;

    /// Frees the spare buffers.
    fn release_buffers(&mut self, deferred: &mut Self::Deferred);

    /// Takes nothing more.
    fn seal(&mut self);

    /// Takes nothing more, and discards what waits.
    fn close(&mut self, deferred: &mut Self::Deferred);

    /// Discards the frames that wait, except those that a writer has.
    fn discard(&mut self, deferred: &mut Self::Deferred);

    /// When the oldest frame was put, of those that no writer has. `owed_since` is that of the state: the answer of a backlog that does
    /// not know it better.
    fn oldest(&self, owed_since: Option<Stamp>) -> Option<Stamp>;

    /// The counts, without the frames that a writer has.
    fn counts(&self) -> SendCounts;

    /// Those of the slot, which may be all or none of them.
    fn slot_counts(&self) -> SendCounts;
}

/// Payloads and buffers to be dropped after the lock is released.
pub(super) trait Deferred: Default {
    /// Drops them, each payload by [`release`](crate::sync::release).
    fn release(self);
}

/// Frames that are being written.
pub(super) trait InFlight: fmt::Debug {
    /// Writes as much as the socket takes.
    fn write_to(&mut self, wire: &dyn Wire) -> Progress;

    /// The number of these frames that were accepted and are not counted yet.
    fn frames(&self) -> u64;

    /// When the oldest of them was put, if that is known.
    fn oldest(&self) -> Option<Stamp>;
}

pub(super) enum Progress {
    Done,
    Full,
    Broken(io::ErrorKind),
}
