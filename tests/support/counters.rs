//! The sums of the counters that the program `peer` prints.

use serde_json::Value;

/// A counter, by its JSON pointer.
#[track_caller]
pub fn count(stats: &Value, pointer: &str) -> u64 {
    let count = stats.pointer(pointer).and_then(Value::as_u64);
    count.unwrap_or_else(|| panic!("no counter {pointer} in {stats}"))
}

/// The peers of a member that prints these counters.
#[track_caller]
pub fn peers(stats: &Value) -> &[Value] {
    stats["peers"].as_array().expect("the peers are listed")
}

/// The number of its links.
#[track_caller]
pub fn linked(stats: &Value) -> u64 {
    let is_linked = |peer: &&Value| peer["linked"] == true;
    peers(stats).iter().filter(is_linked).count() as u64
}

/// The first sum that does not balance. Frames that are being received may be counted in one place and not yet in the other.
#[track_caller]
pub fn imbalance(stats: &Value) -> Option<String> {
    let count_all = |pointers: &[&str]| -> u64 {
        let counts = pointers.iter().map(|pointer| count(stats, pointer));
        counts.sum()
    };
    let by_reason = |of: &Value, name: &str| -> u64 {
        let counts = of[name].as_object().expect("counters by their reasons");
        counts.values().filter_map(Value::as_u64).sum()
    };
    let pushed = count(stats, "/inbox/pushed");
    let mut sums = vec![
        (
            "accepted connections",
            count(stats, "/accepted"),
            count_all(&["/kept", "/knocks", "/pending"]) + by_reason(stats, "rejected"),
        ),
        (
            "links",
            count(stats, "/ups"),
            by_reason(stats, "downs") + linked(stats) + count(stats, "/leaving"),
        ),
        ("frames", pushed, count(stats, "/received/frames")),
        (
            "printed frames",
            pushed,
            count_all(&["/inbox/taken", "/inbox/dropped", "/inbox/waiting"]),
        ),
    ];
    for one in peers(stats).iter().chain([stats]) {
        let counts = ["written", "superseded", "discarded", "waiting"];
        let sum = counts.map(|name| count(one, &format!("/sent/{name}")));
        sums.push((
            "sent frames",
            count(one, "/sent/accepted"),
            sum.iter().sum(),
        ));
    }
    for peer in peers(stats) {
        let ended = by_reason(peer, "downs") + u64::from(peer["linked"] == true);
        sums.push(("links of a peer", count(peer, "/ups"), ended));
    }
    let (what, one, other) = sums.into_iter().find(|(_, one, other)| one != other)?;
    Some(format!("{what}: {one} and {other}, in {stats}"))
}
