//! What statements are found to be, in a compact notation; and that nothing makes the parser or the walk fall over.

use crate::PostgresGrammar;
use std::time::Instant;
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, FunctionForm, Shape, ShapeCache, TableUse, TextSettings,
};

mod columns; // which columns are compared, and by what
mod fields; // what PostgreSQL accepts and others do not: insight's table A4
mod hazards; // what makes other parsers fall over: insight's tables A3 and A5
mod kinds; // kinds, access, tables, functions

/// The shape of a text, through the cache, as a worker gets it.
fn shape(sql: &str) -> Shape {
    let mut cache = ShapeCache::new(PostgresGrammar, 7, SHAPE_CACHE_BYTES_MAX);
    let known = cache.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now());
    (*known.shape).clone()
}

/// Checks rows of a text and its shape: `Kind access flags | tables | columns of no table | functions`.
fn check(rows: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (sql, expected) in rows {
        let shown = shown(&shape(sql));
        if shown != *expected {
            wrong += &format!("{sql}\n  is       {shown}\n  expected {expected}\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn shown(shape: &Shape) -> String {
    let mut out = format!("{:?} {}", shape.kind, access(shape.access));
    if shape.locks {
        out += " locks";
    }
    if shape.literal_dependent {
        out += " literal";
    }
    if let Some(why) = shape.incomplete {
        out += &format!(" {}", why.label());
    }
    let functions = shape.functions.iter().map(|f| {
        let name = qualified(&f.schema, &f.name);
        match f.form {
            FunctionForm::Call => format!("{name}/{}", f.arguments),
            FunctionForm::Operator => format!("op {name}/{}", f.arguments),
            FunctionForm::Cast => format!("::{name}"),
        }
    });
    let lists = [
        shape.tables.iter().map(table).collect::<Vec<_>>(),
        shape.columns.iter().map(column).collect(),
        functions.collect(),
    ];
    let last = lists.iter().rposition(|list| !list.is_empty()).map_or(0, |last| last + 1);
    for list in &lists[..last] {
        out += &format!(" | {}", list.join(", "));
    }
    out
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Reads => "reads",
        Access::Writes => "writes",
        Access::Unknown => "unknown",
    }
}

fn qualified(schema: &Option<Box<str>>, name: &str) -> String {
    schema.as_ref().map_or(name.to_owned(), |schema| format!("{schema}.{name}"))
}

fn table(table: &TableUse) -> String {
    let columns: Vec<_> = table.columns.iter().map(column).collect();
    let mark = if table.access == Access::Writes { "!" } else { "" };
    let name = qualified(&table.schema, &table.name);
    if columns.is_empty() {
        format!("{name}{mark}")
    } else {
        format!("{name}{mark}({})", columns.join(", "))
    }
}

/// A `?` marks a comparison that not every row passes.
fn column(used: &ColumnUse) -> String {
    let by = match used.by {
        By::Parameter(n) => format!("${n}"),
        By::Parameters(first, last) => format!("${first}-${last}"),
        By::Literal => "literal".to_owned(),
        By::Column => "column".to_owned(),
        By::Expression => "expression".to_owned(),
    };
    let name = &used.column;
    let shown = match used.comparison {
        Comparison::Order => return format!("{name} order"),
        Comparison::Group => return format!("{name} group"),
        Comparison::Join => format!("{name} join"),
        Comparison::Assigned => return format!("{name} := {by}"),
        Comparison::Null => format!("{name} null"),
        Comparison::Equal => format!("{name} = {by}"),
        Comparison::Range => format!("{name} range {by}"),
        Comparison::In => format!("{name} in {by}"),
        Comparison::Like => format!("{name} like {by}"),
        Comparison::Other => return format!("{name} other {by}"),
    };
    if used.always { shown } else { format!("{shown}?") }
}
