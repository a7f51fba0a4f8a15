//! Statistics as a text that Prometheus reads: [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/).
//!
//! Nothing here looks at a clock, and nothing is served: the application passes the text on.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
    time::{Duration, Instant, SystemTime},
};

use super::{
    histogram::Histogram,
    stats::{LinkStats, PeerStats, QueueStats, ReceiveStats, SendStats, Stats},
};
use crate::proto::ReasonKind;

impl Stats {
    /// Writes these statistics in the text format of OpenMetrics, which Prometheus reads. `now` is the time to which ages are computed:
    /// [`Instant::now`], or the clock of the simulation.
    ///
    /// The content type is `application/openmetrics-text; version=1.0.0; charset=utf-8`. Every name begins with `quorum_cnx_`, and
    /// those of metrics of one peer with `quorum_cnx_peer_`, which have the label `sid`. A name never changes its meaning. The text ends
    /// with `# EOF`, so an application with metrics of its own writes them before.
    ///
    /// Observers have no metrics of their own, since each has a new sid: they are part of the sums over all peers. If
    /// [unknown servers are admitted](crate::Unknown::Admit), whoever reaches the port chooses which sids there are.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    ///
    /// # Examples
    ///
    /// ```
    /// use quorum_cnx::{CnxManager, Config, Sid};
    /// use std::time::Instant;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::builder(Sid(1)).server(Sid(1), "127.0.0.1:0").build()?;
    /// let manager = CnxManager::start(config)?;
    /// let mut body = String::new();
    /// manager.stats().write_openmetrics(Instant::now(), &mut body)?;
    /// assert!(body.contains("\nquorum_cnx_inbox_dropped_total 0\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_openmetrics(&self, now: Instant, out: &mut impl Write) -> fmt::Result {
        let mut text = Text { out };
        // An observer has a negative sid, which is never used again.
        let peers = self.peers.iter().filter(|peer| peer.sid.0 >= 0);
        let peers: Vec<_> = peers.map(|peer| (label("sid", peer.sid), peer)).collect();
        text.links(&peers, now)?;
        let frames = |(sid, peer): &(String, &PeerStats)| (sid.clone(), peer.sent, peer.received);
        let frames: Vec<_> = peers.iter().map(frames).collect();
        text.frames("peer_", &frames)?;
        text.frames("", &[(String::new(), self.sent, self.received)])?;
        text.queue("inbox", &self.inbox)?;
        text.queue("events", &self.events)?;
        let help = "Removed servers that are linked still";
        text.family(Gauge, "leaving_peers", help, one(self.leaving))?;
        text.connections(self)?;
        text.certificate(self)?;
        text.event_loop(self)?;
        text.out.write_str("# EOF\n")
    }
}

/// The type of a family of metrics.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}
use Kind::{Counter, Gauge, Info};

/// A label of a sample.
fn label(name: &str, value: impl Display) -> String {
    // A backslash first, so that those of the other two are not replaced.
    let value = value.to_string().replace('\\', r"\\");
    let value = value.replace('"', r#"\""#).replace('\n', r"\n");
    format!("{name}=\"{value}\"")
}

/// One sample without labels.
fn one<V>(value: V) -> [(String, V); 1] {
    [(String::new(), value)]
}

/// A sample for each reason. `of` is the label that they have in common, with a comma behind it, or empty.
fn by_reason<'a>(
    of: &'a str,
    counts: &'a BTreeMap<ReasonKind, u64>,
) -> impl Iterator<Item = (String, u64)> + 'a {
    counts
        .iter()
        .map(move |(kind, count)| (format!("{of}{}", label("reason", kind)), *count))
}

struct Text<'a> {
    out: &'a mut dyn Write,
}

impl Text<'_> {
    /// Each peer: its link, and its history.
    fn links(&mut self, peers: &[(String, &PeerStats)], now: Instant) -> fmt::Result {
        let age = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
        let each = |value: fn(&PeerStats) -> u64| {
            let sample = move |(sid, peer): &(String, &PeerStats)| (sid.clone(), value(peer));
            peers.iter().map(sample)
        };
        let linked = || {
            peers
                .iter()
                .filter_map(|(sid, peer)| Some((sid, peer.link.as_ref()?)))
        };

        let help = "Whether the peer is linked, 1 or 0";
        self.family(Gauge, "peer_linked", help, each(|peer| peer.linked.into()))?;
        let help = "The far end of the link, and whether this server has dialed";
        let far_ends = linked().map(|(sid, link)| {
            let (address, dialed) = (label("address", link.addr), label("dialed", link.dialed));
            (format!("{sid},{address},{dialed}"), 1)
        });
        self.family(Info, "peer_link", help, far_ends)?;
        let help = "How long the link is up";
        let ages = linked().map(|(sid, link)| (sid.clone(), age(link.since)));
        self.family(Gauge, "peer_link_age_seconds", help, ages)?;
        self.round_trips(peers)?;
        let help = "Time since the last frame, over any link";
        let received =
            |(sid, peer): &(String, &PeerStats)| Some((sid.clone(), age(peer.last_received?)));
        self.family(
            Gauge,
            "peer_last_received_age_seconds",
            help,
            peers.iter().filter_map(received),
        )?;
        let help = "How long the oldest frame waits, 0 if none does";
        let waiting = |(sid, peer): &(String, &PeerStats)| {
            (sid.clone(), peer.sent.waiting_since.map_or(0.0, age))
        };
        self.family(
            Gauge,
            "peer_waiting_age_seconds",
            help,
            peers.iter().map(waiting),
        )?;
        let help = "How often the link came up";
        self.family(Counter, "peer_link_ups", help, each(|peer| peer.ups))?;
        let help = "How often the link ended, by reason";
        let sids: Vec<_> = peers
            .iter()
            .map(|(sid, peer)| (format!("{sid},"), &peer.downs))
            .collect();
        let downs = sids.iter().flat_map(|(sid, downs)| by_reason(sid, downs));
        self.family(Counter, "peer_link_downs", help, downs)?;
        let help = "Attempts to dial the peer, or to knock at it";
        self.family(Counter, "peer_dials", help, each(|peer| peer.dials))?;
        let help = "Messages of the peer that the inbox has dropped, counted once a second";
        self.family(
            Counter,
            "peer_inbox_dropped",
            help,
            each(|peer| peer.dropped),
        )
    }

    /// How long pings took, of each peer that has answered one.
    fn round_trips(&mut self, peers: &[(String, &PeerStats)]) -> fmt::Result {
        let smoothed: fn(&LinkStats) -> Option<Duration> = |link| link.round_trip;
        let last: fn(&LinkStats) -> Option<Duration> = |link| link.last_round_trip;
        for (name, help, time) in [
            (
                "peer_round_trip_seconds",
                "Time of a ping to the peer and back, smoothed",
                smoothed,
            ),
            (
                "peer_last_round_trip_seconds",
                "Time of the last ping to the peer and back",
                last,
            ),
        ] {
            let sample = |(sid, peer): &(String, &PeerStats)| {
                Some((sid.clone(), time(peer.link.as_ref()?)?.as_secs_f64()))
            };
            self.family(Gauge, name, help, peers.iter().filter_map(sample))?;
        }
        Ok(())
    }

    /// Frames to and from peers: those of each peer, or the sums.
    fn frames(&mut self, prefix: &str, of: &[(String, SendStats, ReceiveStats)]) -> fmt::Result {
        let mut family = |kind, name, help, value: fn(&SendStats, &ReceiveStats) -> u64| {
            let samples = of
                .iter()
                .map(|(labels, sent, received)| (labels.clone(), value(sent, received)));
            self.family(kind, &format!("{prefix}{name}"), help, samples)
        };
        let help = "Frames that were taken to be sent";
        family(Counter, "accepted_frames", help, |sent, _| sent.accepted)?;
        let help = "Frames of which the kernel has every byte";
        family(Counter, "written_frames", help, |sent, _| sent.written)?;
        let help = "Frames that a newer one has replaced in the slot";
        family(Counter, "superseded_frames", help, |sent, _| {
            sent.superseded
        })?;
        let help = "Frames that were given up: by a halt, with their peer, or on request";
        family(Counter, "discarded_frames", help, |sent, _| sent.discarded)?;
        let help = "Frames that wait to be written, or are written in part";
        family(Gauge, "waiting_frames", help, |sent, _| sent.waiting)?;
        let help = "Last frames that were written once more over a new link";
        family(Counter, "resent_frames", help, |sent, _| sent.resent)?;
        let help = "Bytes of written and resent frames, prefixes included";
        family(Counter, "written_bytes", help, |sent, _| sent.bytes)?;
        let help = "Whole frames that were received";
        family(Counter, "received_frames", help, |_, received| {
            received.frames
        })?;
        let help = "Payload bytes of received frames";
        family(Counter, "received_bytes", help, |_, received| {
            received.bytes
        })
    }

    /// The inbox, or the queue of events.
    fn queue(&mut self, name: &str, queue: &QueueStats) -> fmt::Result {
        let QueueStats {
            pushed,
            taken,
            dropped,
            waiting,
        } = *queue;
        for (kind, what, help, value) in [
            (
                Counter,
                "pushed",
                "Items that were queued for the application",
                pushed,
            ),
            (
                Counter,
                "taken",
                "Items that the application has taken",
                taken,
            ),
            (
                Counter,
                "dropped",
                "Items that were dropped because there was no room",
                dropped,
            ),
            (
                Gauge,
                "waiting",
                "Items that wait for the application",
                waiting,
            ),
        ] {
            self.family(kind, &format!("{name}_{what}"), help, one(value))?;
        }
        Ok(())
    }

    /// Connections of all kinds, by what became of them.
    fn connections(&mut self, stats: &Stats) -> fmt::Result {
        for (kind, name, help, value) in [
            (
                Gauge,
                "connections",
                "Connections of all kinds that are open",
                stats.connections,
            ),
            (
                Counter,
                "accepted_connections",
                "Connections that were accepted",
                stats.accepted,
            ),
            (
                Counter,
                "accept_failures",
                "Connections that could not be accepted",
                stats.accept_failures,
            ),
            (
                Counter,
                "kept_connections",
                "Accepted connections that became a link",
                stats.kept,
            ),
            (
                Counter,
                "knocks",
                "Accepted connections that were knocks",
                stats.knocks,
            ),
            (
                Gauge,
                "pending_connections",
                "Accepted connections without a whole initial message, and contenders",
                stats.pending,
            ),
            (Counter, "link_ups", "Links that came up", stats.ups),
            (
                Counter,
                "dials",
                "Attempts to dial or to knock",
                stats.dials,
            ),
            (
                Counter,
                "dial_failures",
                "Attempts in which every address failed",
                stats.dial_failures,
            ),
        ] {
            self.family(kind, name, help, one(value))?;
        }
        let help = "Accepted connections that were refused, by reason";
        self.family(
            Counter,
            "rejected_connections",
            help,
            by_reason("", &stats.rejected),
        )?;
        let help = "Links that ended, by reason";
        self.family(Counter, "link_downs", help, by_reason("", &stats.downs))?;
        let help = "Time that successful connects took";
        self.histogram("connect_seconds", help, &stats.connect_times)?;
        let help = "Time from accepting a connection to its whole initial message";
        self.histogram("handshake_seconds", help, &stats.handshake_times)
    }

    /// The certificate of this server, and links that were to get a new one.
    fn certificate(&mut self, stats: &Stats) -> fmt::Result {
        let help = "Links that could not be replaced by new ones, and are kept";
        let given_up = one(stats.renewals_given_up);
        self.family(Counter, "renewals_given_up", help, given_up)?;
        let help =
            "When the certificate of this server, or one in its chain, expires, in Unix time";
        let name = "certificate_not_after_timestamp_seconds";
        let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        let expiry = stats.certificate_not_after.and_then(since_1970);
        let sample = expiry.map(|expiry| (String::new(), expiry.as_secs()));
        self.family(Gauge, name, help, sample)
    }

    fn event_loop(&mut self, stats: &Stats) -> fmt::Result {
        let help = "Frames of this server to itself";
        self.family(Counter, "loopback_frames", help, one(stats.loopback))?;
        let help = "Turns of the loop, with those that were not measured";
        self.family(Counter, "turns", help, one(stats.turns))?;
        let help = "Waits of the loop that another thread has ended";
        self.family(Counter, "wakeups", help, one(stats.wakeups))?;
        let help = "Time that turns of the loop took, without waiting";
        self.histogram("turn_seconds", help, &stats.turn_times)
    }

    /// A family, and its samples with their labels.
    fn family<V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) -> fmt::Result {
        self.describe(kind, name, help)?;
        let suffix = match kind {
            Counter => "_total",
            Info => "_info",
            Gauge | Kind::Histogram => "",
        };
        for (labels, value) in samples {
            self.sample(name, suffix, &labels, value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        self.describe(Kind::Histogram, name, help)?;
        let mut count = 0;
        for (bound, in_bucket) in histogram.buckets() {
            count += in_bucket;
            let bound = bound.map_or_else(
                || "+Inf".to_owned(),
                |bound| bound.as_secs_f64().to_string(),
            );
            self.sample(name, "_bucket", &label("le", bound), count)?;
        }
        self.sample(name, "_count", "", count)?;
        self.sample(name, "_sum", "", histogram.sum().as_secs_f64())
    }

    fn describe(&mut self, kind: Kind, name: &str, help: &str) -> fmt::Result {
        let out = &mut self.out;
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Kind::Histogram => "histogram",
            Info => "info",
        };
        writeln!(out, "# TYPE quorum_cnx_{name} {kind}")?;
        for unit in ["bytes", "seconds"] {
            if name.ends_with(unit) {
                writeln!(out, "# UNIT quorum_cnx_{name} {unit}")?;
            }
        }
        writeln!(out, "# HELP quorum_cnx_{name} {help}.")
    }

    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &str,
        value: impl Display,
    ) -> fmt::Result {
        let (open, close) = if labels.is_empty() {
            ("", "")
        } else {
            ("{", "}")
        };
        writeln!(
            self.out,
            "quorum_cnx_{name}{suffix}{open}{labels}{close} {value}"
        )
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
