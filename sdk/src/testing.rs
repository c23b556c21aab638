//! For tests of policies, as native code: shapes in a few words, identities, and a host that answers.
//!
//! Here a test says what a shape is. What PostgreSQL's grammar makes of a statement in SQL, and what the compiled policy
//! plans for it, is tested with `tidegate plugin test SLOT FILE.wasm --cases cases.toml`.
//!
//! ```
//! use tidegate_sdk::{testing, types::Comparison};
//!
//! let shape = testing::select("orders").by("id", Comparison::Equal).shape();
//! assert!(shape.reads_only() && shape.tables[0].parameter_of("id") == Some(1));
//! ```

// What answers instead of the host. A policy that is compiled asks the host itself.
#[cfg_attr(target_arch = "wasm32", allow(dead_code))]
pub mod host;

#[cfg(test)]
mod tests;

use crate::types::{
    Access, ColumnUse, Comparison, Fingerprint, Identity, Operand, Shape, StatementKind, TableUse,
    Tag,
};

/// A shape under construction.
#[derive(Clone, Debug)]
pub struct ShapeBuilder {
    shape: Shape,
}

/// `SELECT … FROM table`.
pub fn select(table: &str) -> ShapeBuilder {
    statement(StatementKind::Select, Access::Reads).table(table, Access::Reads)
}

/// `INSERT INTO table`.
pub fn insert(table: &str) -> ShapeBuilder {
    statement(StatementKind::Insert, Access::Writes).table(table, Access::Writes)
}

/// `UPDATE table`.
pub fn update(table: &str) -> ShapeBuilder {
    statement(StatementKind::Update, Access::Writes).table(table, Access::Writes)
}

/// `DELETE FROM table`.
pub fn delete(table: &str) -> ShapeBuilder {
    statement(StatementKind::Delete, Access::Writes).table(table, Access::Writes)
}

/// A statement without tables.
pub fn statement(kind: StatementKind, access: Access) -> ShapeBuilder {
    ShapeBuilder {
        shape: Shape {
            fingerprint: Fingerprint { high: 1, low: 1 },
            family: Fingerprint { high: 1, low: 1 },
            normalized: String::new(),
            kind,
            access,
            locks: false,
            tables: Vec::new(),
            columns: Vec::new(),
            functions: Vec::new(),
            parameters: 0,
            literal_dependent: false,
            incomplete: None,
            tags: Vec::new(),
        },
    }
}

impl ShapeBuilder {
    /// One more table, given as `table` or `schema.table`; what follows is about its columns.
    #[must_use]
    pub fn table(mut self, name: &str, access: Access) -> ShapeBuilder {
        let (schema, name) = match name.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name),
            None => (None, name),
        };
        let columns = Vec::new();
        self.shape.tables.push(TableUse { schema, name: name.to_owned(), access, columns });
        self
    }

    /// A table that is read as well.
    #[must_use]
    pub fn join(self, table: &str) -> ShapeBuilder {
        self.table(table, Access::Reads)
    }

    /// A column of the last table, compared with the next parameter.
    #[must_use]
    pub fn by(mut self, column: &str, comparison: Comparison) -> ShapeBuilder {
        self.shape.parameters += 1;
        let operand = Operand::Parameter(self.shape.parameters);
        self.by_operand(column, comparison, operand)
    }

    /// A column of the last table, compared with something else.
    #[must_use]
    pub fn by_operand(mut self, column: &str, comparison: Comparison, by: Operand) -> ShapeBuilder {
        if let Some(table) = self.shape.tables.last_mut() {
            let column = column.to_owned();
            table.columns.push(ColumnUse { column, comparison, by, always: true });
        }
        self
    }

    /// A column of the last table in ORDER BY.
    #[must_use]
    pub fn ordered_by(self, column: &str) -> ShapeBuilder {
        self.by_operand(column, Comparison::Order, Operand::Expression)
    }

    /// A tag that belongs to the shape.
    #[must_use]
    pub fn tag(mut self, key: &str, value: &str) -> ShapeBuilder {
        self.shape.tags.push(Tag { key: key.to_owned(), value: value.to_owned() });
        self
    }

    /// With FOR UPDATE.
    #[must_use]
    pub fn for_update(mut self) -> ShapeBuilder {
        self.shape.locks = true;
        self
    }

    /// With this fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, high: u64, low: u64) -> ShapeBuilder {
        self.shape.fingerprint = Fingerprint { high, low };
        self
    }

    /// The shape.
    pub fn shape(self) -> Shape {
        self.shape
    }
}

/// Somebody, with a database and an application.
pub fn identity(user: &str) -> Identity {
    Identity {
        user: user.to_owned(),
        database: "app".to_owned(),
        application: "tests".to_owned(),
        end_user: None,
        roles: Vec::new(),
        tags: Vec::new(),
    }
}

/// A policy with these settings, as the host would make it.
pub fn configured<P: crate::policies::Policy>(config: &str) -> Result<P, String> {
    crate::register::configured(config)
}
