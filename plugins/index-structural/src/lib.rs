//! Index candidates from what statements compare, order and join by.

use Comparison::{Equal, InList, Join, Null, Order, Range};
use tidegate_sdk::prelude::*;

/// Settings.
#[derive(Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct Structural {
    /// Smaller tables are read as a whole anyway.
    rows_min: f64,
    columns_max: usize,
}

impl Default for Structural {
    fn default() -> Structural {
        Structural { rows_min: 500.0, columns_max: 3 }
    }
}

impl Policy for Structural {}

impl Structural {
    /// Columns by how they are compared, the most telling first, in the orders that have paid.
    fn candidates<'a>(&self, used: &'a TableUse, known: &TableStatistics) -> Vec<Vec<&'a str>> {
        let compared = |ways: &[Comparison]| {
            let columns = used.compared(ways).into_iter();
            columns.filter(|column| known.has(column)).collect::<Vec<&str>>()
        };
        let mut equal = compared(&[Equal, InList, Null]);
        equal.sort_by(|a, b| known.distinct(b).total_cmp(&known.distinct(a)));
        let (range, order, join) = (compared(&[Range]), compared(&[Order]), compared(&[Join]));
        let first = |columns: &[&'a str], most: usize| columns[..columns.len().min(most)].to_vec();
        let mut all = vec![equal.clone(), first(&equal, 1), first(&equal, 2), first(&join, 1)];
        all.push([&equal[..], &first(&range, 1)].concat());
        all.push([&equal[..], &first(&order, 2)].concat());
        all.push([&first(&join, 1)[..], &equal].concat());
        all.push([&equal[..], &first(&join, 1)].concat());
        all.retain(|columns| !columns.is_empty() && columns.len() <= self.columns_max);
        all.retain(|columns| !known.is_covered(columns));
        all
    }
}

impl Advising for Structural {
    fn advise(&self, batch: &Batch) -> Vec<Suggestion> {
        let mut found: Vec<Suggestion> = Vec::new();
        for (slow, used, known) in batch.uses().filter(|(.., t)| t.rows >= self.rows_min) {
            for columns in self.candidates(used, known) {
                known.suggest(&columns, slow.shape.fingerprint).add_to(&mut found);
            }
        }
        found
    }
}

tidegate_sdk::register!(advising: Structural);

#[cfg(test)]
mod tests;
