//! Smooth weighted round-robin: in every window each member has its share, and no member comes in bursts.
//!
//! The algorithm is that of nginx's upstream module: all members gain their weight, the richest is chosen and pays the sum.

/// The largest weight; larger ones are cut.
pub const WEIGHT_MAX: u32 = 1000;

/// Whose turn it is. One per worker.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    credit: Vec<i64>,
}

impl Rotation {
    /// The next among members with these weights; those of weight 0 are left out, and `None` when all are.
    ///
    /// The weights may change from turn to turn; credit of a member that is left out does not grow meanwhile.
    pub fn next(&mut self, weights: &[u32]) -> Option<usize> {
        self.credit.resize(weights.len(), 0);
        let cut = |weight: u32| i64::from(weight.min(WEIGHT_MAX));
        let sum: i64 = weights.iter().copied().map(cut).sum();
        let mut best: Option<(usize, i64)> = None;
        for (index, (credit, &weight)) in self.credit.iter_mut().zip(weights).enumerate() {
            if weight == 0 {
                *credit = 0;
                continue;
            }
            // Within the sum anyway while the weights stay; what larger weights left is cut.
            *credit = (*credit).clamp(-sum, sum) + cut(weight);
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (chosen, _) = best?;
        if let Some(credit) = self.credit.get_mut(chosen) {
            *credit -= sum;
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_are_spread() {
        let mut rotation = Rotation::default();
        let turns: Vec<_> = (0..7).filter_map(|_| rotation.next(&[5, 1, 1])).collect();
        assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn nobody_is_chosen_without_weight() {
        let mut rotation = Rotation::default();
        assert_eq!(rotation.next(&[]), None);
        assert_eq!(rotation.next(&[0, 0]), None);
        assert_eq!(rotation.next(&[0, 3]), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 35: over one cycle of the sum of weights each member is chosen as often as its weight says.
        #[test]
        fn each_has_its_share(weights in proptest::collection::vec(0..20_u32, 1..8)) {
            let mut rotation = Rotation::default();
            let sum: u32 = weights.iter().sum();
            let mut chosen = vec![0_u32; weights.len()];
            for _ in 0..sum {
                if let Some(index) = rotation.next(&weights) {
                    chosen[index] += 1;
                }
            }
            prop_assert_eq!(chosen, weights);
        }

        // Property 35: whatever the weights were before, a fixed set of weights is soon followed.
        #[test]
        fn weights_may_change(
            before in proptest::collection::vec(0..1000_u32, 3), after in proptest::collection::vec(1..20_u32, 3),
        ) {
            let mut rotation = Rotation::default();
            for _ in 0..50 {
                rotation.next(&before);
            }
            let sum: u32 = after.iter().sum();
            let mut chosen = [0_u32; 3];
            for _ in 0..sum * 20 {
                let index = rotation.next(&after);
                prop_assert!(index.is_some());
                chosen[index.unwrap_or(0)] += 1;
            }
            for (times, weight) in chosen.iter().zip(&after) {
                // What the old weights left is worth a turn for each of the members at most, and as much again.
                prop_assert!(times.abs_diff(weight * 20) <= 6, "{chosen:?} {after:?}");
            }
        }
    }
}
