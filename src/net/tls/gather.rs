//! Takes parts of a list of buffers.
//!
//! Nothing here copies.

use std::io::IoSlice;

/// A place in a list of buffers.
#[derive(Debug)]
pub(super) struct Gather<'a, 'b> {
    bufs: &'a [IoSlice<'b>],
    /// How many bytes of the first buffer were taken.
    taken: usize,
}

impl<'a, 'b> Gather<'a, 'b> {
    /// Begins after the first `skip` bytes.
    pub(super) fn new(bufs: &'a [IoSlice<'b>], skip: usize) -> Self {
        let mut gather = Self { bufs, taken: 0 };
        gather.skip(skip);
        gather
    }

    fn skip(&mut self, mut bytes: usize) {
        while let [first, rest @ ..] = self.bufs {
            let left = first.len() - self.taken;
            if bytes < left {
                self.taken += bytes;
                return;
            }
            bytes -= left;
            self.bufs = rest;
            self.taken = 0;
        }
    }

    /// Takes the next bytes, at most `bytes` of them, as slices in `into`. Returns the number of slices and of bytes. It takes fewer
    /// bytes if there are no more slices.
    pub(super) fn take(&mut self, bytes: usize, into: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut count, mut len) = (0, 0);
        while let (Some(first), true) = (self.bufs.first(), count < into.len() && len < bytes) {
            let rest = &first[self.taken..];
            let part = &rest[..rest.len().min(bytes - len)];
            if !part.is_empty() {
                into[count] = IoSlice::new(part);
                count += 1;
                len += part.len();
            }
            // Passes empty buffers, too.
            self.skip(part.len());
        }
        (count, len)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_follow_each_other(
            bufs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            skip in 0usize..40,
            bytes in 1usize..20,
            slices in 1usize..4,
        ) {
            let whole: Vec<u8> = bufs.concat();
            let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
            let mut gather = Gather::new(&bufs, skip);
            let mut taken = Vec::new();
            loop {
                let mut into = vec![IoSlice::new(&[]); slices];
                let (count, len) = gather.take(bytes, &mut into);
                let part = into[..count].iter().flat_map(|slice| slice.iter().copied());
                let before = taken.len();
                taken.extend(part);
                prop_assert_eq!(taken.len() - before, len);
                prop_assert!(len <= bytes);
                if len == 0 {
                    break;
                }
            }
            prop_assert_eq!(&taken[..], whole.get(skip..).unwrap_or_default());
        }
    }
}
