//! Questions that advisors ask of a batch, and suggestions in a few words.

use crate::types::{
    Batch, Confidence, Fingerprint, IndexKey, IndexMethod, SlowShape, Suggestion, TableStatistics,
    TableUse,
};

impl Batch {
    /// Each use of a table that statistics are known of, with its shape.
    pub fn uses(&self) -> impl Iterator<Item = (&SlowShape, &TableUse, &TableStatistics)> {
        let uses = self
            .shapes
            .iter()
            .flat_map(|slow| slow.shape.tables.iter().map(move |used| (slow, used)));
        uses.filter_map(|(slow, used)| Some((slow, used, self.table(used)?)))
    }

    /// The statistics of a table that a statement names.
    pub fn table(&self, used: &TableUse) -> Option<&TableStatistics> {
        let is_it = |table: &&TableStatistics| {
            table.name == used.name && used.schema.as_ref().is_none_or(|own| *own == table.schema)
        };
        self.tables.iter().find(is_it)
    }
}

impl TableStatistics {
    /// Distinct values of a column; 0 when nothing is known.
    pub fn distinct(&self, column: &str) -> f64 {
        self.columns.iter().find(|own| own.name == column).map_or(0.0, |own| own.distinct)
    }

    /// Has the table this column? What a text says may be the name of something else.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own.name == column)
    }

    /// Is there an index over all rows that begins with these columns in this order?
    pub fn is_covered(&self, columns: &[&str]) -> bool {
        self.indexes.iter().any(|index| {
            let is_tree = index.method == IndexMethod::Btree && !index.partial;
            is_tree
                && index.columns.len() >= columns.len()
                && index.columns.iter().zip(columns).all(|(a, b)| a == b)
        })
    }

    /// A tree index on these columns.
    pub fn suggest(&self, columns: &[&str], shape: Fingerprint) -> Suggestion {
        Suggestion {
            schema: self.schema.clone(),
            table: self.name.clone(),
            method: IndexMethod::Btree,
            keys: columns.iter().copied().map(IndexKey::column).collect(),
            include: Vec::new(),
            predicate: None,
            shapes: vec![shape],
            confidence: Confidence::Verifiable,
            reason: format!("statements compare, join or order by {}", columns.join(", ")),
        }
    }
}

impl Suggestion {
    /// Adds it, or its shapes to one that is the same index already.
    pub fn add_to(self, suggestions: &mut Vec<Suggestion>) {
        let same = |other: &&mut Suggestion| {
            other.schema == self.schema
                && other.table == self.table
                && other.method == self.method
                && other.keys == self.keys
                && other.include == self.include
                && other.predicate == self.predicate
        };
        match suggestions.iter_mut().find(same) {
            Some(other) => {
                for shape in self.shapes {
                    if !other.shapes.contains(&shape) {
                        other.shapes.push(shape);
                    }
                }
            }
            None => suggestions.push(self),
        }
    }
}
