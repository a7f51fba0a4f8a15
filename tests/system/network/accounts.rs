//! Compares the counters of members with what was observed, and with those of their peers.

use serde_json::Value;
use support::counters::{count, imbalance, peers};

use crate::ledger::ProcessRecord;

/// Checks that the counters of a member account for every frame that it was given, and for every frame and link that it has
/// printed.
pub(crate) fn check(record: &ProcessRecord, live: &[i64], stats: &Value) -> Result<(), String> {
    if let Some(why) = imbalance(stats) {
        return Err(why);
    }
    let agrees = [
        ("/sent/accepted", record.accepted),
        ("/received/frames", record.frames),
        ("/inbox/dropped", 0),
        ("/events/dropped", 0),
    ]
    .iter()
    .all(|(pointer, observed)| count(stats, pointer) == *observed);
    let is_linked = |peer: &Value| {
        let sid = peer["sid"].as_i64().expect("a peer has a sid");
        peer["linked"] == true || !live.contains(&sid)
    };
    if agrees && peers(stats).iter().all(is_linked) {
        return Ok(());
    }
    let (accepted, frames) = (record.accepted, record.frames);
    Err(format!(
        "accepted {accepted} frames, printed {frames}, and counts {stats}"
    ))
}

/// The number of frames that were written to a link and have not arrived. `None` if there are none, or if the two have had more
/// than one link, so that frames may have been lost with an earlier one.
pub(crate) fn lost(from: (i64, &Value), to: (i64, &Value)) -> Option<u64> {
    let peer = |stats, sid: i64| {
        let peer = peers(stats).iter().find(|peer| peer["sid"] == sid);
        peer.expect("the peer is listed")
    };
    let (sender, receiver) = (peer(from.1, to.0), peer(to.1, from.0));
    let is_first = |peer| count(peer, "/ups") == 1 && peer["linked"] == true;
    if !is_first(sender) || !is_first(receiver) {
        return None;
    }
    let written = count(sender, "/sent/written") + count(sender, "/sent/resent");
    let arrived = count(receiver, "/received/frames");
    (written != arrived).then(|| written.abs_diff(arrived))
}
