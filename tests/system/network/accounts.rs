//! The counters of members, against what was seen of them and against each other's.
//!
//! Nothing here asks anybody.

use serde_json::Value;

use crate::ledger::Life;

fn of(value: &Value, name: &str) -> u64 {
    value[name].as_u64().expect("it is counted")
}

/// Whether every frame that a member was given is accounted for, and every frame and link that it has told of.
pub(crate) fn check(life: &Life, live: &[i64], stats: &Value) -> Result<(), String> {
    let sent = &stats["sent"];
    let sum: u64 = ["written", "superseded", "discarded", "waiting"]
        .iter()
        .map(|name| of(sent, name))
        .sum();
    let mut agrees = [
        (of(sent, "accepted"), sum),
        (of(sent, "accepted"), life.accepted),
        (of(&stats["received"], "frames"), life.frames),
        (of(&stats["inbox"], "dropped"), 0),
        (of(&stats["events"], "dropped"), 0),
    ]
    .iter()
    .all(|(one, two)| one == two);
    for peer in stats["peers"].as_array().expect("they are listed") {
        let is_linked = peer["linked"] == true;
        agrees &= of(peer, "ups") == of(peer, "downs") + u64::from(is_linked);
        agrees &= is_linked || !live.contains(&peer["sid"].as_i64().expect("it has one"));
    }
    if agrees {
        return Ok(());
    }
    let (accepted, frames) = (life.accepted, life.frames);
    Err(format!(
        "was given {accepted}, printed {frames}, and counts {stats}"
    ))
}

/// The frames that were written to a link and did not come out of it; nothing if there are none, or the two have had more
/// than one link, with the first of which some may have died.
pub(crate) fn lost(from: (i64, &Value), to: (i64, &Value)) -> Option<u64> {
    let peer = |stats: &Value, sid: i64| {
        let peers = stats["peers"].as_array().expect("they are listed");
        let peer = peers.iter().find(|peer| peer["sid"] == sid);
        peer.expect("it is known").clone()
    };
    let (sender, receiver) = (peer(from.1, to.0), peer(to.1, from.0));
    let is_first = |peer: &Value| of(peer, "ups") == 1 && peer["linked"] == true;
    if !is_first(&sender) || !is_first(&receiver) {
        return None;
    }
    let written = of(&sender["sent"], "written") + of(&sender["sent"], "resent");
    let arrived = of(&receiver["received"], "frames");
    (written != arrived).then(|| written.abs_diff(arrived))
}
