//! The beginning of a large message, kept back from the codec.
//!
//! The codec reserves all that a length announces. Memory that was reserved costs more than nothing
//! where the system hands it out in large pages: a few bytes in front of a large length would take
//! two mebibytes. So the codec sees a large message when half of it is there, and reserves no more
//! than twice of what has come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Messages up to this size are not kept back.
pub(super) const SMALL_MESSAGE_BYTES: usize = 64 << 10;

/// Parts that are smaller are put together: each by itself could keep the whole buffer that it was
/// read into.
const SMALL_PART_BYTES: usize = 4 << 10;

/// Parts of a body in their order.
#[derive(Debug, Default)]
pub(super) struct Held {
    parts: VecDeque<Bytes>,
    /// Small parts that came last.
    tail: BytesMut,
}

impl Held {
    /// Adds what came, if anything.
    pub(super) fn push(&mut self, part: Bytes) {
        if part.len() < SMALL_PART_BYTES {
            self.tail.extend_from_slice(&part);
            return;
        }
        self.close_tail();
        self.parts.push_back(part);
    }

    /// Takes what came first.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.parts.pop_front().or_else(|| {
            self.close_tail();
            self.parts.pop_front()
        })
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.tail.is_empty()
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.parts.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_out_in_their_order_and_small_ones_together() {
        let large = Bytes::from(vec![7; SMALL_PART_BYTES]);
        let mut held = Held::default();
        for part in [Bytes::from_static(b"a"), Bytes::from_static(b"b"), large.clone()] {
            held.push(part);
        }
        held.push(Bytes::from_static(b"c"));
        assert!(!held.is_empty());
        assert_eq!(held.pop().unwrap(), "ab");
        assert_eq!(held.pop().unwrap(), large);
        assert_eq!(held.pop().unwrap(), "c");
        assert!(held.pop().is_none() && held.is_empty());
    }
}
