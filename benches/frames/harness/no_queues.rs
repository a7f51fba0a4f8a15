//! Stands for `queues` where there is no `sock_diag(7)`.

/// A connection whose queues are not known.
pub(super) struct Queues;

impl Queues {
    pub(super) fn find(_: &str) -> Option<Self> {
        None
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        None
    }
}
