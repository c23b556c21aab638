//! Advising: what a policy may suggest. The host verifies every suggestion and creates none.

use super::{Nonsense, at_most, is_text};
use crate::limits::{
    IDENTIFIER_BYTES_MAX, POLICY_INDEX_COLUMNS_MAX, POLICY_REASON_BYTES_MAX,
    POLICY_SUGGESTIONS_MAX, POLICY_VALUE_BYTES_MAX,
};
use crate::settings::{quote_literal, quote_name};

/// An index that slow statements seem to miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    pub schema: Box<str>,
    pub table: Box<str>,
    pub method: Method,
    pub keys: Vec<Key>,
    /// Columns that are carried along, so that the table need not be read.
    pub include: Vec<Box<str>>,
    pub predicate: Option<Predicate>,
    /// Fingerprints of the shapes that should gain.
    pub shapes: Vec<u128>,
    pub confidence: Confidence,
    pub reason: Box<str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Btree,
    Hash,
    Gin,
    Gist,
    Brin,
}

impl Method {
    /// As SQL has it.
    pub fn name(self) -> &'static str {
        match self {
            Method::Btree => "btree",
            Method::Hash => "hash",
            Method::Gin => "gin",
            Method::Gist => "gist",
            Method::Brin => "brin",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub source: Source,
    pub order: Order,
    pub operator_class: Option<Box<str>>,
}

impl Key {
    fn sql(&self) -> String {
        let mut sql = match &self.source {
            Source::Column(column) => quote_name(column),
            Source::FunctionOf { function, column } => {
                format!("{}({})", quote_name(function), quote_name(column))
            }
        };
        if let Some(class) = &self.operator_class {
            sql.push(' ');
            sql.push_str(&quote_name(class));
        }
        if self.order == Order::Descending {
            sql.push_str(" DESC");
        }
        sql
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Ascending,
    Descending,
}

/// What is indexed. No free text, so that a suggestion can always be written as safe SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Column(Box<str>),
    FunctionOf { function: Box<str>, column: Box<str> },
}

impl Source {
    fn column(&self) -> &str {
        match self {
            Source::Column(column) | Source::FunctionOf { column, .. } => column,
        }
    }
}

/// The condition of a partial index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    IsNull(Box<str>),
    IsNotNull(Box<str>),
    IsTrue(Box<str>),
    Equals { column: Box<str>, value: Box<str> },
}

impl Predicate {
    fn sql(&self) -> String {
        match self {
            Predicate::IsNull(column) => format!("{} IS NULL", quote_name(column)),
            Predicate::IsNotNull(column) => format!("{} IS NOT NULL", quote_name(column)),
            Predicate::IsTrue(column) => quote_name(column),
            Predicate::Equals { column, value } => {
                format!("{} = {}", quote_name(column), quote_literal(value).trim_start())
            }
        }
    }

    fn column(&self) -> &str {
        match self {
            Predicate::IsNull(column)
            | Predicate::IsNotNull(column)
            | Predicate::IsTrue(column)
            | Predicate::Equals { column, .. } => column,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// The planner can say what it is worth.
    Verifiable,
    Heuristic,
}

/// A table that a batch told the policy of.
#[derive(Clone, Debug)]
pub struct KnownTable<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    pub columns: Vec<&'a str>,
}

/// Refuses suggestions about what the policy was not told of, and those that are no index.
pub fn check_suggestions(
    suggestions: Vec<Suggestion>,
    tables: &[KnownTable<'_>],
    shapes: &[u128],
) -> Result<Vec<Suggestion>, Nonsense> {
    at_most(suggestions.len(), POLICY_SUGGESTIONS_MAX, "suggestions")?;
    for suggestion in &suggestions {
        suggestion.check(tables, shapes)?;
    }
    Ok(suggestions)
}

impl Suggestion {
    /// The statement that creates the index, without a lock that keeps writes out.
    pub fn sql(&self) -> String {
        use std::fmt::Write as _;
        let keys: Vec<String> = self.keys.iter().map(Key::sql).collect();
        let mut sql = format!(
            "CREATE INDEX CONCURRENTLY ON {}.{} USING {} ({})",
            quote_name(&self.schema),
            quote_name(&self.table),
            self.method.name(),
            keys.join(", ")
        );
        if !self.include.is_empty() {
            let include: Vec<String> = self.include.iter().map(|own| quote_name(own)).collect();
            let _ = write!(sql, " INCLUDE ({})", include.join(", "));
        }
        if let Some(predicate) = &self.predicate {
            let _ = write!(sql, " WHERE {}", predicate.sql());
        }
        sql
    }

    fn check(&self, tables: &[KnownTable<'_>], shapes: &[u128]) -> Result<(), Nonsense> {
        let is_own =
            |table: &&KnownTable<'_>| *table.schema == *self.schema && *table.name == *self.table;
        let Some(table) = tables.iter().find(is_own) else {
            return Err(Nonsense::OutOfRange { what: "table" });
        };
        if self.keys.is_empty() {
            return Err(Nonsense::OutOfRange { what: "keys" });
        }
        let width = self.keys.len().saturating_add(self.include.len());
        at_most(width, POLICY_INDEX_COLUMNS_MAX, "columns")?;
        let keys = self.keys.iter().map(|key| key.source.column());
        let include = self.include.iter().map(|column| &**column);
        let mut columns = keys.chain(include).chain(self.predicate.iter().map(Predicate::column));
        if columns.any(|column| !table.columns.contains(&column)) {
            return Err(Nonsense::OutOfRange { what: "column" });
        }
        for key in &self.keys {
            if let Source::FunctionOf { function, .. } = &key.source {
                is_text(function, IDENTIFIER_BYTES_MAX, "function")?;
            }
            if let Some(class) = &key.operator_class {
                is_text(class, IDENTIFIER_BYTES_MAX, "operator class")?;
            }
        }
        if let Some(Predicate::Equals { value, .. }) = &self.predicate
            && value.len() > POLICY_VALUE_BYTES_MAX
        {
            return Err(Nonsense::BadText { what: "value" });
        }
        if self.shapes.len() > shapes.len() || self.shapes.iter().any(|s| !shapes.contains(s)) {
            return Err(Nonsense::OutOfRange { what: "shapes" });
        }
        is_text(&self.reason, POLICY_REASON_BYTES_MAX, "reason")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(columns: &[&str]) -> Suggestion {
        let key = |column: &&str| Key {
            source: Source::Column((*column).into()),
            order: Order::Ascending,
            operator_class: None,
        };
        Suggestion {
            schema: "public".into(),
            table: "orders".into(),
            method: Method::Btree,
            keys: columns.iter().map(key).collect(),
            include: Vec::new(),
            predicate: None,
            shapes: vec![7],
            confidence: Confidence::Verifiable,
            reason: "read by customer".into(),
        }
    }

    fn check(suggestion: Suggestion) -> Result<(), Nonsense> {
        let columns = vec!["id", "customer_id", "status"];
        let tables = [KnownTable { schema: "public", name: "orders", columns }];
        check_suggestions(vec![suggestion], &tables, &[7, 8]).map(drop)
    }

    #[test]
    fn a_suggestion_is_about_what_the_batch_told() {
        let out = |what| Err(Nonsense::OutOfRange { what });
        assert_eq!(check(on(&["customer_id", "status"])), Ok(()));
        assert_eq!(check(on(&[])), out("keys"));
        assert_eq!(check(on(&["secret"])), out("column"));
        assert_eq!(check(Suggestion { table: "users".into(), ..on(&["id"]) }), out("table"));
        assert_eq!(check(Suggestion { shapes: vec![9], ..on(&["id"]) }), out("shapes"));
        assert_eq!(check(Suggestion { include: vec!["x".into()], ..on(&["id"]) }), out("column"));
        let predicate = Some(Predicate::IsNull("x".into()));
        assert_eq!(check(Suggestion { predicate, ..on(&["id"]) }), out("column"));
    }

    #[test]
    fn a_suggestion_is_written_as_safe_sql() {
        assert_eq!(
            on(&["customer_id", "status"]).sql(),
            r#"CREATE INDEX CONCURRENTLY ON "public"."orders" USING btree ("customer_id", "status")"#
        );
        let lower = Source::FunctionOf { function: "lower".into(), column: r#"e"mail"#.into() };
        let key = Key {
            source: lower,
            order: Order::Descending,
            operator_class: Some("text_pattern_ops".into()),
        };
        let predicate =
            Some(Predicate::Equals { column: "status".into(), value: r"it's \".into() });
        let index =
            Suggestion { keys: vec![key], include: vec!["id".into()], predicate, ..on(&[]) };
        assert_eq!(
            index.sql(),
            concat!(
                r#"CREATE INDEX CONCURRENTLY ON "public"."orders" USING btree "#,
                r#"("lower"("e""mail") "text_pattern_ops" DESC) INCLUDE ("id") "#,
                r#"WHERE "status" = E'it''s \\'"#
            )
        );
    }

    #[test]
    fn a_suggestion_is_bounded() {
        let wide = on(&["id"; POLICY_INDEX_COLUMNS_MAX + 1]);
        assert!(matches!(check(wide), Err(Nonsense::TooMany { what: "columns", .. })));
        let many = vec![on(&["id"]); POLICY_SUGGESTIONS_MAX + 1];
        assert!(matches!(check_suggestions(many, &[], &[]), Err(Nonsense::TooMany { .. })));
        let value = "x".repeat(POLICY_VALUE_BYTES_MAX + 1).into();
        let predicate = Some(Predicate::Equals { column: "status".into(), value });
        let long = Suggestion { predicate, ..on(&["id"]) };
        assert_eq!(check(long), Err(Nonsense::BadText { what: "value" }));
    }
}
