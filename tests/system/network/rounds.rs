//! How much is done: a short run, or a long one that `NETWORK_ROUNDS` asks for.
//!
//! Nothing here runs.

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

/// How many members a mesh has that has so many in a short run.
pub(crate) fn members(short: i64) -> i64 {
    if is_long() { 9 } else { short }
}

/// Who is struck: the one in the middle, who both dials and knocks; in a long run each in turn, so that the smallest and the
/// largest have their rounds too.
pub(crate) fn victims(all: &[i64]) -> Vec<i64> {
    if is_long() {
        (0..rounds()).map(|round| all[round % all.len()]).collect()
    } else {
        vec![all[all.len() / 2]]
    }
}
