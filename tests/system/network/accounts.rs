//! Compares the counters of members with what was observed, and with those of their peers.

use serde_json::Value;

use crate::ledger::ProcessRecord;

fn count(value: &Value, name: &str) -> u64 {
    value[name].as_u64().expect("the counter exists")
}

/// Checks that the counters of a member account for every frame that it was given, and for every frame and link that it has
/// printed.
pub(crate) fn check(record: &ProcessRecord, live: &[i64], stats: &Value) -> Result<(), String> {
    let sent = &stats["sent"];
    let sum: u64 = ["written", "superseded", "discarded", "waiting"]
        .iter()
        .map(|name| count(sent, name))
        .sum();
    let mut agrees = [
        (count(sent, "accepted"), sum),
        (count(sent, "accepted"), record.accepted),
        (count(&stats["received"], "frames"), record.frames),
        (count(&stats["inbox"], "dropped"), 0),
        (count(&stats["events"], "dropped"), 0),
    ]
    .iter()
    .all(|(one, two)| one == two);
    for peer in stats["peers"].as_array().expect("the peers are listed") {
        let is_linked = peer["linked"] == true;
        agrees &= count(peer, "ups") == count(peer, "downs") + u64::from(is_linked);
        agrees &= is_linked || !live.contains(&peer["sid"].as_i64().expect("a peer has a sid"));
    }
    if agrees {
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
    let peer = |stats: &Value, sid: i64| {
        let peers = stats["peers"].as_array().expect("the peers are listed");
        let peer = peers.iter().find(|peer| peer["sid"] == sid);
        peer.expect("the peer is listed").clone()
    };
    let (sender, receiver) = (peer(from.1, to.0), peer(to.1, from.0));
    let is_first = |peer: &Value| count(peer, "ups") == 1 && peer["linked"] == true;
    if !is_first(&sender) || !is_first(&receiver) {
        return None;
    }
    let written = count(&sender["sent"], "written") + count(&sender["sent"], "resent");
    let arrived = count(&receiver["received"], "frames");
    (written != arrived).then(|| written.abs_diff(arrived))
}
