//! What a plugin is asked about: core's plain data, as WIT says it.

use super::since_v0_1::types;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, FunctionForm, FunctionUse, Shape, ShapeKind, TableUse,
};

/// A shape, with those of its tags that a policy is told of.
pub(crate) fn shape(shape: &Shape, tags: &[(&str, &str)]) -> types::Shape {
    types::Shape {
        fingerprint: fingerprint(shape.fingerprint.0),
        family: fingerprint(shape.family.0),
        normalized: shape.normalized.to_string(),
        kind: kind(shape.kind),
        access: access(shape.access),
        locks: shape.locks,
        tables: shape.tables.iter().map(table).collect(),
        columns: shape.columns.iter().map(column).collect(),
        functions: shape.functions.iter().map(function).collect(),
        parameters: shape.parameters,
        literal_dependent: shape.literal_dependent,
        incomplete: shape.incomplete.map(|why| why.label().to_owned()),
        tags: self::tags(tags),
    }
}

/// Tags as policies are told of them.
pub fn tags(pairs: &[(&str, &str)]) -> Vec<types::Tag> {
    pairs.iter().map(|(key, value)| tag(key, value)).collect()
}

pub(crate) fn tag(key: &str, value: &str) -> types::Tag {
    types::Tag { key: key.to_owned(), value: value.to_owned() }
}

/// A number in two halves.
pub(crate) fn fingerprint(number: u128) -> types::Fingerprint {
    // Each half is 64 bits: the cast takes the lower ones.
    types::Fingerprint { high: (number >> 64) as u64, low: number as u64 }
}

/// A fingerprint's halves as one number.
pub(crate) fn number(fingerprint: &types::Fingerprint) -> u128 {
    u128::from(fingerprint.high) << 64 | u128::from(fingerprint.low)
}

fn kind(kind: ShapeKind) -> types::StatementKind {
    match kind {
        ShapeKind::Select => types::StatementKind::Select,
        ShapeKind::Insert => types::StatementKind::Insert,
        ShapeKind::Update => types::StatementKind::Update,
        ShapeKind::Delete => types::StatementKind::Delete,
        ShapeKind::Merge => types::StatementKind::Merge,
        ShapeKind::Copy => types::StatementKind::Copy,
        ShapeKind::Ddl => types::StatementKind::Ddl,
        ShapeKind::Transaction => types::StatementKind::Transaction,
        ShapeKind::Session => types::StatementKind::Session,
        ShapeKind::Utility => types::StatementKind::Utility,
        ShapeKind::Multiple => types::StatementKind::Multiple,
        ShapeKind::Empty => types::StatementKind::Empty,
        ShapeKind::Unknown => types::StatementKind::Unknown,
    }
}

fn access(access: Access) -> types::Access {
    match access {
        Access::Reads => types::Access::Reads,
        Access::Writes => types::Access::Writes,
        Access::Unknown => types::Access::Unknown,
    }
}

fn table(table: &TableUse) -> types::TableUse {
    types::TableUse {
        schema: table.schema.as_deref().map(str::to_owned),
        name: table.name.to_string(),
        access: access(table.access),
        columns: table.columns.iter().map(column).collect(),
    }
}

fn column(used: &ColumnUse) -> types::ColumnUse {
    let comparison = match used.comparison {
        Comparison::Equal => types::Comparison::Equal,
        Comparison::Range => types::Comparison::Range,
        Comparison::In => types::Comparison::InList,
        Comparison::Like => types::Comparison::Like,
        Comparison::Null => types::Comparison::Null,
        Comparison::Join => types::Comparison::Join,
        Comparison::Order => types::Comparison::Order,
        Comparison::Group => types::Comparison::Group,
        Comparison::Assigned => types::Comparison::Assigned,
        Comparison::Other => types::Comparison::Other,
    };
    let by = match used.by {
        By::Parameter(number) => types::Operand::Parameter(number),
        By::Parameters(first, last) => types::Operand::Parameters((first, last)),
        By::Literal => types::Operand::Literal,
        By::Column => types::Operand::Column,
        By::Expression => types::Operand::Expression,
    };
    types::ColumnUse { column: used.column.to_string(), comparison, by, always: used.always }
}

fn function(function: &FunctionUse) -> types::FunctionUse {
    types::FunctionUse {
        schema: function.schema.as_deref().map(str::to_owned),
        name: function.name.to_string(),
        arguments: function.arguments,
        form: match function.form {
            FunctionForm::Call => types::FunctionForm::Call,
            FunctionForm::Operator => types::FunctionForm::Operator,
            FunctionForm::Cast => types::FunctionForm::Cast,
        },
    }
}
