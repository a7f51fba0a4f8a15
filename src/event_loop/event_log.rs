//! Writes events to the log, in this one place.
//!
//! A payload is never logged. Lines about one peer, about unknown peers, and about this server are throttled separately. The next
//! line that is written says how many were suppressed.

use std::{collections::BTreeMap, time::Instant};

use crate::{
    event::Event,
    limits::{LOG_LINES, LOG_WINDOW},
    proto::Sid,
};

const TARGET: &str = "quorum_cnx::mesh";

/// Writes events to the log.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    /// One for each peer, one for all unknown peers, one for this server.
    throttles: BTreeMap<Subject, Throttle>,
}

/// The subject of a line. All unknown peers are one subject, so that they can neither fill this table nor suppress lines about this
/// server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Peer(Sid),
    UnknownPeers,
    ThisServer,
}

#[derive(Debug)]
struct Throttle {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl EventLog {
    /// The peer is removed.
    pub(super) fn forget(&mut self, sid: Sid) {
        self.throttles.remove(&Subject::Peer(sid));
    }

    pub(super) fn write(&mut self, event: &Event, now: Instant) {
        let (level, subject) = match event {
            Event::Listening { .. } | Event::TlsReloaded | Event::Halted => {
                (log::Level::Info, None)
            }
            // A few times in the life of a certificate.
            Event::CertificateExpires { .. } => (log::Level::Warn, None),
            // At most once for each configured address. An operator must not miss it.
            Event::ListenerLost { .. } => (log::Level::Error, None),
            // At most once per minute and peer.
            Event::Flapping { .. } => (log::Level::Warn, None),
            // As often as the application changes the members.
            Event::Joined { .. } | Event::Moved { .. } | Event::Left { .. } => {
                (log::Level::Info, None)
            }
            Event::Up { sid, .. } | Event::Down { sid, .. } => {
                (log::Level::Info, Some(Subject::Peer(*sid)))
            }
            Event::DialFailed { sid, .. } => (log::Level::Warn, Some(Subject::Peer(*sid))),
            // The sid that a refused connection claims is not proven.
            Event::Rejected { .. } => (log::Level::Warn, Some(Subject::UnknownPeers)),
            Event::TlsReloadFailed { .. }
            | Event::ListenFailed { .. }
            | Event::AcceptFailed { .. }
            | Event::Dropped { .. }
            | Event::SlowTurn { .. } => (log::Level::Warn, Some(Subject::ThisServer)),
        };
        // Before the throttle: a line that nobody sees must not use up the share of those that follow.
        if level > log::max_level() {
            return;
        }
        match self.admit(subject, now) {
            Some(0) => log::log!(target: TARGET, level, "{event}"),
            Some(suppressed) => {
                log::log!(target: TARGET, level, "{event} ({suppressed} similar lines suppressed)")
            }
            None => {}
        }
    }

    /// Whether a line may be written. If so, returns how many lines about the same subject were suppressed since the last one.
    fn admit(&mut self, subject: Option<Subject>, now: Instant) -> Option<u64> {
        let Some(subject) = subject else {
            return Some(0);
        };
        let throttle = self.throttles.entry(subject).or_insert(Throttle {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        throttle.admit(now)
    }
}

impl Throttle {
    /// Whether a line may be written. If so, returns how many were suppressed since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= LOG_WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= LOG_LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use log::{Level, LevelFilter, Log, Metadata, Record};

    use super::*;
    use crate::proto::{Address, Reason};

    thread_local! {
        static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    }

    /// Keeps the lines of each thread apart, since other tests run at the same time.
    struct Listener;

    impl Log for Listener {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            if record.target() == TARGET {
                let line = (record.level(), record.args().to_string());
                LINES.with_borrow_mut(|lines| lines.push(line));
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn every_event_is_logged_with_its_subject() {
        log::set_logger(&Listener).unwrap();
        log::set_max_level(LevelFilter::Info);
        let (addr, address) = ("10.0.0.2:3888".parse().unwrap(), Address::new("zk1", 3888));
        let (sid, reason) = (Sid(2), Reason::Closed);
        let error = "out of luck".to_owned();
        let link = 1;
        let up = |dialed| Event::Up {
            sid,
            dialed,
            addr,
            link,
            restarted: false,
        };
        let dial_failed = |addr| Event::DialFailed {
            sid,
            addr,
            reason: Reason::ConnectTimeout,
        };
        let rejected = |sid| Event::Rejected {
            addr,
            sid,
            reason: Reason::OlderLinkAlive,
        };
        let events = [
            (Event::Listening { addr }, "listening on 10.0.0.2:3888"),
            (
                Event::ListenFailed {
                    address: address.clone(),
                    error: error.clone(),
                },
                "cannot listen on zk1:3888: out of luck",
            ),
            (
                Event::AcceptFailed {
                    address: address.clone(),
                    error,
                    count: 1,
                },
                "cannot accept a connection on zk1:3888: out of luck",
            ),
            (
                Event::ListenerLost { address },
                "given up listening on zk1:3888",
            ),
            (up(true), "peer 2: up, dialed at 10.0.0.2:3888"),
            (up(false), "peer 2: up, accepted from 10.0.0.2:3888"),
            (
                Event::Down {
                    sid,
                    reason,
                    link,
                    written: 0,
                },
                "peer 2: down, ",
            ),
            (
                Event::Flapping {
                    sid,
                    duplicate: true,
                },
                "peer 2: its links replace each other again and again: two servers have ",
            ),
            (
                dial_failed(Some(addr)),
                "peer 2: cannot be reached at 10.0.0.2:3888, ",
            ),
            (dial_failed(None), "peer 2: cannot be reached, "),
            (rejected(None), "refused a connection from 10.0.0.2:3888: "),
            (
                rejected(Some(sid)),
                "refused a connection from 10.0.0.2:3888 for peer 2: ",
            ),
            (
                Event::SlowTurn {
                    took: Duration::from_secs(3),
                },
                "one turn took 3s",
            ),
            (Event::Halted, "halted"),
        ];
        let (start, mut event_log) = (Instant::now(), EventLog::default());
        for (event, _) in &events {
            event_log.write(event, start);
        }
        let lines = LINES.take();
        assert_eq!(lines.len(), events.len());
        for ((_, line), (_, begin)) in lines.iter().zip(&events) {
            assert!(line.starts_with(begin), "{line:?} for {begin:?}");
        }
        // With level `Warn`, lines about normal operation are not written.
        let quiet = lines.iter().filter(|(level, _)| *level == Level::Info);
        assert_eq!(quiet.count(), 5);
        // A server without a listener is unreachable but looks alive.
        let errors: Vec<&String> = lines
            .iter()
            .filter_map(|(level, line)| (*level == Level::Error).then_some(line))
            .collect();
        assert!(
            matches!(errors[..], [line] if line.starts_with("given up listening on zk1:3888")),
            "{errors:?}"
        );

        // When similar lines become rare again, the next line has the number of suppressed ones.
        for _ in 0..30 {
            event_log.write(&events[10].0, start);
        }
        event_log.write(&events[10].0, start + LOG_WINDOW);
        let lines = LINES.take();
        let (_, last) = lines.last().unwrap();
        assert_eq!(lines.len(), 9, "two were written before");
        assert!(last.ends_with(" (22 similar lines suppressed)"), "{last}");
    }

    #[test]
    fn log_lines_are_throttled_and_suppressed_ones_counted() {
        let (start, mut event_log) = (Instant::now(), EventLog::default());
        let mut admit =
            |subject, after| event_log.admit(subject, start + Duration::from_secs(after));
        let unknown = Some(Subject::UnknownPeers);
        let through = (0..10_000).filter(|_| admit(unknown, 0).is_some());
        assert_eq!(through.count(), 10);
        // Lines about a peer or about this server are not suppressed by lines about unknown peers.
        for other in [Some(Subject::Peer(Sid(1))), Some(Subject::ThisServer), None] {
            assert_eq!(admit(other, 0), Some(0), "{other:?}");
        }
        assert_eq!(admit(unknown, 11), Some(9990));
    }
}
