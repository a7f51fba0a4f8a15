//! The state that the handles and the loop share: the peers, the inbox, the wake flag, the life cycle of the loop.
//!
//! Nothing here waits for the network.
//!
//! Invariants:
//!
//! - Whoever asks the loop for something first stores what it asks for, and then notifies. The loop takes the notification first,
//!   and then looks. So it finds what it was notified for, whatever the orderings of the stores.
//! - The end is recorded before anything is closed. So a thread that finds its outbox closed also finds why.
//! - Of two threads that end the loop, one closes everything, once.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::{Instant, SystemTime},
};

#[cfg(feature = "tls")]
use super::tls::TlsState;
use super::{
    lifecycle::{HaltOrder, Life, Lifecycle, Listening},
    membership::Membership,
    peer::Peer,
    process::{self, Home},
    registry::Registry,
    stats::{self, Counters, LinkStats, Stats},
};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    error::SendError,
    inbox::{Chunk, Inbox},
    proto::{PeerId, Reason, Sid},
    sync::{Mutex, Pending, Waiters, WakeFlag, lock},
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) own: Sid,
    pub(super) home: Home,
    pub(super) peers: Registry,
    /// Loopback frames are put here. In a manager it is the inbox of the application.
    pub(crate) inbox: Arc<Inbox<Chunk>>,
    /// True exactly when the loop empties the inbox into its handler.
    pub(super) inbox_is_for_the_loop: bool,
    pub(crate) wake_flag: WakeFlag,
    pub(crate) requests: Pending<Arc<Peer>>,
    /// True exactly when the loop was asked to halt.
    pub(crate) halt: HaltOrder,
    /// True exactly when the loop was asked to part with all peers, and to halt then.
    pub(super) shutting_down: AtomicBool,
    /// True exactly when the loop was asked to close its links and has not yet done so.
    pub(crate) drop_links: AtomicBool,
    /// True exactly when the loop was asked to renew its links and has not yet begun.
    pub(crate) renew_links: AtomicBool,
    #[cfg(feature = "tls")]
    pub(crate) tls: TlsState,
    pub(crate) counters: Counters,
    pub(super) membership: Mutex<Membership>,
    /// True exactly when the members have changed, and the loop has not followed yet.
    pub(crate) members_changed: AtomicBool,
    /// The members that are linked.
    linked_members: Mutex<BTreeSet<PeerId>>,
    /// Threads in [`wait_linked`](Self::wait_linked), and tasks.
    link_waiters: Waiters,
    lifecycle: Lifecycle,
}

/// A thread that turns the loop for a while instead of the loop's thread.
#[derive(Debug)]
pub(crate) struct StandIn<'a> {
    shared: &'a Shared,
    /// Whether this thread turned a loop before.
    turned: bool,
    loop_thread: Option<ThreadId>,
}

impl Drop for StandIn<'_> {
    fn drop(&mut self) {
        process::set_turns_a_loop(self.turned);
        self.shared.lifecycle.set_loop_thread(self.loop_thread);
    }
}

impl Shared {
    pub(crate) fn new(
        own: Sid,
        membership: Membership,
        inbox: Arc<Inbox<Chunk>>,
        inbox_is_for_the_loop: bool,
        wake_flag: WakeFlag,
    ) -> Self {
        Self {
            own,
            home: Home::here(),
            peers: Registry::new(membership.peers()),
            inbox,
            inbox_is_for_the_loop,
            wake_flag,
            requests: Pending::new(),
            halt: HaltOrder::default(),
            shutting_down: AtomicBool::new(false),
            drop_links: AtomicBool::new(false),
            renew_links: AtomicBool::new(false),
            #[cfg(feature = "tls")]
            tls: TlsState::default(),
            counters: Counters::default(),
            membership: Mutex::new(membership),
            members_changed: AtomicBool::new(false),
            linked_members: Mutex::default(),
            link_waiters: Waiters::new(),
            lifecycle: Lifecycle::new(),
        }
    }

    pub(crate) fn find(&self, sid: Sid) -> Option<Arc<Peer>> {
        self.peers.find(sid)
    }

    /// The same, or the error of a call that names no peer.
    pub(crate) fn peer(&self, sid: Sid) -> Result<Arc<Peer>, SendError> {
        self.find(sid).ok_or_else(|| match self.is_shutting_down() {
            true => SendError::Halted,
            false => SendError::UnknownPeer(sid),
        })
    }

    /// Whether the loop was asked to part with all peers.
    pub(crate) fn is_shutting_down(&self) -> bool {
        // Relaxed: it only says why a peer is unknown or closed.
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// The known peers, sorted by sid.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.known()
    }

    /// See [`Handle::have_delivered`](crate::Handle::have_delivered).
    pub(crate) fn have_delivered(&self) -> bool {
        self.peers.all(|peer| peer.outbox.is_empty())
    }

    pub(crate) fn meet(&self, peer: Arc<Peer>) {
        self.peers.add(peer);
    }

    pub(crate) fn part(&self, peer: &Arc<Peer>) {
        let mut membership = lock(&self.membership);
        membership.forget(peer.id);
        // Under the lock, so that the server does not become a member in between. Another one with its sid may leave as well.
        #[cfg(feature = "tls")]
        let has_news = !membership.leaves(peer.sid) && self.tls.forget(peer.sid);
        drop(membership);
        #[cfg(feature = "tls")]
        if has_news {
            self.wake_flag.notify();
        }
        self.peers.remove(peer);
    }

    /// Records the new link of a peer.
    pub(crate) fn link_up(&self, peer: &Peer, link: LinkStats, incarnation: Option<u64>) {
        peer.set_link(link, incarnation);
        self.count_link_of(peer);
    }

    /// Counts this peer if it is a linked member. Called after each change of one of the two, without a lock: it wakes tasks.
    pub(super) fn count_link_of(&self, peer: &Peer) {
        let mut linked = lock(&self.linked_members);
        // Looked at under the lock: of two threads that have changed one of them, the later one sees both changes.
        if peer.is_member() && peer.is_linked() {
            linked.insert(peer.id);
        } else {
            linked.remove(&peer.id);
        }
        drop(linked);
        self.link_waiters.notify();
    }

    /// Records the end of the link of a peer.
    pub(crate) fn link_down(&self, peer: &Peer, reason: Reason) {
        peer.unset_link(reason);
        self.count_link_of(peer);
    }

    /// Blocks until at least this many members are linked, the deadline has passed (`None`: no deadline) or the loop has ended.
    /// Returns whether so many are linked. Does not block on a thread that turns the loop, since only that thread could link a peer. It
    /// does block on the thread that has made the loop and has not turned it: another thread may be about to.
    pub(crate) fn wait_linked(&self, count: usize, deadline: Option<Instant>) -> bool {
        let are_linked = || lock(&self.linked_members).len() >= count;
        // In a forked process, `life` ends everything, which notifies the waiters: it must do so before this thread is one of them.
        let turns =
            self.is_loop_thread(thread::current().id()) && process::this_thread_turns_a_loop();
        if self.life() != Life::Running || turns {
            return are_linked();
        }
        let linked = Cell::new(false);
        // The locks that `are_linked` and `life` take are those under which a link comes up and the loop ends, as `Waiters` demands.
        self.link_waiters.wait(deadline, || {
            linked.set(are_linked());
            linked.get() || self.life() != Life::Running
        });
        linked.get()
    }

    /// See [`Handle::wait_linked_async`](crate::Handle::wait_linked_async).
    pub(crate) async fn wait_linked_async(&self, count: usize) -> bool {
        // First, as in `wait_linked`: in a forked process this ends everything.
        let _ = self.life();
        let wait = || {
            let are_linked = lock(&self.linked_members).len() >= count;
            // Not by `life`: it notifies the waiters if it ends the loop, and this is called under their lock.
            let has_ended = self.lifecycle.life() != Life::Running;
            (are_linked || has_ended).then_some(are_linked)
        };
        self.link_waiters.wait_async(wait).await
    }

    /// Whether the loop is in this process.
    pub(crate) fn is_here(&self) -> bool {
        self.home.is_here()
    }

    pub(crate) fn order(&self, flag: &AtomicBool) {
        // Release: pairs with the swap of `drop_links` and `renew_links` in the loop (`handle_requests`). For `halt`, which is read relaxed, the
        // notification below is what orders it.
        flag.store(true, Ordering::Release);
        // In a forked process the waker belongs to the parent. No lock is taken there: a thread of the parent may have held it.
        if self.is_here() {
            self.wake_flag.notify();
        }
    }

    pub(crate) fn request_halt(&self) {
        self.order(&self.halt.0);
    }

    pub(crate) fn inbox_is_for_the_loop(&self) -> bool {
        self.inbox_is_for_the_loop
    }

    pub(crate) fn life(&self) -> Life {
        let life = self.lifecycle.life();
        // Asked only while the loop seems to run: this is a system call, and after the end nothing depends on it.
        if life == Life::Running && !self.is_here() {
            self.end(Life::Halted);
            return Life::Halted;
        }
        life
    }

    /// Records that this thread turns the loop from now on.
    pub(crate) fn turns_here(&self) {
        process::set_turns_a_loop(true);
        self.set_loop_thread(thread::current().id());
    }

    pub(crate) fn set_loop_thread(&self, thread: ThreadId) {
        self.lifecycle.set_loop_thread(Some(thread));
    }

    /// Makes this thread the loop's thread until the result is dropped.
    pub(crate) fn stand_in(&self) -> StandIn<'_> {
        StandIn {
            shared: self,
            turned: process::set_turns_a_loop(true),
            loop_thread: self.lifecycle.set_loop_thread(Some(thread::current().id())),
        }
    }

    pub(crate) fn is_loop_thread(&self, thread: ThreadId) -> bool {
        self.lifecycle.is_loop_thread(thread)
    }

    pub(crate) fn set_listening(&self, listening: Vec<Listening>) {
        self.lifecycle.set_listening(listening);
    }

    pub(crate) fn listening(&self) -> Vec<Listening> {
        self.lifecycle.listening()
    }

    /// The loop has ended: no frame is accepted or received any more, and all waiting threads are woken. Only the first call has
    /// an effect.
    pub(crate) fn end(&self, life: Life) {
        if !self.lifecycle.end(life) {
            return;
        }
        // No peer is missed: no member is added after this, and only the loop adds others. Only the loop calls this, except in a forked
        // process, where no loop runs.
        for peer in self.peers.end() {
            if let Some(reason) = peer.end(life) {
                self.counters.downs.count(reason.kind());
            }
        }
        lock(&self.linked_members).clear();
        self.link_waiters.notify();
        self.inbox.close();
        // Last: a thread that has waited for the end finds the outboxes and the inbox closed.
        self.lifecycle.tell_of_the_end();
    }

    /// Holds a lock, as another thread of the parent may do when it forks.
    #[cfg(test)]
    pub(crate) fn hold_lock(&self) -> impl Drop + '_ {
        self.lifecycle.hold_lock()
    }

    pub(crate) fn wait_for_end(&self) {
        // In a forked process no thread would end the wait. `life` notices that.
        if self.life() != Life::Running {
            return;
        }
        self.lifecycle.wait_for_end();
    }

    /// Waits until the loop has ended or this time has passed.
    #[cfg(feature = "tls")]
    pub(crate) fn wait_for_end_at_most(&self, time: std::time::Duration) -> Life {
        match self.life() {
            Life::Running => self.lifecycle.wait_for_end_at_most(time),
            life => life,
        }
    }

    /// Has the loop use these certificates from now on, with the names that it has. Returns `false` if it speaks no TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn set_tls(&self, tls: Tls) -> bool {
        let is_configured = self.tls.reload(tls);
        self.wake_flag.notify();
        is_configured
    }

    /// Has the loop report that certificates could not be loaded.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_failed(&self, why: String) {
        self.tls.reload_failed(why);
        self.wake_flag.notify();
    }

    #[cfg(feature = "tls")]
    fn certificate_not_after(&self) -> Option<SystemTime> {
        self.tls.not_after()
    }

    #[cfg(not(feature = "tls"))]
    fn certificate_not_after(&self) -> Option<SystemTime> {
        None
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        // No lock spans all of this: the sums of each outbox and of each queue hold, since each is read under its lock.
        let (sent, received, leaving, peers) = self.peers.stats();
        Stats {
            sent,
            received,
            loopback: counters.loopback.read(),
            inbox: stats::QueueStats::of(&self.inbox),
            events: stats::QueueStats::default(),
            accepted: counters.accepted.read(),
            accept_failures: counters.accept_failures.read(),
            kept: counters.kept.read(),
            pending: counters.pending.read(),
            knocks: counters.knocks.read(),
            rejected: counters.rejected.read(),
            ups: counters.ups.read(),
            downs: counters.downs.read(),
            dials: counters.dials.read(),
            dial_failures: counters.dial_failures.read(),
            certificate_not_after: self.certificate_not_after(),
            renewals_given_up: counters.renewals_given_up.read(),
            turns: counters.turns.read(),
            turn_times: counters.turn_times.read(),
            wakeups: counters.wakeups.read(),
            connect_times: counters.connect_times.read(),
            handshake_times: counters.handshake_times.read(),
            connections: counters.connections.read(),
            leaving,
            peers,
        }
    }
}
