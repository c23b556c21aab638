//! What the primary is asked: which transactions are over, and what names mean.
//!
//! A statement has one snapshot, so that all of its answers are of the same moment; where the log is on disk is looked up no earlier.

use tidegate_cache::{Answered, Meaning, Question, Snapshot};
use tidegate_wire::replication::read_position;

/// The statement for a question.
pub(super) fn sql(question: Question) -> &'static str {
    match question {
        Question::Visible => VISIBLE_SQL,
        Question::Names => NAMES_SQL,
    }
}

/// The answer, and of which timeline it is.
pub(super) fn read(question: Question, rows: &[Vec<Option<String>>]) -> Option<(Answered, &str)> {
    let row: Vec<&str> =
        rows.first()?.iter().map(|value| value.as_deref()).collect::<Option<_>>()?;
    let (snapshot, flushed, timeline, meaning) = match (question, row.as_slice()) {
        (Question::Visible, [snapshot, flushed, timeline]) => (snapshot, flushed, timeline, None),
        (Question::Names, [snapshot, flushed, timeline, own, shared]) => {
            let meaning = Meaning { own: (*own).into(), shared: (*shared).into() };
            (snapshot, flushed, timeline, Some(meaning))
        }
        _ => return None,
    };
    let answered =
        Answered { snapshot: Snapshot::read(snapshot)?, flushed: read_position(flushed)?, meaning };
    Some((answered, timeline))
}

macro_rules! visible {
    () => {
        "SELECT pg_current_snapshot(), pg_current_wal_flush_lsn(), left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)"
    };
}

/// Which rows of a catalogue are there, in which versions: any change makes another sum.
macro_rules! sum {
    ($from:literal) => {
        concat!("(SELECT sum(hashtextextended(xmin::text || ctid::text, 0)) FROM ", $from, ")")
    };
}

const VISIBLE_SQL: &str = visible!();

/// Rows of catalogues that a change of what names mean, of what they do, or of who may use them changes. Not those of temporary
/// objects, which are their session's; nor statistics, which ANALYZE writes.
const NAMES_SQL: &str = concat!(
    "WITH temporary(id) AS (SELECT oid FROM pg_class WHERE relpersistence = 't'), ",
    r"spaces(id) AS (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\_temp\_%' OR nspname LIKE 'pg\_toast\_temp\_%') ",
    visible!(),
    ", concat_ws(',', ",
    sum!("pg_class WHERE relpersistence <> 't'"),
    ", ",
    sum!("pg_attribute WHERE attrelid NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_attrdef WHERE adrelid NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_inherits WHERE inhrelid NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_rewrite WHERE ev_class NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_trigger WHERE tgrelid NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_policy WHERE polrelid NOT IN (SELECT id FROM temporary)"),
    ", ",
    sum!("pg_constraint WHERE connamespace NOT IN (SELECT id FROM spaces)"),
    ", ",
    sum!("pg_type WHERE typnamespace NOT IN (SELECT id FROM spaces)"),
    ", ",
    sum!("pg_proc WHERE pronamespace NOT IN (SELECT id FROM spaces)"),
    ", ",
    sum!("pg_namespace WHERE oid NOT IN (SELECT id FROM spaces)"),
    ", ",
    sum!("pg_enum"),
    ", ",
    sum!("pg_range"),
    ", ",
    sum!("pg_aggregate"),
    ", ",
    sum!("pg_operator"),
    ", ",
    sum!("pg_opclass"),
    ", ",
    sum!("pg_amop"),
    ", ",
    sum!("pg_amproc"),
    ", ",
    sum!("pg_cast"),
    ", ",
    sum!("pg_collation"),
    ", ",
    sum!("pg_conversion"),
    ", ",
    sum!("pg_language"),
    ", ",
    sum!("pg_transform"),
    ", ",
    sum!("pg_extension"),
    ", ",
    sum!("pg_event_trigger"),
    ", ",
    sum!("pg_ts_config"),
    ", ",
    sum!("pg_ts_config_map"),
    ", ",
    sum!("pg_ts_dict"),
    ", ",
    sum!("pg_ts_parser"),
    ", ",
    sum!("pg_ts_template"),
    ", ",
    sum!("pg_database WHERE datname = current_database()"),
    ", ",
    sum!(
        "pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ),
    "), concat_ws(',', ",
    sum!("pg_auth_members"),
    ", ",
    sum!("pg_db_role_setting WHERE setdatabase = 0"),
    ", ",
    "(SELECT sum(hashtextextended(concat_ws(',', oid, rolname, rolsuper, rolinherit, rolbypassrls), 0)) FROM pg_roles))",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_were_asked_for() {
        let row = |values: &[&str]| vec![values.iter().map(|v| Some((*v).to_owned())).collect()];
        let visible = row(&["10:12:10", "0/AB", "00000001"]);
        let (answered, timeline) = read(Question::Visible, &visible).unwrap();
        assert_eq!((answered.flushed, timeline), (0xAB, "00000001"));
        assert!(answered.meaning.is_none());
        assert!(read(Question::Names, &visible).is_none());
        let names = row(&["10:12:10", "0/AB", "00000001", "1,2", "3"]);
        let (answered, _) = read(Question::Names, &names).unwrap();
        let expected = Meaning { own: "1,2".into(), shared: "3".into() };
        assert_eq!(answered.meaning, Some(expected));
        assert!(read(Question::Visible, &names).is_none());
        assert!(read(Question::Visible, &[]).is_none());
        assert!(read(Question::Visible, &[vec![Some("10:12:10".into()), None, None]]).is_none());
        assert!(read(Question::Visible, &row(&["1", "0/AB", "1"])).is_none());
    }
}
