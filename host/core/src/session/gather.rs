//! What goes out next in one direction: ranges of the input buffer and bytes of our own, in order, without copying.

/// What an idle gather keeps.
const KEPT_SEGMENTS: usize = 4;
const KEPT_BYTES: usize = 64;

/// A run of bytes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes `start..end` of the buffer that was read from the other side.
    Input { start: usize, end: usize },
    /// Bytes `start..end` of [`Gather::own_bytes`].
    Own { start: usize, end: usize },
}

/// An ordered list of segments. Neighbours are joined, so forwarding a whole buffer is one segment and one write.
#[derive(Debug, Default)]
pub struct Gather {
    segments: Vec<Segment>,
    own: Vec<u8>,
    bytes: usize,
}

impl Gather {
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait to be sent.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub fn own_bytes(&self) -> &[u8] {
        &self.own
    }

    /// Forwards bytes `start..end` of the input buffer.
    #[inline]
    pub fn forward(&mut self, start: usize, end: usize) {
        if start == end {
            return;
        }
        self.bytes += end - start;
        if let Some(Segment::Input { end: last_end, .. }) = self.segments.last_mut()
            && *last_end == start
        {
            *last_end = end;
            return;
        }
        self.segments.push(Segment::Input { start, end });
    }

    /// Sends what `write` appends.
    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.own.len();
        write(&mut self.own);
        let end = self.own.len();
        if start == end {
            return;
        }
        self.bytes += end - start;
        if let Some(Segment::Own { end: last_end, .. }) = self.segments.last_mut()
            && *last_end == start
        {
            *last_end = end;
            return;
        }
        self.segments.push(Segment::Own { start, end });
    }

    /// Notes that the first `count` bytes have been sent.
    pub fn sent(&mut self, mut count: usize) {
        debug_assert!(count <= self.bytes);
        self.bytes -= count.min(self.bytes);
        if self.bytes == 0 {
            self.segments.clear();
            self.own.clear();
            return;
        }
        let mut whole = 0;
        for segment in &mut self.segments {
            let (Segment::Input { start, end } | Segment::Own { start, end }) = segment;
            if count < *end - *start {
                *start += count;
                break;
            }
            count -= *end - *start;
            whole += 1;
        }
        self.segments.drain(..whole);
    }

    /// Visits the bytes behind the first `mark`, in order.
    pub fn each_after(&self, mark: usize, input: &[u8], mut visit: impl FnMut(&[u8])) {
        let mut at = 0;
        for segment in &self.segments {
            let (bytes, start, end) = match *segment {
                Segment::Input { start, end } => (input, start, end),
                Segment::Own { start, end } => (&self.own[..], start, end),
            };
            let skipped = mark.saturating_sub(at).min(end - start);
            at += end - start;
            if let Some(rest) = bytes.get(start + skipped..end).filter(|rest| !rest.is_empty()) {
                visit(rest);
            }
        }
    }

    /// Takes out `count` bytes behind the first `mark`.
    pub fn drop_after(&mut self, mark: usize, count: usize) {
        let mut left = Vec::with_capacity(self.segments.len() + 1);
        let (mut at, last) = (0, mark + count);
        for segment in &self.segments {
            let (Segment::Input { start, end } | Segment::Own { start, end }) = *segment;
            let bytes = end - start;
            let before = mark.saturating_sub(at).min(bytes);
            let behind = (at + bytes).saturating_sub(last.max(at)).min(bytes - before);
            for (start, end) in [(start, start + before), (end - behind, end)] {
                let part = match segment {
                    Segment::Input { .. } => Segment::Input { start, end },
                    Segment::Own { .. } => Segment::Own { start, end },
                };
                if start < end {
                    left.push(part);
                }
            }
            self.bytes -= bytes - before - behind;
            at += bytes;
        }
        self.segments = left;
        if self.bytes == 0 {
            self.clear();
        }
    }

    /// Forgets everything: the other side is gone.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.segments.clear();
        self.own.clear();
    }

    /// Gives memory back when nothing waits, but for a little that would be taken again at once.
    pub fn shrink(&mut self) {
        if self.bytes == 0 {
            self.segments.shrink_to(KEPT_SEGMENTS);
            self.own.shrink_to(KEPT_BYTES);
        }
    }

    /// All bytes in order; for tests.
    pub fn to_bytes(&self, input: &[u8]) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.bytes);
        for segment in &self.segments {
            match *segment {
                Segment::Input { start, end } => all.extend_from_slice(&input[start..end]),
                Segment::Own { start, end } => all.extend_from_slice(&self.own[start..end]),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_are_joined() {
        let mut gather = Gather::default();
        gather.forward(0, 4);
        gather.forward(4, 9);
        gather.send(|out| out.push(1));
        gather.send(|out| out.push(2));
        assert_eq!(gather.segments().len(), 2);
        assert_eq!(gather.to_bytes(b"abcdefghi"), b"abcdefghi\x01\x02");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn what_is_taken_out_is_gone_and_nothing_else(
            parts in proptest::collection::vec((any::<bool>(), 0_usize..9), 1..9),
            cut in (0_usize..60, 0_usize..60),
        ) {
            let input: Vec<u8> = (0..=255).collect();
            let mut gather = Gather::default();
            let mut at = 0;
            for (own, length) in parts {
                if own {
                    gather.send(|out| out.extend(std::iter::repeat_n(at as u8 ^ 0x55, length)));
                } else {
                    gather.forward(at, at + length);
                }
                at += length;
            }
            let all = gather.to_bytes(&input);
            let mark = cut.0.min(all.len());
            let count = cut.1.min(all.len() - mark);
            let mut behind = Vec::new();
            gather.each_after(mark, &input, |bytes| behind.extend_from_slice(bytes));
            prop_assert_eq!(&behind[..], &all[mark..]);
            gather.drop_after(mark, count);
            let left = [&all[..mark], &all[mark + count..]].concat();
            prop_assert_eq!(gather.bytes(), left.len());
            prop_assert_eq!(gather.to_bytes(&input), left);
        }

        #[test]
        fn partial_sends_lose_nothing_and_repeat_nothing(
            parts in proptest::collection::vec((any::<bool>(), 0_usize..20), 1..12),
            steps in proptest::collection::vec(1_usize..9, 1..80),
        ) {
            let input: Vec<u8> = (0..=255).collect();
            let mut gather = Gather::default();
            let mut expected = Vec::new();
            let mut at = 0;
            for (own, length) in parts {
                if own {
                    let bytes: Vec<u8> = (0..length).map(|n| n as u8 ^ 0x55).collect();
                    gather.send(|out| out.extend_from_slice(&bytes));
                    expected.extend_from_slice(&bytes);
                } else {
                    gather.forward(at, at + length);
                    expected.extend_from_slice(&input[at..at + length]);
                    at += length;
                }
            }
            let mut sent = Vec::new();
            for step in steps {
                let step = step.min(gather.bytes());
                sent.extend_from_slice(&gather.to_bytes(&input)[..step]);
                gather.sent(step);
            }
            sent.extend_from_slice(&gather.to_bytes(&input));
            prop_assert_eq!(sent, expected);
        }
    }
}
