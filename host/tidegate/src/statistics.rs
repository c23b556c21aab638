//! What PostgreSQL's statistics say of the tables that a statement names, as policies of advice are told.

use tidegate_core::limits::{STATISTICS_ROWS_MAX, STATISTICS_TABLES_MAX};
use tidegate_core::settings::quote_literal;
use tidegate_core::statement::Shape;
use tidegate_policy::bindings::since_v0_1::index::{
    ColumnStatistics, CommonValue, ExistingIndex, IndexMethod, TableStatistics,
};

use crate::upstream::{Asker, ConnectError};

/// Values of a column that a policy is told of, the most frequent first.
const COMMON_VALUES_MAX: usize = 10;
/// What PostgreSQL assumes of a column that was never analysed.
const DISTINCT_UNKNOWN: f64 = 200.0;

/// Reads the statistics of every table that has the name of one in the shape: without a schema, in any schema but
/// PostgreSQL's own, first in `public`.
///
/// # Errors
/// The server can't be asked.
pub async fn read(asker: &mut Asker, shape: &Shape) -> Result<Vec<TableStatistics>, ConnectError> {
    let Some(named) = named(shape) else { return Ok(Vec::new()) };
    // One snapshot, so that columns and indexes fit their table.
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         {TABLES_SQL} WHERE {named} {TABLES_END_SQL} LIMIT {STATISTICS_TABLES_MAX}; COMMIT",
    );
    let rows = asker.ask(&sql).await?;
    let mut tables: Vec<(String, TableStatistics)> =
        rows.iter().filter_map(|row| table(row)).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let oids: Vec<&str> = tables.iter().map(|(oid, _)| oid.as_str()).collect();
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {COLUMNS_SQL}; {COMMON_SQL}; {INDEXES_SQL}; COMMIT"
    )
    .replace("$oids", &oids.join(","))
    .replace("$rows", &STATISTICS_ROWS_MAX.to_string())
    .replace("$common", &COMMON_VALUES_MAX.to_string());
    for row in asker.ask(&sql).await? {
        let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        add(&mut tables, &row);
    }
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

/// The condition for the tables of a shape; none when it names none.
fn named(shape: &Shape) -> Option<String> {
    let mut conditions: Vec<String> = Vec::new();
    for used in &shape.tables {
        let schema = match &used.schema {
            Some(schema) => format!("n.nspname = {}", quote_literal(schema)),
            None => "n.nspname NOT IN ('pg_catalog', 'information_schema')".to_owned(),
        };
        let condition = format!("(c.relname = {} AND {schema})", quote_literal(&used.name));
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    conditions.truncate(STATISTICS_TABLES_MAX);
    (!conditions.is_empty()).then(|| format!("({})", conditions.join(" OR ")))
}

fn table(row: &[Option<String>]) -> Option<(String, TableStatistics)> {
    let [Some(oid), Some(schema), Some(name), Some(rows), Some(bytes), Some(writes)] = row else {
        return None;
    };
    let table = TableStatistics {
        schema: schema.clone(),
        name: name.clone(),
        rows: rows.parse().ok()?,
        bytes: bytes.parse().ok()?,
        writes_per_second: writes.parse().ok()?,
        columns: Vec::new(),
        indexes: Vec::new(),
    };
    Some((oid.clone(), table))
}

/// A row about a column, a frequent value or an index. What is not as the query makes it is left out.
fn add(tables: &mut [(String, TableStatistics)], row: &[&str]) {
    let [kind, oid, rest @ ..] = row else { return };
    let Some((_, table)) = tables.iter_mut().find(|(own, _)| own == oid) else { return };
    match (*kind, rest) {
        ("c", [name, type_name, distinct, nulls, correlation, width]) => {
            table.columns.push(ColumnStatistics {
                name: (*name).to_owned(),
                type_name: (*type_name).to_owned(),
                distinct: self::distinct(distinct.parse().ok(), table.rows),
                null_fraction: nulls.parse().unwrap_or(0.0),
                correlation: correlation.parse().ok(),
                width: width.parse().unwrap_or(0),
                common: Vec::new(),
            });
        }
        ("v", [name, value, frequency]) => {
            let column = table.columns.iter_mut().find(|column| column.name == *name);
            if let (Some(column), Ok(frequency)) = (column, frequency.parse()) {
                column.common.push(CommonValue { value: (*value).to_owned(), frequency });
            }
        }
        ("i", [name, method, unique, partial, columns]) => {
            let method = match *method {
                "btree" => IndexMethod::Btree,
                "hash" => IndexMethod::Hash,
                "gin" => IndexMethod::Gin,
                "gist" => IndexMethod::Gist,
                "brin" => IndexMethod::Brin,
                _ => return,
            };
            table.indexes.push(ExistingIndex {
                name: (*name).to_owned(),
                method,
                columns: columns.lines().map(str::to_owned).collect(),
                unique: *unique == "t",
                partial: *partial == "t",
            });
        }
        _ => {}
    }
}

/// `pg_stats.n_distinct`: a number, or with a minus the share of the rows.
fn distinct(told: Option<f64>, rows: f64) -> f64 {
    match told {
        Some(share) if share < 0.0 => -share * rows,
        Some(number) => number,
        None => DISTINCT_UNKNOWN.min(rows.max(0.0)),
    }
}

/// How often tables are written is known only since the statistics were reset.
const TABLES_SQL: &str = "\
SELECT c.oid, n.nspname, c.relname, greatest(c.reltuples, s.n_live_tup, parts.rows, 0), \
 coalesce(parts.bytes, pg_total_relation_size(c.oid)), \
 coalesce((s.n_tup_ins + s.n_tup_upd + s.n_tup_del) / greatest(1, extract(epoch FROM now() - d.stats_reset)), 0) \
FROM pg_class c LEFT JOIN LATERAL (SELECT sum(greatest(p.reltuples, 0)) AS rows, \
 sum(pg_total_relation_size(p.oid))::bigint AS bytes FROM pg_partition_tree(c.oid) t \
 JOIN pg_class p ON p.oid = t.relid WHERE t.isleaf) parts ON c.relkind = 'p' \
 JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid \
LEFT JOIN pg_stat_database d ON d.datname = current_database()";
const TABLES_END_SQL: &str = "AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' ORDER BY n.nspname <> 'public', n.nspname, c.relname";

const COLUMNS_SQL: &str = "\
SELECT 'c', c.oid, a.attname, format_type(a.atttypid, a.atttypmod), s.n_distinct, s.null_frac, s.correlation, s.avg_width \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname \
 AND s.inherited = (c.relkind = 'p') \
WHERE c.oid IN ($oids) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.oid, a.attnum LIMIT $rows";

const COMMON_SQL: &str = "\
SELECT 'v', c.oid, s.attname, v.value, v.frequency \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.inherited = (c.relkind = 'p'), \
LATERAL unnest(s.most_common_vals::text::text[], s.most_common_freqs) WITH ORDINALITY v(value, frequency, place) \
WHERE c.oid IN ($oids) AND v.place <= $common AND length(v.value) <= 256 ORDER BY c.oid, s.attname, v.place LIMIT $rows";

/// Leading columns, up to the first that is an expression.
const INDEXES_SQL: &str = "\
SELECT 'i', i.indrelid, x.relname, m.amname, i.indisunique, i.indpred IS NOT NULL, \
 (SELECT string_agg(a.attname, E'\\n' ORDER BY k.place) FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place) \
 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
 WHERE k.place <= i.indnkeyatts AND k.place < coalesce((SELECT min(e.place) FROM unnest(i.indkey::int2[]) \
 WITH ORDINALITY e(number, place) WHERE e.number = 0), 32767)) \
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam \
WHERE i.indrelid IN ($oids) AND i.indisvalid ORDER BY x.relname LIMIT $rows";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_values_are_a_number_or_a_share_of_the_rows() {
        assert_eq!(distinct(Some(12.0), 1000.0), 12.0);
        assert_eq!(distinct(Some(-0.5), 1000.0), 500.0);
        assert_eq!((distinct(None, 1000.0), distinct(None, 7.0)), (DISTINCT_UNKNOWN, 7.0));
    }

    #[test]
    fn names_stay_literals() {
        let mut shape = tidegate_policy::samples::ordinary();
        shape.tables[0].name = "o'\\r".into();
        shape.tables[1].schema = Some("s".into());
        assert_eq!(
            named(&shape).unwrap(),
            "((c.relname =  E'o''\\\\r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')) \
             OR (c.relname = 'shop_customer' AND n.nspname = 's'))"
        );
        shape.tables.clear();
        assert_eq!(named(&shape), None);
    }
}
