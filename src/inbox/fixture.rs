//! Entries for tests.
//!
//! Nothing here is in the library.

use super::shares::{Entry, Room};

impl Room {
    pub(super) fn for_items(items: usize) -> Self {
        let bytes = usize::MAX;
        Self { items, bytes }
    }
}

/// An entry of consecutive numbers, for the tests.
impl Entry for std::ops::Range<u8> {
    type Item = u8;
    type Owner = ();

    fn owner(&self) {}

    fn emptied(&self) -> Self {
        0..0
    }

    fn items(&self) -> usize {
        self.len()
    }

    fn take(&mut self) -> u8 {
        self.next().expect("an entry holds something")
    }

    fn drop_oldest(&mut self, items: usize) {
        self.start += items as u8;
    }

    /// Like a run: all of the memory is held until the last item is taken.
    fn held(&self) -> usize {
        usize::from(self.end)
    }
}

/// An entry of several owners, for the tests: `(owner, first item, number of items)`.
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
