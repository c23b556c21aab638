//! Questions that policies ask of shapes and identities.

use crate::types::{Access, ColumnUse, Comparison, Identity, Operand, Shape, TableUse};

impl Shape {
    /// Reads, locks nothing, and was understood. What its functions and views do, the host judges.
    pub fn reads_only(&self) -> bool {
        self.access == Access::Reads && !self.locks && self.incomplete.is_none()
    }

    /// Names a table of the schema.
    pub fn uses_schema(&self, schema: &str) -> bool {
        self.tables.iter().any(|table| table.schema.as_deref() == Some(schema))
    }

    /// Names the table, given as `table` or `schema.table`.
    pub fn uses_table(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table.is(name))
    }

    /// The value of a tag that belongs to the shape.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }
}

impl TableUse {
    /// Is it the table, given as `table` (in any schema) or `schema.table`?
    pub fn is(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some((schema, table)) => {
                self.name == table && self.schema.as_deref().is_none_or(|own| own == schema)
            }
            None => self.name == name,
        }
    }

    /// `schema.table`, or `table` where the statement leaves it to the search path.
    pub fn full_name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}", self.name),
            None => self.name.clone(),
        }
    }

    /// The parameter that the column of every row must be equal to.
    pub fn parameter_of(&self, column: &str) -> Option<u16> {
        let equal =
            |usage: &&ColumnUse| usage.column == column && usage.comparison == Comparison::Equal;
        self.columns.iter().filter(equal).find_map(|usage| match usage.by {
            Operand::Parameter(number) => Some(number),
            _ => None,
        })
    }

    /// Tags for a result that this table went into: all its rows, or the row that a column is equal to.
    pub fn tags_of_read(&self, row: Option<&str>) -> Vec<String> {
        match self.row_tag(row) {
            Some(row) => vec![row, format!("{}:rows", self.name)],
            None => vec![format!("{}:any", self.name)],
        }
    }

    /// Is it a target of INSERT, UPDATE, …?
    pub fn is_written(&self) -> bool {
        self.access != Access::Reads
    }

    /// Tags of the results that a write to this table changes; none for a table that is only read. With the column
    /// known: those of one row, and those of many. Else all.
    pub fn tags_of_write(&self, row: Option<&str>) -> Vec<String> {
        if !self.is_written() {
            return Vec::new();
        }
        let is_moved = self.columns.iter().any(|used| {
            Some(used.column.as_str()) == row && used.comparison == Comparison::Assigned
        });
        let row = self.row_tag(row).filter(|_| !is_moved);
        vec![row.unwrap_or_else(|| format!("{}:rows", self.name)), format!("{}:any", self.name)]
    }

    fn row_tag(&self, row: Option<&str>) -> Option<String> {
        let number = self.parameter_of(row?)?;
        Some(format!("{}:row:{{{number}}}", self.name))
    }

    /// Columns that are compared in one of these ways, each once, in the order of the statement.
    pub fn compared(&self, ways: &[Comparison]) -> Vec<&str> {
        let mut found = Vec::new();
        for usage in &self.columns {
            if ways.contains(&usage.comparison) && !found.contains(&usage.column.as_str()) {
                found.push(usage.column.as_str());
            }
        }
        found
    }
}

impl Identity {
    /// The value of a tag of the execution.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    /// Is the user or one of its roles in the list? The end user is whom the application says, so it proves nothing.
    pub fn is_any_of(&self, names: &[String]) -> bool {
        let mut own = std::iter::once(&self.user).chain(&self.roles);
        own.any(|name| names.contains(name))
    }
}
