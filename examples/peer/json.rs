//! Builds the JSON object of each output line.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use quorum_cnx::{
    Changes, Event, LinkStats, PeerStats, QueueStats, ReasonKind, ReceiveStats, SendOutcome,
    SendStats, Sid, Stats,
};
use serde_json::{Value, json};

use crate::lines::State;

/// The `error` event.
pub(crate) fn failure(message: &str) -> Value {
    json!({ "event": "error", "message": message })
}

/// The `metrics` event.
pub(crate) fn metrics(addr: SocketAddr) -> Value {
    json!({ "event": "metrics", "addr": addr.to_string() })
}

/// The `members` event: what a step has changed.
pub(crate) fn members(changes: &Changes) -> Value {
    let sids = |sids: &[Sid]| sids.iter().map(|sid| sid.0).collect::<Vec<_>>();
    json!({
        "event": "members", "version": changes.version, "joined": sids(&changes.joined),
        "left": sids(&changes.left), "moved": sids(&changes.moved),
    })
}

pub(crate) fn outcome(sent: SendOutcome) -> &'static str {
    match sent {
        SendOutcome::Written => "written",
        SendOutcome::Queued => "queued",
        SendOutcome::Superseded => "superseded",
        SendOutcome::Loopback => "loopback",
        _ => "other",
    }
}

pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::Listening { addr, .. } => json!({ "event": "listening", "addr": addr.to_string() }),
        Event::ListenFailed { address, error, .. } => json!({
            "event": "listen-failed", "addr": address.to_string(), "message": error,
        }),
        Event::AcceptFailed {
            address,
            error,
            count,
            ..
        } => json!({
            "event": "accept-failed", "addr": address.to_string(), "message": error, "count": count,
        }),
        Event::ListenerLost { address, .. } => {
            json!({ "event": "listener-lost", "addr": address.to_string() })
        }
        Event::Up {
            sid,
            dialed,
            addr,
            link,
            restarted,
            ..
        } => json!({
            "event": "up", "sid": sid.0, "dialed": dialed, "addr": addr.to_string(), "link": link,
            "restarted": restarted,
        }),
        Event::Down {
            sid,
            reason,
            link,
            written,
            ..
        } => json!({
            "event": "down", "sid": sid.0, "reason": reason.kind().name(), "message": reason.to_string(),
            "link": link, "written": written,
        }),
        Event::Joined { sid, .. } => json!({ "event": "joined", "sid": sid.0 }),
        Event::Moved { sid, .. } => json!({ "event": "moved", "sid": sid.0 }),
        Event::Left { sid, discarded, .. } => {
            json!({ "event": "left", "sid": sid.0, "discarded": discarded })
        }
        Event::Dropped {
            messages, senders, ..
        } => json!({
            "event": "dropped", "messages": messages,
            "senders": senders.iter().map(|(sid, count)| json!([sid.0, count])).collect::<Vec<_>>(),
        }),
        Event::Flapping { sid, duplicate, .. } => {
            json!({ "event": "flapping", "sid": sid.0, "duplicate": duplicate })
        }
        Event::DialFailed {
            sid, addr, reason, ..
        } => json!({
            "event": "dial-failed", "sid": sid.0, "addr": addr.map(|addr| addr.to_string()),
            "reason": reason.kind().name(), "message": reason.to_string(),
        }),
        Event::Rejected {
            addr, sid, reason, ..
        } => json!({
            "event": "rejected", "addr": addr.to_string(), "sid": sid.map(|sid| sid.0),
            "reason": reason.kind().name(), "message": reason.to_string(),
        }),
        Event::SlowTurn { took, .. } => {
            json!({ "event": "slow-turn", "ms": took.as_millis() as u64 })
        }
        Event::TlsReloaded => json!({ "event": "tls-reloaded" }),
        Event::TlsReloadFailed { error, .. } => {
            json!({ "event": "tls-reload-failed", "message": error })
        }
        Event::CertificateExpires { .. } => {
            json!({ "event": "certificate-expires", "message": event.to_string() })
        }
        Event::Halted => json!({ "event": "halted" }),
        // A newer library may have more events.
        other => json!({ "event": "other", "message": format!("{other:?}") }),
    }
}

pub(crate) fn stats(stats: &Stats, lines: &State) -> Value {
    json!({
        "event": "stats",
        "sent": outgoing(&stats.sent),
        "received": incoming(&stats.received),
        "loopback": stats.loopback,
        // The queue of this program between the loop and standard output: received frames, and events.
        "inbox": lines.frames.json(),
        "events": lines.events.json(),
        // Frames from this server to itself, before they enter that queue.
        "loopback_inbox": queue(&stats.inbox),
        "accepted": stats.accepted,
        "accept_failures": stats.accept_failures,
        "kept": stats.kept,
        "knocks": stats.knocks,
        "rejected": by_name(&stats.rejected),
        "pending": stats.pending,
        "ups": stats.ups,
        "downs": by_name(&stats.downs),
        "dials": stats.dials,
        "dial_failures": stats.dial_failures,
        "renewals_given_up": stats.renewals_given_up,
        "turns": stats.turns,
        "wakeups": stats.wakeups,
        "connections": stats.connections,
        "leaving": stats.leaving,
        "peers": stats.peers.iter().map(peer).collect::<Vec<_>>(),
    })
}

/// Counts by the names of the reasons, in alphabetical order.
fn by_name(counts: &BTreeMap<ReasonKind, u64>) -> BTreeMap<&'static str, u64> {
    counts
        .iter()
        .map(|(kind, count)| (kind.name(), *count))
        .collect()
}

fn peer(peer: &PeerStats) -> Value {
    json!({
        "sid": peer.sid.0,
        "linked": peer.linked,
        "link": peer.link.as_ref().map(link),
        "last_end": peer.last_end.as_ref().map(|reason| reason.kind().name()),
        "incarnation": peer.incarnation,
        "last_received_ms": peer.last_received.map(age_ms),
        "sent": outgoing(&peer.sent),
        "received": incoming(&peer.received),
        "ups": peer.ups,
        "downs": by_name(&peer.downs),
        "dials": peer.dials,
        "dropped": peer.dropped,
    })
}

fn link(link: &LinkStats) -> Value {
    json!({
        "number": link.number, "dialed": link.dialed, "addr": link.addr.to_string(), "up_ms": age_ms(link.since),
        "round_trip_us": link.round_trip.map(|time| time.as_micros() as u64),
    })
}

fn age_ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

fn outgoing(sent: &SendStats) -> Value {
    json!({
        "accepted": sent.accepted, "written": sent.written, "superseded": sent.superseded,
        "discarded": sent.discarded, "waiting": sent.waiting,
        "waiting_ms": sent.waiting_since.map(age_ms), "resent": sent.resent, "bytes": sent.bytes,
    })
}

fn queue(queue: &QueueStats) -> Value {
    json!({
        "pushed": queue.pushed, "taken": queue.taken, "dropped": queue.dropped, "waiting": queue.waiting,
    })
}

fn incoming(received: &ReceiveStats) -> Value {
    json!({ "frames": received.frames, "bytes": received.bytes })
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(digits).collect()
}
