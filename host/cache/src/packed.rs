//! Answers as they are kept: large ones compressed, where that makes them smaller.
//!
//! ```text
//!  Answer ── at least so long, and LZ4 saves enough ──▶ Packed ── open ──▶ the same Answer, or nothing
//!    └────── otherwise ──▶ Plain ── open ──▶ itself
//! ```
//!
//! A packed answer is opened into as many bytes as it had, never more: a length that does not fit, as of a value that somebody else
//! has put, opens nothing.

use crate::capture::Answer;
use std::borrow::Cow;
use std::sync::Arc;
use tidegate_core::limits::POLICY_RESULT_BYTES_MAX;

/// What is packed saves at least one byte in so many; each hit costs the time to open it.
const SAVING_DIVISOR: usize = 8;

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As it came.
    Plain(Answer),
    /// Compressed.
    Packed(Packed),
}

/// An answer as a block of LZ4's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    bytes: Box<[u8]>,
    /// Of what it is opened into: all of it, and where the rows begin.
    length: usize,
    rows_at: usize,
}

impl Stored {
    /// Keeps an answer of at least `pack_min` bytes compressed, if that saves enough. `None`: none is.
    pub fn new(answer: Answer, pack_min: Option<usize>) -> Self {
        let length = answer.bytes();
        if pack_min.is_none_or(|least| length < least.max(1)) {
            return Self::Plain(answer);
        }
        let bytes = lz4_flex::block::compress(answer.as_bytes());
        if bytes.len() > length - length / SAVING_DIVISOR {
            return Self::Plain(answer);
        }
        let rows_at = answer.description().len();
        Self::Packed(Packed { bytes: bytes.into(), length, rows_at })
    }

    /// From parts as [`Self::parts`] gives them, wherever they have been since. `None`: they do not fit together. Whether what is
    /// compressed is whole shows when it is opened.
    pub fn from_parts(bytes: &[u8], rows_at: usize, packed_length: usize) -> Option<Self> {
        if packed_length == 0 {
            return Answer::new(bytes, rows_at).map(Self::Plain);
        }
        let fits = packed_length <= POLICY_RESULT_BYTES_MAX && rows_at <= packed_length;
        let bytes = bytes.into();
        fits.then_some(Self::Packed(Packed { bytes, length: packed_length, rows_at }))
    }

    /// The bytes that are kept; where the rows begin in what they are opened into; and how long that is, or 0 if they are it.
    pub fn parts(&self) -> (&[u8], usize, usize) {
        match self {
            Self::Plain(answer) => (answer.as_bytes(), answer.description().len(), 0),
            Self::Packed(packed) => (&packed.bytes, packed.rows_at, packed.length),
        }
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Plain(answer) => answer.bytes(),
            Self::Packed(packed) => packed.bytes.len(),
        }
    }

    /// What it takes less than it would as it came.
    pub fn saved(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Packed(packed) => packed.length.saturating_sub(packed.bytes.len()),
        }
    }

    /// The answer as it came. `None`: what is kept is damaged.
    pub fn open(&self) -> Option<Cow<'_, Answer>> {
        let packed = match self {
            Self::Plain(answer) => return Some(Cow::Borrowed(answer)),
            Self::Packed(packed) => packed,
        };
        let mut bytes = vec![0; packed.length];
        match lz4_flex::block::decompress_into(&packed.bytes, &mut bytes) {
            Ok(length) if length == packed.length => {
                Answer::owned(bytes, packed.rows_at).map(Cow::Owned)
            }
            Ok(_) | Err(_) => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn rows(&self) -> &[u8] {
        match self {
            Self::Plain(answer) => answer.rows(),
            Self::Packed(_) => panic!("it is packed"),
        }
    }
}

impl From<Answer> for Arc<Stored> {
    fn from(answer: Answer) -> Self {
        Arc::new(Stored::Plain(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEAST: usize = 64;

    /// Some that compress well, some not at all, some in between.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            (prop::collection::vec(any::<u8>(), 1..40), 1..60_usize)
                .prop_map(|(piece, times)| piece.repeat(times)),
            prop::collection::vec(0..4_u8, 0..2_000),
        ]
    }

    #[test]
    fn what_it_does_not_shrink_and_what_is_small_is_kept_as_it_is() {
        let of = |bytes: &[u8], least| Stored::new(Answer::new(bytes, 0).unwrap(), least);
        let noise: Vec<u8> = (0..4_096)
            .scan(7_u64, |state, _| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                Some((*state >> 40) as u8)
            })
            .collect();
        assert!(matches!(of(&noise, Some(LEAST)), Stored::Plain(_)));
        assert!(matches!(of(&[7; LEAST - 1], Some(LEAST)), Stored::Plain(_)));
        assert!(matches!(of(&[7; 10 * LEAST], None), Stored::Plain(_)));
        let packed = of(&[7; 10 * LEAST], Some(LEAST));
        assert!(matches!(packed, Stored::Packed(_)));
        assert!(packed.bytes() < LEAST && packed.bytes() + packed.saved() == 10 * LEAST);
    }

    #[test]
    fn no_length_of_another_s_is_believed() {
        let answer = Answer::new(&[7; 1_000], 10).unwrap();
        let packed = Stored::new(answer.clone(), Some(LEAST));
        let (bytes, rows_at, length) = packed.parts();
        let whole = Stored::from_parts(bytes, rows_at, length).unwrap();
        assert_eq!(*whole.open().unwrap(), answer);
        for wrong in [1, 10, 999, 1_001, POLICY_RESULT_BYTES_MAX] {
            let stored = Stored::from_parts(bytes, rows_at, wrong);
            assert!(stored.is_none_or(|stored| stored.open().is_none()), "{wrong}");
        }
        assert_eq!(Stored::from_parts(bytes, rows_at, POLICY_RESULT_BYTES_MAX + 1), None);
        assert_eq!(Stored::from_parts(bytes, length + 1, length), None);
        assert_eq!(Stored::from_parts(b"xy", 3, 0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 17: what comes back is what the server sent, compressed or not, here or by way of others; it takes no more than
        // as it came; and what is damaged on the way is nothing, or of the same length.
        #[test]
        fn an_answer_is_opened_as_it_came(bytes in bytes(), at in any::<prop::sample::Index>(), harm in any::<(prop::sample::Index, u8)>()) {
            let rows_at = at.index(bytes.len() + 1);
            let answer = Answer::new(&bytes, rows_at).unwrap();
            let stored = Stored::new(answer.clone(), Some(LEAST));
            prop_assert!(stored.bytes() <= bytes.len());
            prop_assert_eq!(&*stored.open().unwrap(), &answer);
            let (kept, rows_at, length) = stored.parts();
            let elsewhere = Stored::from_parts(kept, rows_at, length).unwrap();
            prop_assert_eq!(&*elsewhere.open().unwrap(), &answer);
            if length > 0 {
                let mut kept = kept.to_vec();
                let place = harm.0.index(kept.len());
                kept[place] ^= harm.1;
                let damaged = Stored::from_parts(&kept, rows_at, length).unwrap();
                prop_assert!(damaged.open().is_none_or(|answer| answer.bytes() == bytes.len()));
                let cut = Stored::from_parts(&kept[..place], rows_at, length).unwrap();
                prop_assert!(cut.open().is_none_or(|answer| answer.bytes() == bytes.len()));
            }
        }
    }
}
