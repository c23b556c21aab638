//! What the statements of the tiny language do.

use super::*;

impl Fake {
    pub(in super::super) fn effective(&self, name: &str) -> String {
        let value = self.state.current.get(name).or_else(|| self.startup.get(name));
        value.map_or(default_of(name), String::as_str).to_owned()
    }

    pub(super) fn row(&self, word: &str) -> String {
        let mut row = word.to_owned();
        for (name, _) in SHOWN {
            row.push_str(&format!(" {name}={}", self.effective(name)));
        }
        row
    }

    pub(super) fn set(&mut self, name: &str, value: Option<&str>, local: bool) {
        let name = name.to_ascii_lowercase();
        let put = |map: &mut Map| match value {
            Some(value) => map.insert(name.clone(), value.to_owned()),
            None => map.remove(&name),
        };
        put(&mut self.state.current);
        if !local {
            put(&mut self.state.session);
        }
    }

    pub(super) fn run(
        &mut self,
        sql: &str,
        parameters: &[String],
        parsed_under: &str,
        top: Top,
    ) -> Result<Outcome, Failure> {
        let lower = sql.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_whitespace().collect();
        let quoted = quoted(sql);
        let tag = |tag: &str| Ok(Outcome::Rows(Vec::new(), tag.to_owned()));
        match words.as_slice() {
            ["begin", ..] => {
                match self.block {
                    Block::In | Block::Failed => self.notice("25001"),
                    _ => self.block = Block::In,
                }
                tag("BEGIN")
            }
            ["commit", ..] => {
                if self.block == Block::Failed {
                    self.roll_back();
                    return tag("ROLLBACK");
                }
                if self.block != Block::In {
                    self.notice("25P01");
                }
                if let Some(sqlstate) = self.conflict.take() {
                    self.roll_back();
                    return Err(failure(sqlstate, "could not serialize access"));
                }
                self.commit();
                tag("COMMIT")
            }
            ["rollback", "to", name] => {
                let at = self.savepoints.iter().rposition(|(known, _)| known == name);
                if !matches!(self.block, Block::In | Block::Failed) {
                    return Err(failure("25P01", "ROLLBACK TO can only be used in transactions"));
                }
                let at = at.ok_or_else(|| failure("3B001", "savepoint does not exist"))?;
                self.savepoints.truncate(at + 1);
                self.state = self.savepoints[at].1.clone();
                self.block = Block::In;
                self.portals.retain(|_, portal| portal.level <= at);
                tag("ROLLBACK")
            }
            ["rollback"] => {
                if !matches!(self.block, Block::In | Block::Failed) {
                    self.notice("25P01");
                }
                self.roll_back();
                tag("ROLLBACK")
            }
            ["savepoint", name] => {
                if self.block != Block::In {
                    return Err(failure("25P01", "SAVEPOINT can only be used in transactions"));
                }
                self.savepoints.push(((*name).to_owned(), self.state.clone()));
                tag("SAVEPOINT")
            }
            ["set", "local", name, "=", ..] => {
                if self.block == Block::Started && top == Top::Yes && self.left.is_empty() {
                    self.notice("25P01");
                }
                self.set(name, Some(&quoted[0]), true);
                tag("SET")
            }
            ["set", name, "=", ..] => {
                if quoted[0] == "invalid" {
                    return Err(failure("22023", "invalid value"));
                }
                self.set(name, Some(&quoted[0]), false);
                tag("SET")
            }
            ["reset", "all"] => {
                self.state.session.retain(|name, _| name == "role");
                self.state.current.retain(|name, _| name == "role");
                tag("RESET")
            }
            ["reset", name] => {
                self.set(&name.replace('"', ""), None, false);
                tag("RESET")
            }
            ["show", name] => {
                let value = self.effective(name);
                Ok(Outcome::Rows(vec![value], "SHOW".into()))
            }
            ["prepare", name, "as", ..] => {
                let body = &sql[lower.find(" as ").unwrap() + 4..];
                if self.named.contains_key(name.as_bytes()) {
                    return Err(failure("42P05", "prepared statement already exists"));
                }
                let parsed_under = self.effective("timezone");
                let statement = Statement { sql: body.to_owned(), from_sql: true, parsed_under };
                self.named.insert(name.as_bytes().to_vec(), statement);
                tag("PREPARE")
            }
            ["execute", name] => {
                let statement = self.statement(name.as_bytes())?;
                self.run(&statement.sql, &[], &statement.parsed_under, top)
            }
            ["deallocate", "all"] => {
                self.named.clear();
                tag("DEALLOCATE ALL")
            }
            ["deallocate", name, ..] => {
                self.statement(name.as_bytes())?;
                self.named.remove(name.as_bytes());
                tag("DEALLOCATE")
            }
            ["discard", "all"] => {
                if self.block != Block::Started || top == Top::No {
                    return Err(failure("25001", "DISCARD ALL cannot run in a transaction"));
                }
                self.state = Transactional::default();
                self.named.clear();
                self.locks = 0;
                self.sequences = None;
                self.portals.retain(|name, _| name.is_empty());
                tag("DISCARD ALL")
            }
            ["discard", "sequences"] => {
                self.sequences = None;
                tag("DISCARD SEQUENCES")
            }
            ["listen", name] => {
                self.state.listens.insert((*name).to_owned());
                tag("LISTEN")
            }
            ["unlisten", name] => {
                self.state.listens.retain(|known| *name != "*" && known != name);
                tag("UNLISTEN")
            }
            ["create", "temp", "table", name, ..] => {
                if !self.state.temporary.insert((*name).to_owned()) {
                    return Err(failure("42P07", "relation already exists"));
                }
                tag("CREATE TABLE")
            }
            ["drop", "table", name] => {
                if !self.state.temporary.remove(*name) {
                    return Err(failure("42P01", "table does not exist"));
                }
                tag("DROP TABLE")
            }
            ["copy", _, "from", ..] => Ok(Outcome::CopyIn),
            ["copy", _, "to", ..] => Ok(Outcome::CopyOut),
            ["select", ..] | ["values", ..] => {
                self.select(sql, &lower, &quoted, parameters, parsed_under)
            }
            other => panic!("the fake does not know {other:?}"),
        }
    }

    pub(super) fn select(
        &mut self,
        sql: &str,
        lower: &str,
        quoted: &[String],
        parameters: &[String],
        parsed_under: &str,
    ) -> Result<Outcome, Failure> {
        if lower.starts_with("select 's'::") || lower.starts_with("select 'p'::") {
            let rows = self.probe(sql);
            // Its three columns are written here, since all other rows have one.
            backend::row_description_text(&mut self.held, &["k", "n", "v"]);
            for row in &rows {
                let row: Vec<_> = row.iter().map(|v| v.as_deref().map(str::as_bytes)).collect();
                backend::data_row(&mut self.held, &row);
            }
            return Ok(Outcome::Rows(Vec::new(), format!("SELECT {}", rows.len())));
        }
        // Those of Tidegate's own begin otherwise.
        if let Some(sqlstate) = self.conflict.take_if(|_| lower.starts_with("select '")) {
            return Err(failure(sqlstate, "could not serialize access"));
        }
        if lower.contains("1/0") {
            return Err(failure("22012", "division by zero"));
        }
        if lower.contains("pg_terminate_backend") {
            self.die("57P01");
            return Ok(Outcome::Dead);
        }
        if lower.contains("set_config(") {
            let local = lower.contains("true)");
            for pair in quoted.chunks(2) {
                self.set(&pair[0], Some(&pair[1]), local);
            }
        }
        if lower.contains("poke(") {
            self.set(&quoted[0], Some(&quoted[1]), false);
        }
        if lower.contains("'veiled'") {
            self.set(&quoted[1], Some(&quoted[2]), false);
        }
        if lower.contains("nextval(") {
            self.sequences = Some(quoted[0].clone());
        }
        if lower.contains("lastval(") && self.sequences.is_none() {
            return Err(failure("55000", "lastval is not yet defined in this session"));
        }
        if lower.contains("pg_advisory_lock(") {
            self.locks += 1;
        }
        if lower.contains("pg_advisory_unlock(") {
            self.locks = self.locks.saturating_sub(1);
        }
        let rows = rows_of(sql, parameters, parsed_under, self);
        let tag = format!("SELECT {}", rows.len());
        Ok(Outcome::Rows(rows, tag))
    }

    /// The rows of Tidegate's own question.
    pub(super) fn probe(&self, sql: &str) -> Vec<[Option<String>; 3]> {
        let mut rows = Vec::new();
        let setting =
            |name: &str, value: String| [Some("s".to_owned()), Some(name.to_owned()), Some(value)];
        for part in sql.split(" UNION ALL ") {
            if part.contains(",name,pg_catalog.current_setting(name,true)") {
                for (name, value) in &self.state.session {
                    let hidden = name.contains('.') || name == "role";
                    if !hidden {
                        let name = if name == "timezone" { "TimeZone" } else { name };
                        rows.push(setting(name, value.clone()));
                    }
                }
            } else if part.starts_with("SELECT 's'") && !part.ends_with("WHERE false") {
                let name = quoted(part).swap_remove(1);
                if self.state.current.contains_key(&name) || !name.contains('.') {
                    rows.push(setting(&name, self.effective(&name)));
                } else {
                    rows.push([Some("s".to_owned()), Some(name), None]);
                }
            }
            let cause = [
                ("temporary_objects", !self.state.temporary.is_empty()),
                ("advisory_locks", self.locks > 0),
                ("listen", !self.state.listens.is_empty()),
                ("sql_prepared", self.has_own_names()),
            ];
            for (name, there) in cause {
                if there && part.contains(&format!("'{name}'")) {
                    rows.push([Some("p".to_owned()), Some(name.to_owned()), None]);
                }
            }
        }
        rows
    }

    /// Statements that are not Tidegate's: made by SQL, or under a client's own name.
    pub(super) fn has_own_names(&self) -> bool {
        self.named.iter().any(|(name, made)| made.from_sql || !name.starts_with(b"tidegate_"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Top {
    Yes,
    No,
}

pub(super) enum Ran {
    Over,
    Copies,
}

pub(super) enum Outcome {
    Rows(Vec<String>, String),
    CopyIn,
    CopyOut,
    Dead,
}

pub(super) fn rows_of(
    sql: &str,
    parameters: &[String],
    parsed_under: &str,
    fake: &Fake,
) -> Vec<String> {
    let mut word = quoted(sql).into_iter().next().unwrap_or_default();
    for parameter in parameters {
        word.push_str(parameter);
    }
    if sql.contains("'tick'") {
        word.push_str(&fake.tick.to_string());
    }
    if sql.contains("timestamptz") {
        word.push_str(parsed_under);
    }
    let count = if sql.contains("series") { 3 } else { 1 };
    (0..count).map(|n| fake.row(&format!("{word}#{n}"))).collect()
}

pub(super) fn default_of(name: &str) -> &'static str {
    SHOWN.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

pub(super) fn first_word(sql: &str) -> String {
    sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

pub(super) fn describes(sql: &str) -> bool {
    matches!(first_word(sql).as_str(), "select" | "show" | "execute" | "values")
        && !sql.starts_with("SELECT 's'::")
        && !sql.starts_with("SELECT 'p'::")
}

pub(super) fn is_transaction_command(sql: &str) -> bool {
    matches!(first_word(sql).as_str(), "begin" | "commit" | "rollback" | "savepoint")
}

pub(super) fn raw_parse(sql: &str) -> Result<(), Failure> {
    const KNOWN: [&str; 19] = [
        "begin",
        "commit",
        "rollback",
        "savepoint",
        "set",
        "reset",
        "show",
        "prepare",
        "execute",
        "deallocate",
        "discard",
        "listen",
        "unlisten",
        "create",
        "drop",
        "copy",
        "select",
        "values",
        "",
    ];
    if KNOWN.contains(&first_word(sql).as_str()) {
        Ok(())
    } else {
        Err(failure("42601", "syntax error"))
    }
}

pub(super) fn analyse(sql: &str, _fake: &Fake) -> Result<(), Failure> {
    if sql.to_ascii_lowercase().contains("from missing") {
        return Err(failure("42P01", "relation \"missing\" does not exist"));
    }
    Ok(())
}

/// The texts between quotes.
pub(super) fn quoted(sql: &str) -> Vec<String> {
    sql.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

pub(super) fn split(sql: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut inside = false;
    for letter in sql.chars() {
        inside ^= letter == '\'';
        if letter == ';' && !inside {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push(letter);
        }
    }
    all.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}
