//! What `pg_current_snapshot()` says: which transactions are over, for everybody who begins to read from now on.

/// Transactions that run at the same time, as far as is read.
const RUNNING_MAX: usize = 100_000;

/// A snapshot of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All before this one are over.
    oldest: u64,
    /// None from this one on is.
    next: u64,
    /// Those between that are not; in order.
    running: Box<[u64]>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip`.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (oldest, next, list) = (parts.next()?, parts.next()?, parts.next()?);
        let (oldest, next) = (oldest.parse().ok()?, next.parse().ok()?);
        let mut running = Vec::new();
        for xid in list.split(',').filter(|xid| !xid.is_empty()) {
            running.push(xid.parse().ok()?);
            if running.len() > RUNNING_MAX {
                return None;
            }
        }
        running.sort_unstable();
        let good = parts.next().is_none()
            && oldest <= next
            && running.iter().all(|xid| (oldest..next).contains(xid));
        good.then(|| Self { oldest, next, running: running.into() })
    }

    #[cfg(test)]
    pub(crate) fn describe(&self) -> Vec<u64> {
        [&[self.oldest, self.next], &self.running[..]].concat()
    }

    /// Are all over that ran when the other was taken?
    pub(super) fn is_past(&self, other: &Self) -> bool {
        self.oldest >= other.next
    }

    /// Is it over? The number is of a transaction of not long ago, in 32 bits.
    pub(super) fn is_over(&self, xid: u32) -> bool {
        const ROUND: u64 = 1 << 32;
        // The one that is nearest.
        let near = (self.next & !(ROUND - 1)) | u64::from(xid);
        let full = if near > self.next.saturating_add(ROUND / 2) {
            near.checked_sub(ROUND)
        } else if near + ROUND / 2 < self.next {
            near.checked_add(ROUND)
        } else {
            Some(near)
        };
        full.is_some_and(|full| full < self.next && self.running.binary_search(&full).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_read_as_postgresql_writes_it() {
        let snapshot = Snapshot::read("10:20:10,14,15").unwrap();
        let over: Vec<u32> = (8..22).filter(|xid| snapshot.is_over(*xid)).collect();
        assert_eq!(over, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        assert!(Snapshot::read("789:789:").unwrap().is_over(788));
        for bad in ["", "1", "1:2", "2:1:", "1:2:x", "1:5:7", "3:5:2", "1:2::", "-1:2:", "a:b:"] {
            assert_eq!(Snapshot::read(bad), None, "{bad}");
        }
        let other = |text| Snapshot::read(text).unwrap();
        assert!(other("20:30:20").is_past(&snapshot) && !other("19:30:19").is_past(&snapshot));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 20: a transaction is over exactly if the snapshot says so, wherever the counter has wrapped.
        #[test]
        fn numbers_of_32_bits_are_those_of_64(
            next in 3..u64::MAX / 2, back in 0..1_000_u64, ahead in 0..1_000_u64, runs in any::<bool>(),
        ) {
            let xid = next.saturating_sub(back);
            let running = if runs && xid < next { xid.to_string() } else { String::new() };
            let oldest = xid.min(next);
            let snapshot = Snapshot::read(&format!("{oldest}:{next}:{running}")).unwrap();
            prop_assert_eq!(snapshot.is_over(xid as u32), xid < next && !runs);
            prop_assert!(!snapshot.is_over((next + ahead) as u32));
        }
    }
}
