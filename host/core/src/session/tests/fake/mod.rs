//! A PostgreSQL backend for a tiny language, as `postgres.c`, `xact.c` and "Message Flow" have it (version 15).
//!
//! Its rows show the settings in force, so that a mixed-up session is seen. Output is held back until a real server
//! would flush it.

mod copy; // COPY
mod language;

use crate::session::hidden::INSPECTION;
use language::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::error_fields::{self, Fields};
use tidegate_wire::frame::{self, HEADER_BYTES, Header};
use tidegate_wire::frontend::{self, Named, tag};

pub(super) type Map = BTreeMap<String, String>;

/// The settings that every row shows, with their default values.
pub(super) const SHOWN: [(&str, &str); 5] =
    [("timezone", "UTC"), ("work_mem", "4MB"), ("app.x", ""), ("app.y", ""), ("role", "none")];
/// The settings whose changes are reported before ReadyForQuery.
const REPORTED: [(&str, &str); 1] = [("timezone", "TimeZone")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Default,
    /// One statement, or an extended batch.
    Started,
    /// Several statements in one Query.
    Implicit,
    In,
    Failed,
}

#[derive(Clone, Debug, Default)]
struct Transactional {
    /// What lasts beyond the transaction, apart from the start-up values.
    session: Map,
    /// What is in force now.
    current: Map,
    temporary: BTreeSet<String>,
    listens: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Statement {
    sql: String,
    from_sql: bool,
    /// A time zone that was read into a literal at Parse.
    parsed_under: String,
}

#[derive(Clone, Debug)]
struct Portal {
    statement: Statement,
    parameters: Vec<String>,
    /// Rows already given; none before the first Execute.
    given: usize,
    done: bool,
    broken: bool,
    level: usize,
}

#[derive(Debug)]
struct Failure {
    sqlstate: &'static str,
    message: String,
}

fn failure(sqlstate: &'static str, message: impl Into<String>) -> Failure {
    Failure { sqlstate, message: message.into() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Query,
    Execute,
}

#[derive(Debug)]
struct CopyIn {
    by: By,
    rows: usize,
}

#[derive(Debug)]
pub(super) struct Fake {
    startup: Map,
    state: Transactional,
    base: Transactional,
    savepoints: Vec<(String, Transactional)>,
    block: Block,
    pipelined: bool,
    named: BTreeMap<Vec<u8>, Statement>,
    unnamed: Option<Statement>,
    portals: BTreeMap<Vec<u8>, Portal>,
    locks: usize,
    skipping: bool,
    copying: Option<CopyIn>,
    /// The statements of a Query that are still to run.
    left: VecDeque<String>,
    input: Vec<u8>,
    held: Vec<u8>,
    pub out: Vec<u8>,
    reported: Map,
    pub dead: bool,
    /// Texts that came by Query or Parse, for directed tests.
    pub seen: Vec<String>,
    /// `nextval` was called since the connection or DISCARD.
    sequences: Option<String>,
    /// The next SELECT or COMMIT of a client's cannot be serialized.
    pub conflict: Option<&'static str>,
    /// What `SELECT 'tick'` shows.
    pub tick: usize,
}

impl Fake {
    pub(super) fn new(startup: Map) -> Self {
        let mut fake = Self {
            startup,
            state: Transactional::default(),
            base: Transactional::default(),
            savepoints: Vec::new(),
            block: Block::Default,
            pipelined: false,
            named: BTreeMap::new(),
            unnamed: None,
            portals: BTreeMap::new(),
            locks: 0,
            skipping: false,
            copying: None,
            left: VecDeque::new(),
            input: Vec::new(),
            held: Vec::new(),
            out: Vec::new(),
            reported: Map::new(),
            dead: false,
            seen: Vec::new(),
            sequences: None,
            conflict: None,
            tick: 0,
        };
        fake.reported =
            REPORTED.iter().map(|(name, _)| (name.to_string(), fake.effective(name))).collect();
        fake
    }

    // --- what the world looks at -------------------------------------------------------------------

    /// Up to `count` bytes of what has been flushed.
    pub(super) fn take_output(&mut self, count: usize) -> Vec<u8> {
        let count = count.min(self.out.len());
        self.out.drain(..count).collect()
    }

    /// What a server that goes back to its pool must not have; empty when it is fit for anybody.
    pub(super) fn leftovers(&self, known: &Map) -> String {
        let mut found = String::new();
        let mut say = |what: &str, there: bool| {
            if there {
                found.push_str(what);
                found.push(' ');
            }
        };
        say("transaction", self.block != Block::Default);
        say("input", !self.input.is_empty());
        say("output", !self.out.is_empty() || !self.held.is_empty());
        say("copy", self.copying.is_some());
        say("skipping", self.skipping);
        say("temporary", !self.state.temporary.is_empty());
        say("listens", !self.state.listens.is_empty());
        say("locks", self.locks > 0);
        say("sql-prepared", self.has_own_names());
        // A setting may be known to have its default value.
        for name in self.state.session.keys().chain(known.keys()) {
            let there = self.effective(name);
            let known = known.get(name).map_or(default_of(name), String::as_str);
            if there != known {
                found.push_str(&format!("{name} is {there:?} but known as {known:?} "));
            }
        }
        found
    }

    pub(super) fn named_count(&self) -> usize {
        self.named.len()
    }

    /// Sends something at no request: a notice, or a FATAL error that ends the connection.
    pub(super) fn say_unasked(&mut self, fatal: Option<&'static str>) {
        let fields =
            Fields { severity: "NOTICE", sqlstate: "00000", message: "hello", ..Fields::default() };
        match fatal {
            None => error_fields::notice_response(&mut self.held, fields),
            Some(sqlstate) => self.die(sqlstate),
        }
        self.flush();
    }

    // --- messages ------------------------------------------------------------------------------------

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.dead {
            return;
        }
        self.input.extend_from_slice(bytes);
        while !self.dead {
            let Some(header) = Header::peek(&self.input, 1 << 30).expect("a frame from the proxy")
            else {
                return;
            };
            if self.copying.is_some() && !b"dcfHS".contains(&header.tag) {
                // CopyGetData looks at the type before it reads the body, so it cannot go on.
                self.error(&failure("08P01", "unexpected message type during COPY from stdin"));
                self.die("08P01");
                return;
            }
            if self.input.len() < header.frame_bytes() {
                return;
            }
            let frame: Vec<u8> = self.input.drain(..header.frame_bytes()).collect();
            self.message(header.tag, &frame[HEADER_BYTES..]);
        }
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        if self.copying.is_some() {
            return self.copy_message(kind, body);
        }
        if kind == tag::SYNC {
            self.skipping = false;
        }
        if self.skipping && kind != tag::TERMINATE {
            return;
        }
        let result = match kind {
            tag::QUERY => return self.query(body),
            tag::FUNCTION_CALL => {
                self.start();
                let result = self.check_alive("");
                if result.is_ok() {
                    frame::write(&mut self.held, b'V', |out| out.extend((-1_i32).to_be_bytes()));
                    self.finish();
                } else if let Err(why) = &result {
                    self.error(why);
                }
                return self.ready();
            }
            tag::SYNC => {
                self.finish();
                return self.ready();
            }
            tag::FLUSH => {
                self.flush();
                Ok(())
            }
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => Ok(()),
            tag::TERMINATE => {
                self.dead = true;
                Ok(())
            }
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body),
            tag::DESCRIBE => self.describe(body),
            tag::EXECUTE => self.execute(body),
            tag::CLOSE => self.close(body),
            other => panic!("frontend message {:?}", other as char),
        };
        if let Err(why) = result {
            self.error(&why);
            self.skipping = true;
        }
    }

    fn flush(&mut self) {
        self.out.append(&mut self.held);
    }

    fn ready(&mut self) {
        for (name, wire) in REPORTED {
            let value = self.effective(name);
            if self.reported.get(name) != Some(&value) {
                backend::parameter_status(&mut self.held, wire.as_bytes(), value.as_bytes());
                self.reported.insert(name.to_owned(), value);
            }
        }
        let status = match self.block {
            Block::Default => TransactionStatus::Idle,
            Block::Failed => TransactionStatus::Failed,
            _ => TransactionStatus::InTransaction,
        };
        backend::ready_for_query(&mut self.held, status);
        self.flush();
    }

    fn error(&mut self, why: &Failure) {
        self.write_error("ERROR", why);
        self.abort();
    }

    fn write_error(&mut self, severity: &str, why: &Failure) {
        let fields =
            Fields { severity, sqlstate: why.sqlstate, message: &why.message, ..Fields::default() };
        error_fields::error_response(&mut self.held, fields);
        self.flush();
    }

    fn die(&mut self, sqlstate: &'static str) {
        self.write_error("FATAL", &failure(sqlstate, "terminating connection"));
        self.dead = true;
    }

    /// As PostgreSQL cancels what stands in the way of replaying, in the middle of a statement.
    pub(super) fn cancel_for_replay(&mut self, sqlstate: &str) {
        let fields =
            Fields { severity: "ERROR", sqlstate, message: "conflict", ..Fields::default() };
        error_fields::error_response(&mut self.held, fields);
        self.flush();
    }

    pub(super) fn notice(&mut self, sqlstate: &str) {
        let fields =
            Fields { severity: "WARNING", sqlstate, message: "transaction", ..Fields::default() };
        error_fields::notice_response(&mut self.held, fields);
        self.flush();
    }

    // --- transactions --------------------------------------------------------------------------------

    fn start(&mut self) {
        if self.block == Block::Default {
            self.base = self.state.clone();
            self.block = Block::Started;
            self.pipelined = false;
        }
    }

    /// `finish_xact_command`.
    fn finish(&mut self) {
        if matches!(self.block, Block::Started | Block::Implicit) {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.state.current = self.state.session.clone();
        self.end();
    }

    fn end(&mut self) {
        self.block = Block::Default;
        self.savepoints.clear();
        self.portals.clear();
    }

    fn roll_back(&mut self) {
        self.state = self.base.clone();
        self.end();
    }

    /// `AbortCurrentTransaction`.
    fn abort(&mut self) {
        self.left.clear();
        self.copying = None;
        match self.block {
            Block::Default => {}
            Block::Started | Block::Implicit => self.roll_back(),
            Block::In | Block::Failed => {
                let to = self.savepoints.last().map_or(&self.base, |(_, state)| state);
                self.state = to.clone();
                self.block = Block::Failed;
            }
        }
    }

    fn check_alive(&self, sql: &str) -> Result<(), Failure> {
        let word = first_word(sql);
        let leaves = matches!(word.as_str(), "commit" | "rollback" | "end" | "abort");
        if self.block == Block::Failed && !leaves {
            return Err(failure("25P02", "current transaction is aborted"));
        }
        Ok(())
    }

    // --- the simple protocol -------------------------------------------------------------------------

    fn query(&mut self, body: &[u8]) {
        let sql = String::from_utf8(frontend::read_query(body).unwrap().to_vec()).unwrap();
        self.seen.push(sql.clone());
        self.start();
        self.unnamed = None;
        if sql == INSPECTION {
            backend::row_description_text(&mut self.held, &["kind", "name"]);
            backend::data_row(&mut self.held, &[Some(b"anywhere"), None]);
            backend::command_complete(&mut self.held, b"SELECT 1");
            self.finish();
            return self.ready();
        }
        let all = split(&sql);
        if let Some(Err(why)) = all.iter().map(|one| raw_parse(one)).find(Result::is_err) {
            self.error(&why);
            return self.ready();
        }
        if all.is_empty() {
            self.finish();
            frame::write(&mut self.held, b'I', |_| {});
            return self.ready();
        }
        self.left = all.into();
        self.run_rest(self.left.len() > 1);
    }

    fn run_rest(&mut self, several: bool) {
        while let Some(sql) = self.left.pop_front() {
            self.start();
            if several && self.block == Block::Started {
                self.block = Block::Implicit;
            }
            self.portals.remove(&b""[..]);
            match self.run_simple(&sql, several) {
                Ok(Ran::Copies) => return,
                Ok(Ran::Over) => {}
                Err(why) => {
                    self.error(&why);
                    break;
                }
            }
            if self.dead {
                return;
            }
        }
        self.ready();
    }

    fn run_simple(&mut self, sql: &str, several: bool) -> Result<Ran, Failure> {
        self.check_alive(sql)?;
        analyse(sql, self)?;
        let top = if several { Top::No } else { Top::Yes };
        let parsed_under = self.effective("timezone");
        match self.run(sql, &[], &parsed_under, top)? {
            Outcome::Rows(rows, tag) => {
                if describes(sql) {
                    backend::row_description_text(&mut self.held, &["v"]);
                }
                for row in &rows {
                    backend::data_row(&mut self.held, &[Some(row.as_bytes())]);
                }
                self.end_of_statement(sql);
                backend::command_complete(&mut self.held, tag.as_bytes());
                Ok(Ran::Over)
            }
            Outcome::CopyIn => {
                self.copy_begins(By::Query);
                Ok(Ran::Copies)
            }
            Outcome::CopyOut => {
                self.copy_out();
                self.end_of_statement(sql);
                backend::command_complete(&mut self.held, b"COPY 2");
                Ok(Ran::Over)
            }
            Outcome::Dead => Ok(Ran::Over),
        }
    }

    fn end_of_statement(&mut self, sql: &str) {
        if self.left.is_empty() || is_transaction_command(sql) {
            self.finish();
        }
    }

    // --- the extended protocol -----------------------------------------------------------------------

    fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let parse = frontend::read_parse(body).unwrap();
        let sql = String::from_utf8(parse.sql.to_vec()).unwrap();
        self.seen.push(sql.clone());
        self.start();
        if parse.name.is_empty() {
            self.unnamed = None;
        }
        let all = split(&sql);
        for one in &all {
            raw_parse(one)?;
        }
        if all.len() > 1 {
            return Err(failure("42601", "cannot insert multiple commands"));
        }
        let sql = all.into_iter().next().unwrap_or_default();
        if !sql.is_empty() {
            self.check_alive(&sql)?;
            analyse(&sql, self)?;
        }
        let parsed_under = self.effective("timezone");
        let statement = Statement { sql, from_sql: false, parsed_under };
        if parse.name.is_empty() {
            self.unnamed = Some(statement);
        } else if self.named.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(failure("42P05", format!("prepared statement \"{name}\" already exists")));
        } else {
            self.named.insert(parse.name.to_vec(), statement);
        }
        frame::write(&mut self.held, b'1', |_| {});
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<Statement, Failure> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) };
        found.cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            failure("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let names = frontend::read_bind_names(body).unwrap();
        let statement = self.statement(names.statement)?;
        self.start();
        let mut reader = frame::Reader::new(&body[names.names_bytes..]);
        let formats = reader.i16().unwrap();
        reader.bytes(formats as usize * 2).unwrap();
        let mut parameters = Vec::new();
        for _ in 0..reader.i16().unwrap() {
            let length = reader.i32().unwrap() as usize;
            parameters.push(String::from_utf8(reader.bytes(length).unwrap().to_vec()).unwrap());
        }
        if parameters.len() != usize::from(statement.sql.contains("$1")) {
            return Err(failure("08P01", "bind message supplies a wrong number of parameters"));
        }
        if !statement.sql.is_empty() {
            self.check_alive(&statement.sql)?;
        }
        if names.portal.is_empty() {
            self.portals.remove(&b""[..]);
        } else if self.portals.contains_key(names.portal) {
            return Err(failure("42P03", "cursor already exists"));
        }
        let level = self.savepoints.len();
        let portal = Portal { statement, parameters, given: 0, done: false, broken: false, level };
        self.portals.insert(names.portal.to_vec(), portal);
        frame::write(&mut self.held, b'2', |_| {});
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.start();
        let (statement, parameters) = match frontend::read_named(body).unwrap() {
            Named::Statement(name) => {
                let statement = self.statement(name)?;
                let count = u16::from(statement.sql.contains("$1"));
                (statement, Some(count))
            }
            Named::Portal(name) => {
                let portal = self.portals.get(name);
                let portal = portal.ok_or_else(|| failure("34000", "portal does not exist"))?;
                (portal.statement.clone(), None)
            }
        };
        if describes(&statement.sql) {
            self.check_alive("")?;
        }
        if let Some(count) = parameters {
            frame::write(&mut self.held, b't', |out| {
                out.extend(count.to_be_bytes());
                (0..count).for_each(|_| out.extend(25_i32.to_be_bytes()));
            });
        }
        if describes(&statement.sql) {
            backend::row_description_text(&mut self.held, &["v"]);
        } else {
            frame::write(&mut self.held, b'n', |_| {});
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut reader = frame::Reader::new(body);
        let name = reader.cstr().unwrap().to_vec();
        let rows_max = reader.i32().unwrap().max(0) as usize;
        let portal = self.portals.get(&name).cloned();
        let mut portal = portal.ok_or_else(|| failure("34000", "portal does not exist"))?;
        let sql = portal.statement.sql.clone();
        if sql.is_empty() {
            frame::write(&mut self.held, b'I', |_| {});
            return Ok(());
        }
        self.start();
        self.check_alive(&sql)?;
        if portal.broken || portal.done {
            return Err(failure("55000", "portal cannot be run"));
        }
        let top = if self.pipelined { Top::No } else { Top::Yes };
        let under = portal.statement.parsed_under.clone();
        let outcome = if describes(&sql) && portal.given > 0 {
            Ok(Outcome::Rows(rows_of(&sql, &portal.parameters, &under, self), "SELECT".into()))
        } else {
            self.run(&sql, &portal.parameters, &under, top)
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => {
                if let Some(portal) = self.portals.get_mut(&name) {
                    portal.broken = true;
                }
                return Err(why);
            }
        };
        match outcome {
            Outcome::Rows(rows, tag) if describes(&sql) => {
                let left = rows.len().saturating_sub(portal.given.min(rows.len()));
                let count = if rows_max == 0 { left } else { left.min(rows_max) };
                let start = portal.given.min(rows.len());
                for row in &rows[start..start + count] {
                    backend::data_row(&mut self.held, &[Some(row.as_bytes())]);
                }
                // Beyond the end is told apart from before the start.
                portal.given = if count == left && (rows_max == 0 || count < rows_max) {
                    usize::MAX
                } else {
                    portal.given + count
                };
                let suspended = portal.given != usize::MAX;
                if let Some(there) = self.portals.get_mut(&name) {
                    there.given = portal.given;
                }
                if suspended {
                    frame::write(&mut self.held, b's', |_| {});
                } else {
                    let verb = tag.split(' ').next().unwrap();
                    let tag =
                        if verb == "SELECT" { format!("SELECT {count}") } else { tag.clone() };
                    backend::command_complete(&mut self.held, tag.as_bytes());
                }
                self.pipelined = true;
                Ok(())
            }
            Outcome::Rows(_, tag) => {
                self.executed(&name, &sql);
                backend::command_complete(&mut self.held, tag.as_bytes());
                Ok(())
            }
            Outcome::CopyIn => {
                if let Some(portal) = self.portals.get_mut(&name) {
                    portal.done = true;
                }
                self.copy_begins(By::Execute);
                Ok(())
            }
            Outcome::CopyOut => {
                self.copy_out();
                self.executed(&name, &sql);
                backend::command_complete(&mut self.held, b"COPY 2");
                Ok(())
            }
            Outcome::Dead => Ok(()),
        }
    }

    fn executed(&mut self, portal: &[u8], sql: &str) {
        if let Some(portal) = self.portals.get_mut(portal) {
            portal.done = true;
        }
        if is_transaction_command(sql) || sql.to_ascii_lowercase().starts_with("discard all") {
            self.finish();
        } else {
            self.pipelined = true;
        }
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Failure> {
        match frontend::read_named(body).unwrap() {
            Named::Statement(b"") => self.unnamed = None,
            Named::Statement(name) => {
                self.named.remove(name);
            }
            Named::Portal(name) => {
                self.portals.remove(name);
            }
        }
        frame::write(&mut self.held, b'3', |_| {});
        Ok(())
    }
}
