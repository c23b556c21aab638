//! From the weights that a policy gives to whole numbers that a rotation takes.

use super::rotation::WEIGHT_MAX;
use crate::policy::Weight;

/// The share of each replica, in the order of the names. The largest is at most [`WEIGHT_MAX`]; whoever has a weight has a
/// share, and whom the policy did not name has `ordinary`.
pub fn shares(names: &[&str], weights: &[Weight], ordinary: u32) -> Vec<u32> {
    let of = |name: &str| weights.iter().find(|weight| *weight.name == *name).map(|w| w.weight);
    let all: Vec<f64> = names.iter().map(|name| of(name).unwrap_or(ordinary.into())).collect();
    let largest = all.iter().copied().fold(0.0, f64::max);
    let scale = if largest > f64::from(WEIGHT_MAX) { f64::from(WEIGHT_MAX) / largest } else { 1.0 };
    let share = |weight: f64| match weight > 0.0 {
        // Within the range: scaled to it.
        true => ((weight * scale).round() as u32).clamp(1, WEIGHT_MAX),
        false => 0,
    };
    all.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::POLICY_WEIGHT_MAX;
    use proptest::prelude::*;

    fn weight(name: &str, weight: f64) -> Weight {
        Weight { name: name.into(), weight }
    }

    #[test]
    fn small_weights_stay_as_they_are_and_large_ones_keep_their_ratio() {
        let names = ["a", "b", "c"];
        let shares = |weights: &[Weight]| super::shares(&names, weights, 100);
        assert_eq!(shares(&[weight("b", 50.4), weight("a", 0.0)]), [0, 50, 100]);
        assert_eq!(shares(&[weight("a", 4e5), weight("b", 1e5), weight("c", 0.1)]), [1000, 250, 1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 36: who has more weight has no smaller share, and nobody's share is lost.
        #[test]
        fn shares_follow_weights(
            given in prop::collection::vec(0.0..POLICY_WEIGHT_MAX, 1..6),
        ) {
            let names: Vec<String> = (0..given.len()).map(|n| format!("r{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let weights: Vec<Weight> =
                names.iter().zip(&given).map(|(name, given)| weight(name, *given)).collect();
            let shares = shares(&names, &weights, 100);
            for (a, share) in given.iter().zip(&shares) {
                prop_assert!(*share <= WEIGHT_MAX && (*share > 0) == (*a > 0.0));
                for (b, other) in given.iter().zip(&shares) {
                    prop_assert!(a > b || share <= other || a == b);
                }
            }
        }
    }
}
