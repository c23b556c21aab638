//! What `pg_regress` says of each test, and both ways beside each other.

use crate::known;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Failed,
    /// The schedule says that it may fail (`random` of old versions).
    Ignored,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Ignored => "failed (ignored)",
        }
    }
}

/// Tests in the order in which they ran.
pub(crate) type Outcomes = Vec<(String, Outcome)>;

/// Reads what `pg_regress` wrote: `test name ... ok 12 ms` and `     name ... FAILED 7 ms` up to version 15, TAP after it.
pub(crate) fn read_outcomes(text: &str) -> Outcomes {
    text.lines().filter_map(|line| plain(line).or_else(|| tap(line))).collect()
}

fn plain(line: &str) -> Option<(String, Outcome)> {
    let (name, rest) = line.split_once(" ... ")?;
    let name = name.trim().trim_start_matches("test ").trim();
    let outcome = match rest.trim_start() {
        rest if rest.starts_with("ok") => Outcome::Ok,
        rest if rest.starts_with("failed (ignored)") => Outcome::Ignored,
        rest if rest.starts_with("FAILED") => Outcome::Failed,
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

fn tap(line: &str) -> Option<(String, Outcome)> {
    let (outcome, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (Outcome::Ok, rest),
        (_, Some(rest)) => (Outcome::Failed, rest),
        _ => return None,
    };
    // A number, `-` or `+` for a test of a group, the name, the time.
    let name = rest.split_whitespace().nth(2)?;
    Some((name.to_owned(), outcome))
}

/// One test, both ways; `None` where it did not run.
struct Row {
    test: String,
    direct: Option<Outcome>,
    through: Option<Outcome>,
}

impl Row {
    /// Passes directly, and not through Tidegate.
    fn differs(&self) -> bool {
        self.direct == Some(Outcome::Ok) && self.through != Some(Outcome::Ok)
    }
}

/// Both ways beside each other.
pub(crate) struct Comparison {
    rows: Vec<Row>,
}

impl Comparison {
    pub(crate) fn of(direct: &Outcomes, through: &Outcomes) -> Comparison {
        let of = |outcomes: &Outcomes, test: &str| {
            outcomes.iter().find(|(name, _)| name == test).map(|(_, outcome)| *outcome)
        };
        let only_through = through.iter().filter(|(test, _)| of(direct, test).is_none());
        let rows = direct.iter().chain(only_through).map(|(test, _)| Row {
            test: test.clone(),
            direct: of(direct, test),
            through: of(through, test),
        });
        Comparison { rows: rows.collect() }
    }

    /// Is there no difference but those that are known?
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| !row.differs() || known::reason(&row.test).is_some())
    }

    /// A line for each test, and totals.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("\n{:28} {:16} {:16}\n", "test", "direct", "through Tidegate");
        let word = |outcome: Option<Outcome>| outcome.map_or("did not run", Outcome::word);
        for row in &self.rows {
            let note = match (row.differs(), known::reason(&row.test)) {
                (true, Some(reason)) => reason,
                (true, None) => "<-- differs",
                (false, Some(_)) if row.through == Some(Outcome::Ok) => {
                    "known to differ, but passes"
                }
                (false, _) => "",
            };
            let (direct, through) = (word(row.direct), word(row.through));
            let line = format!("{:28} {direct:16} {through:16} {note}", row.test);
            let _ = writeln!(table, "{}", line.trim_end());
        }
        let count = |passes: fn(&Row) -> bool| self.rows.iter().filter(|row| passes(row)).count();
        let direct = count(|row| row.direct == Some(Outcome::Ok));
        let through = count(|row| row.through == Some(Outcome::Ok));
        let known = count(|row| row.differs() && known::reason(&row.test).is_some());
        let differ = count(Row::differs);
        let _ = writeln!(
            table,
            "\n{} tests: {direct} pass directly, {through} through Tidegate; {differ} pass only directly, {known} of them for a \
             known reason",
            self.rows.len()
        );
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_output_are_read() {
        let plain = "test test_setup                   ... ok          302 ms\n\
             parallel group (2 tests):  char boolean\n     \
             boolean                      ... ok           97 ms\n     \
             char                         ... FAILED       62 ms\n     \
             random                       ... failed (ignored)       62 ms\n\
             \n 1 of 3 tests failed.\n";
        let tap = "# parallel group (2 tests):  char boolean\nok 1         - test_setup      302 ms\n\
             ok 2         + boolean       97 ms\nnot ok 3     + char       62 ms\n1..3\n";
        let named = |name: &str, outcome| (name.to_owned(), outcome);
        let common = [
            named("test_setup", Outcome::Ok),
            named("boolean", Outcome::Ok),
            named("char", Outcome::Failed),
        ];
        assert_eq!(read_outcomes(tap), common);
        let ignored = named("random", Outcome::Ignored);
        assert_eq!(read_outcomes(plain), [&common[..], &[ignored]].concat());
    }

    #[test]
    fn only_what_passes_directly_counts_against_tidegate() {
        let outcomes = |pairs: &[(&str, Outcome)]| {
            pairs.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect::<Outcomes>()
        };
        let direct = outcomes(&[("a", Outcome::Ok), ("b", Outcome::Failed)]);
        let good = outcomes(&[("a", Outcome::Ok), ("b", Outcome::Failed)]);
        assert!(Comparison::of(&direct, &good).is_good());
        let bad = outcomes(&[("a", Outcome::Failed), ("b", Outcome::Ok)]);
        assert!(!Comparison::of(&direct, &bad).is_good());
        assert!(!Comparison::of(&direct, &outcomes(&[("b", Outcome::Ok)])).is_good());
        assert!(Comparison::of(&direct, &bad).table().contains("1 pass only directly"));
    }
}
