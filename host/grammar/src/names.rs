//! PostgreSQL's own operators and types, and functions whose literals say what they touch.
//!
//! From PostgreSQL 15's `pg_operator` and `pg_type`. What a newer server adds looks like a user's: then the catalogue
//! is asked, which costs nothing but that.

/// Names of operators in `pg_catalog`, sorted. `!=` is another spelling of `<>`.
const OPERATORS: &[&str] = &[
    "!!", "!=", "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#>", "#>>", "%", "&", "&&", "&<",
    "&<|", "&>", "*", "*<", "*<=", "*<>", "*=", "*>", "*>=", "+", "-", "->", "->>", "-|-", "/",
    "<", "<->", "<<", "<<=", "<<|", "<=", "<>", "<@", "<^", "=", ">", ">=", ">>", ">>=", ">^", "?",
    "?#", "?&", "?-", "?-|", "?|", "?||", "@", "@-@", "@>", "@?", "@@", "@@@", "^", "^@", "|",
    "|&>", "|/", "|>>", "||", "||/", "~", "~*", "~<=~", "~<~", "~=", "~>=~", "~>~", "~~", "~~*",
];

/// Names of types in `pg_catalog` that a cast may name, sorted.
const TYPES: &[&str] = &[
    "aclitem",
    "bit",
    "bool",
    "box",
    "bpchar",
    "bytea",
    "char",
    "cid",
    "cidr",
    "circle",
    "cstring",
    "date",
    "datemultirange",
    "daterange",
    "float4",
    "float8",
    "gtsvector",
    "inet",
    "int2",
    "int2vector",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "oidvector",
    "path",
    "pg_lsn",
    "pg_snapshot",
    "point",
    "polygon",
    "record",
    "refcursor",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "text",
    "tid",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "txid_snapshot",
    "unknown",
    "uuid",
    "varbit",
    "varchar",
    "void",
    "xid",
    "xid8",
    "xml",
];

/// Functions that get as text the name of what they touch, or a query; sorted.
const LITERAL_DEPENDENT: &[&str] = &[
    "current_setting",
    "currval",
    "lastval",
    "nextval",
    "pg_get_serial_sequence",
    "pg_indexes_size",
    "pg_logical_emit_message",
    "pg_ls_dir",
    "pg_notify",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_relation_filepath",
    "pg_relation_size",
    "pg_sequence_last_value",
    "pg_stat_file",
    "pg_table_size",
    "pg_total_relation_size",
    "set_config",
    "setval",
    "ts_rewrite",
    "ts_stat",
];

/// Beginnings of the names of more such functions: XML mapping, advisory locks, dblink, tablefunc, privileges, large
/// objects.
const LITERAL_DEPENDENT_PREFIXES: &[&str] = &[
    "query_to_xml",
    "table_to_xml",
    "cursor_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "pg_advisory_",
    "pg_try_advisory_",
    "dblink",
    "crosstab",
    "connectby",
    "has_",
    "to_reg",
    "lo_",
];

pub(crate) fn is_builtin_operator(name: &str) -> bool {
    // The one that stands in most texts.
    name == "=" || OPERATORS.binary_search(&name).is_ok()
}

pub(crate) fn is_builtin_type(name: &str) -> bool {
    TYPES.binary_search(&name).is_ok()
}

/// Does a literal in the call say what is read, written or changed?
pub(crate) fn is_literal_dependent(function: &str) -> bool {
    LITERAL_DEPENDENT.binary_search(&function).is_ok()
        || LITERAL_DEPENDENT_PREFIXES.iter().any(|prefix| function.starts_with(prefix))
}

/// Does a literal of the type name an object of the catalogue? `'orders'::regclass`
pub(crate) fn names_an_object(type_name: &str) -> bool {
    type_name.starts_with("reg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        for list in [OPERATORS, TYPES, LITERAL_DEPENDENT] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
