//! A server of ours beside one real server: what it sees of it.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use quorum_cnx::{CnxManager, Event, FRAME_BYTES_MAX, Reason, ReasonKind, Sid, TlsFailure};

use crate::{
    deadlines::{DEADLINE, wait_until},
    notification::{Format, Notification, State, Vote},
};

pub(crate) struct Member {
    pub(crate) manager: CnxManager,
    /// The real server.
    pub(crate) real: i64,
}

impl Member {
    pub(crate) fn new(manager: CnxManager, real: i64) -> Self {
        Self { manager, real }
    }

    /// Waits for the first event of the real server for which `answer` returns a value.
    #[track_caller]
    pub(crate) fn await_event<T>(
        &self,
        what: &str,
        mut answer: impl FnMut(&Event) -> Option<T>,
    ) -> T {
        let sid = self.manager.sid();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.manager.events().recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("server {sid}: not in time: {what}"));
            if let Some(answer) = answer(&event) {
                return answer;
            }
        }
    }

    /// Waits until the real server is linked. Returns whether this one has dialed.
    #[track_caller]
    pub(crate) fn await_up(&self) -> bool {
        self.await_event("a link", |event| match event {
            Event::Up { sid, dialed, .. } if sid.0 == self.real => Some(*dialed),
            _ => None,
        })
    }

    /// Sends a vote of a new round to the real server, which looks for a leader, and waits until the real server has begun that
    /// round. The vote elects nobody: it is for this server, whose epoch is before all others.
    #[track_caller]
    pub(crate) fn exchange(&self) {
        static ROUND: AtomicI64 = AtomicI64::new(1000);
        let round = ROUND.fetch_add(1, Ordering::Relaxed);
        let sid = self.manager.sid();
        let vote = Vote {
            leader: sid,
            // Votes with -1 are ignored.
            zxid: 0,
            round,
            epoch: -1,
        };
        self.send(State::Looking, vote);
        wait_until(&format!("server {sid}: the frame and its answer"), || {
            self.recv().is_some_and(|answer| answer.vote.round >= round)
        });
    }

    /// Sends the longest frame there is, which takes many records, and waits until it is written. To the real server it is a vote that
    /// is out of date.
    #[track_caller]
    pub(crate) fn send_longest(&self) {
        let sent = self
            .manager
            .to_send(Sid(self.real), vec![0; FRAME_BYTES_MAX]);
        assert!(sent.is_ok(), "{sent:?}");
        wait_until("the longest frame is written", || {
            self.manager.have_delivered()
        });
    }

    pub(crate) fn send(&self, state: State, vote: Vote) {
        let notification = Notification {
            state,
            vote,
            version: 1,
        };
        let sent = notification.write(Format::V1, "");
        self.manager.to_send(Sid(self.real), sent).unwrap();
    }

    /// The next notification of the real server, if there is one within a moment.
    pub(crate) fn recv(&self) -> Option<Notification> {
        let message = self.manager.recv_timeout(Duration::from_millis(1)).ok()?;
        if message.from != Sid(self.real) {
            return None;
        }
        let (notification, _) = Notification::read(&message.payload).unwrap();
        Some(notification)
    }

    /// Checks that no link has ended except by a replacement.
    #[track_caller]
    pub(crate) fn assert_never_down(&self) {
        self.assert_downs(&[ReasonKind::Replaced]);
    }

    /// The same if this server knocks. A real server that gets a knock closes the link before it dials: it renews a link in this order,
    /// and if its own dial and the knock cross each other, it closes a link that is new.
    #[track_caller]
    pub(crate) fn assert_down_by_knocks_only(&self) {
        self.assert_downs(&[ReasonKind::Replaced, ReasonKind::Closed]);
    }

    #[track_caller]
    fn assert_downs(&self, allowed: &[ReasonKind]) {
        let downs = self.manager.stats().downs;
        let is_allowed = |reason: &ReasonKind| allowed.contains(reason);
        assert!(
            downs.keys().all(is_allowed),
            "server {}: {downs:?}",
            self.manager.sid()
        );
    }

    /// Waits until three dials have failed because of TLS, and checks that there was no link in between. Returns the last reason.
    #[track_caller]
    pub(crate) fn await_refused(&self) -> TlsFailure {
        self.await_refusals(false).0
    }

    /// The same, and until a connection of the real server has failed because of TLS. Returns the reasons of both.
    #[track_caller]
    pub(crate) fn await_refused_both_ways(&self) -> [TlsFailure; 2] {
        let (dialed, accepted) = self.await_refusals(true);
        [dialed, accepted.expect("it was waited for")]
    }

    /// The same if the real server is the one that refuses. Returns what was seen.
    #[track_caller]
    pub(crate) fn await_alerts(&self) -> String {
        let [dialed, accepted] = self.await_refused_both_ways().map(|failure| match failure {
            TlsFailure::Alert(alert) => alert,
            failure => panic!("refused without an alert: {failure}"),
        });
        format!("never Up; DialFailed, alert {dialed}; Rejected when they dial, alert {accepted}")
    }

    #[track_caller]
    fn await_refusals(&self, both_ways: bool) -> (TlsFailure, Option<TlsFailure>) {
        let (mut dialed, mut accepted) = (Vec::new(), None);
        let last = self.await_event("refused connections", |event| {
            match event {
                Event::DialFailed {
                    sid,
                    reason: Reason::Tls(failure),
                    ..
                } if sid.0 == self.real => dialed.push(failure.clone()),
                // It does not listen yet, or the machine is slow.
                Event::DialFailed {
                    reason: Reason::Io(ErrorKind::ConnectionRefused) | Reason::ConnectTimeout,
                    ..
                } => {}
                Event::DialFailed { .. } | Event::Up { .. } | Event::Down { .. } => {
                    panic!("it was not refused by TLS: {event:?}")
                }
                Event::Rejected {
                    reason: Reason::Tls(failure),
                    ..
                } => accepted = Some(failure.clone()),
                _ => {}
            }
            let is_over = dialed.len() >= 3 && (accepted.is_some() || !both_ways);
            is_over.then(|| dialed.last().cloned()).flatten()
        });
        let stats = self.manager.stats();
        assert_eq!((stats.ups, stats.downs.len()), (0, 0));
        (last, accepted)
    }
}
