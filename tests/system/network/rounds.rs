//! The length of a run: short, or long if `NETWORK_ROUNDS` is set.

use std::{env, sync::OnceLock};

/// Rounds of every fault.
pub(crate) fn rounds() -> usize {
    static ROUNDS: OnceLock<usize> = OnceLock::new();
    *ROUNDS.get_or_init(|| match env::var("NETWORK_ROUNDS") {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|rounds| *rounds > 0)
            .unwrap_or_else(|| panic!("NETWORK_ROUNDS is no number of rounds: {text}")),
        Err(_) => 1,
    })
}

pub(crate) fn is_long() -> bool {
    rounds() > 1
}

/// The number of members of a mesh that has `short` members in a short run.
pub(crate) fn members(short: i64) -> i64 {
    if is_long() { 9 } else { short }
}

/// The members to which a fault is applied: in a short run the middle one, which both dials and knocks. In a long run each in
/// turn, so that the smallest and the largest are included.
pub(crate) fn victims(all: &[i64]) -> Vec<i64> {
    if is_long() {
        (0..rounds()).map(|round| all[round % all.len()]).collect()
    } else {
        vec![all[all.len() / 2]]
    }
}
