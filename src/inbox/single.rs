//! An entry of one item, such as an event.
//!
//! Nothing here packs several items into one entry.
//!
//! Invariants:
//!
//! - `item` is `None` exactly when the item was taken, or when the entry was made by `emptied`.
//! - The queue takes an item only from an entry that has one.

use super::{shares::Entry, source::Owner};

/// An entry of one item.
#[derive(Debug)]
pub(crate) struct Single<T> {
    owner: Owner,
    item: Option<T>,
}

impl<T> Single<T> {
    pub(crate) fn new(owner: Owner, item: T) -> Self {
        let item = Some(item);
        Self { owner, item }
    }
}

impl<T> Entry for Single<T> {
    type Item = T;
    type Owner = Owner;

    fn owner(&self) -> Owner {
        self.owner
    }

    fn emptied(&self) -> Self {
        Self {
            owner: self.owner,
            item: None,
        }
    }

    fn items(&self) -> usize {
        usize::from(self.item.is_some())
    }

    fn take(&mut self) -> T {
        self.item.take().expect("it is taken once")
    }

    // Never called: the queue uses it to drop a part of an entry, and drops an entry of one item as a whole.
    fn drop_oldest(&mut self, _: usize) {}

    /// 0: the limit of their number also bounds their memory.
    fn held(&self) -> usize {
        0
    }
}
