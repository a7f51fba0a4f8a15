//! Entries for tests.
//!
//! Nothing here is in the library.

use std::ops::Range;

use super::{
    fair_queue::{Inbox, Nothing, Wait},
    shares::{Entry, Room},
};

impl Room {
    pub(super) fn for_items(items: usize) -> Self {
        let bytes = usize::MAX;
        Self { items, bytes }
    }
}

/// An entry of consecutive numbers: `(owner, first item, number of items)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Of(pub(super) char, pub(super) u64, pub(super) usize);

impl Entry for Of {
    type Item = (char, u64);
    type Owner = char;

    fn owner(&self) -> char {
        self.0
    }

    fn items(&self) -> usize {
        self.2
    }

    fn take(&mut self) -> (char, u64) {
        self.drop_oldest(1);
        (self.0, self.1 - 1)
    }

    fn drop_oldest(&mut self, items: usize) {
        self.1 += items as u64;
        self.2 -= items;
    }

    fn held(&self) -> usize {
        // The same until the last item is taken.
        usize::from(self.2 > 0) * 8
    }

    fn emptied(&self) -> Self {
        Self(self.0, self.1, 0)
    }
}

/// An entry of an owner that has the inbox for itself.
pub(super) fn run(items: Range<u64>) -> Of {
    Of('a', items.start, items.count())
}

/// Takes an item of such an owner.
pub(super) fn pop(inbox: &Inbox<Of>, wait: Wait) -> Result<u64, Nothing> {
    inbox.pop(wait).map(|popped| popped.taken.1)
}
