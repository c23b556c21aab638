//! Where a statement runs: the one joint decision of what it is, what its session is, and what is known of its names.

use crate::ids::Priority;
use crate::policy::limit::TransactionState;
use crate::refusal::Refusal;
use crate::route::Lsn;
use crate::settings::Settings;
use crate::statement::{Signal, StringSyntax};
use std::sync::Arc;
use std::time::Duration;
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame;
use tidegate_wire::frontend::{self, Named};

/// What limits are asked to let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// A statement runs: so many times what the buckets say.
    Statement { factor: u32 },
    /// A transaction begins: nothing is charged, but one more statement must fit in, for those that follow in it are
    /// not refused.
    Transaction,
}

impl Charge {
    pub const ONE: Charge = Charge::Statement { factor: 1 };
}

/// Which kind of pool a lease comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// The primary's pool for writes.
    #[default]
    Primary,
    /// A replica's pool for reads, since the client said so: `SET tidegate.route = 'replica'`. The primary's read pool
    /// when there is no replica.
    Replica,
    /// What is proven to be nothing but a read: a replica, if one shows all that the session has written and seen.
    Read,
}

/// Says what a text is, from the caches of the worker and the newest view of the catalogue.
pub trait Router {
    /// Are there replicas, and is it wanted that they serve reads?
    fn splits(&self) -> bool;

    /// Is the text one statement that is proven to be nothing but a read, on any server?
    fn reads(&mut self, sql: &[u8], strings: StringSyntax) -> bool;

    /// Is it that, and has the routing policy nothing against a replica? A policy can keep a read from replicas; it cannot
    /// bring anything else there.
    fn wants_replica(&mut self, next: &Next<'_>) -> bool {
        self.reads(next.sql, next.strings)
    }

    /// Whether [`Self::priority`] may say of this text that it is anything but normal.
    fn ranks(&mut self, _: &[u8]) -> bool {
        true
    }

    /// Whether the routing policy has a statement wait before others, when it has to wait for a server.
    fn priority(&mut self, _: &Next<'_>) -> Priority {
        Priority::Normal
    }

    /// May answers be kept at all?
    fn keeps(&self) -> bool {
        false
    }

    /// Answers a unit of reads from what is kept.
    fn recall(&mut self, _: &Recall<'_>, _: &mut Vec<u8>) -> Recalled {
        Recalled::No
    }

    /// Does anybody watch what runs?
    fn watches(&self) -> bool {
        false
    }

    /// Tells whoever watches.
    fn watch(&mut self, _: Ran<'_>) {}

    /// Is there anybody to ask whether statements may run?
    fn guards(&mut self) -> bool {
        false
    }

    /// Whose is the number that a client was told for its process? `role`: as whom the session acts, if not as its user.
    fn owner(&self, _number: i32, _role: Option<&str>) -> ProcessOwner {
        ProcessOwner::Nobody
    }

    /// Does to the client that was told this number what PostgreSQL does to the session of a process.
    fn signal(&mut self, _number: i32, _signal: Signal) {}

    /// May the statement run now, as far as policies go? What passes is charged, so each is asked about until it passes.
    fn admit(&mut self, _: &Execution<'_>) -> Admission {
        Admission::Pass
    }
}

/// What came of a look for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// All but ReadyForQuery has been written.
    Answered,
    /// Somebody else is being asked: ask again when they have answered.
    Later,
    /// It is not kept.
    No,
}

/// Whose a process number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessOwner {
    /// It is none of a client of this process.
    Nobody,
    /// The session's role.
    Same,
    Another,
}

/// What becomes of statements, for whoever watches. They are numbered as they are sent, from 0 and wrapping;
/// `Session::answered` is the number of the next that a reply is owed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran<'a> {
    /// What Executes of this session run from now on: nearly always the portal that was bound last.
    Bound(Text<'a>),
    /// The same of a statement that only the server knows.
    BoundUnknown,
    /// A Query is sent; `None` for one that is too long to be looked at.
    Query(u32, Option<Text<'a>>),
    /// An Execute is sent.
    Execute(u32),
    /// A function is called by its number.
    Call(u32),
    /// The statement `first` failed, and those from there to `until` never run. The batch it belongs to may have no
    /// statement at all: then they are the same.
    Failed { first: u32, until: u32, sqlstate: &'a [u8] },
    /// The server has completed one, with this tag.
    Completed(&'a [u8]),
    /// The server is ready for what comes next; `over`: nothing that was sent is still to be answered.
    Ready { before: TransactionStatus, after: TransactionStatus, over: bool },
}

/// A Query, or a batch that binds and executes one statement, between transactions.
#[derive(Clone, Copy, Debug)]
pub struct Recall<'a> {
    pub sql: &'a [u8],
    pub strings: StringSyntax,
    /// All in force but what the server's sessions begin with.
    pub settings: &'a Arc<Settings>,
    pub batch: Option<RecalledBatch<'a>>,
}

/// What a batch asks for besides its rows.
#[derive(Clone, Copy, Debug)]
pub struct RecalledBatch<'a> {
    /// As in Parse.
    pub types: &'a [u8],
    /// What Bind says behind its names.
    pub bound: &'a [u8],
    /// It parses its statement itself,
    pub parses: Option<()>,
    /// wants something described,
    pub describes: Describes,
    /// and so many rows at most (0: all),
    pub rows_max: u32,
    /// and closes its portal when that has run.
    pub closes: Option<()>,
}

impl Recall<'_> {
    /// Bytes that ask a session for the same which knows no statements.
    pub fn unit(&self) -> Vec<u8> {
        let mut unit = Vec::with_capacity(64 + self.sql.len());
        let Some(batch) = &self.batch else {
            frontend::query(&mut unit, self.sql);
            return unit;
        };
        frontend::parse(&mut unit, b"", self.sql, batch.types);
        if batch.describes == Describes::Statement {
            frontend::describe(&mut unit, Named::Statement(b""));
        }
        frame::write(&mut unit, frontend::tag::BIND, |out| {
            // The unnamed portal, of the unnamed statement.
            out.extend([0, 0]);
            out.extend_from_slice(batch.bound);
        });
        if batch.describes == Describes::Portal {
            frontend::describe(&mut unit, Named::Portal(b""));
        }
        frontend::execute(&mut unit, b"", batch.rows_max.cast_signed());
        if batch.closes.is_some() {
            frontend::close(&mut unit, Named::Portal(b""));
        }
        frontend::sync(&mut unit);
        unit
    }
}

/// What a batch wants described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Describes {
    #[default]
    Nothing,
    /// The portal: its rows.
    Portal,
    /// The statement: its parameters, and its rows as a Bind without formats would have them.
    Statement,
}

impl RecalledBatch<'_> {
    /// Writes what a server answers to it, but for ReadyForQuery. `description` is what was asked for of it.
    pub fn write(&self, description: &[u8], rows: &[u8], out: &mut Vec<u8>) {
        let early = self.describes == Describes::Statement;
        if self.parses.is_some() {
            backend::parse_complete(out);
        }
        if early {
            out.extend_from_slice(description);
        }
        frame::write(out, backend::tag::BIND_COMPLETE, |_| {});
        if !early {
            out.extend_from_slice(description);
        }
        out.extend_from_slice(rows);
        if self.closes.is_some() {
            frame::write(out, backend::tag::CLOSE_COMPLETE, |_| {});
        }
    }
}

/// A text, and how it is read; `None` when that is not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    pub sql: &'a [u8],
    pub strings: Option<StringSyntax>,
}

/// A statement whose way is to be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Next<'a> {
    pub sql: &'a [u8],
    pub strings: StringSyntax,
    /// As in [`Execution`].
    pub end_user: Option<&'a str>,
    /// As the session has told (`SET tidegate.priority`).
    pub priority: Priority,
}

/// A statement that is about to run.
#[derive(Clone, Copy, Debug)]
pub struct Execution<'a> {
    /// Empty where it is not known.
    pub sql: &'a [u8],
    /// `None`: it is not certain how the text is read.
    pub strings: Option<StringSyntax>,
    pub charge: Charge,
    pub transaction: TransactionState,
    /// The application's user, as the session has told (`SET tidegate.user_id`).
    pub end_user: Option<&'a str>,
    pub application: &'a str,
}

/// Whether it may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Pass,
    /// Not now: ask again after so long.
    Later(Duration),
    /// Refused where no transaction is open; where one is, it runs.
    Refuse(Box<Refusal>),
    /// Refused wherever it stands. A transaction that is open fails, as by any error.
    Forbid(Box<Refusal>),
}

/// The setting by which a session has all its statements wait before others.
pub const PRIORITY_SETTING: &str = "tidegate.priority";
const PRIORITY_WORDS: [&str; 2] = ["normal", "critical"];

/// The priority that the setting names. What is not set, or is none of the words, is normal.
pub fn priority_from_setting(value: Option<&str>) -> Priority {
    match value {
        Some(word) if word.eq_ignore_ascii_case("critical") => Priority::Critical,
        _ => Priority::Normal,
    }
}

/// The setting by which a session wants no answers that are kept.
pub const CACHE_SETTING: &str = "tidegate.cache";

/// Is the text `SHOW tidegate.cache`, which Tidegate answers itself?
pub fn shows_cache(sql: &[u8]) -> bool {
    let rest = after_word(sql.trim_ascii(), "show");
    let rest = rest.filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace));
    let rest = rest.and_then(|rest| after_word(rest.trim_ascii(), CACHE_SETTING));
    rest.is_some_and(|rest| matches!(rest.trim_ascii(), b"" | b";"))
}

fn after_word<'a>(text: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (first, rest) = text.split_at_checked(word.len())?;
    first.eq_ignore_ascii_case(word.as_bytes()).then_some(rest)
}
/// Of settings that are on or off, the first.
const SWITCH_WORDS: [&str; 2] = ["on", "off"];

/// The setting by which a session wants its transactions run again when they are interrupted, or does not.
pub const REPLAY_SETTING: &str = "tidegate.transaction_replay";

/// What the setting says; `None`: nothing, as of what no text showed and is none of the words.
pub fn replay_from_setting(value: &str) -> Option<bool> {
    let word = SWITCH_WORDS.iter().position(|word| word.eq_ignore_ascii_case(value))?;
    Some(word == 0)
}

/// The setting by which a session names the application's user whom it works for.
pub const END_USER_SETTING: &str = "tidegate.user_id";

/// The setting by which a session wants its reads to see everything up to a position in the log.
pub const MIN_LSN_SETTING: &str = "tidegate.min_lsn";

/// What answers `SHOW tidegate.min_lsn`: a position behind everything that this session has written, seen or asked for. The
/// end of the log is read after all that, so it is none too early; on a replica, what it shows is what was seen.
pub const SHOW_MIN_LSN: &str = "SELECT GREATEST(CASE WHEN pg_catalog.pg_is_in_recovery() \
    THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
    NULLIF(pg_catalog.current_setting('tidegate.min_lsn', true), '')::pg_catalog.pg_lsn)::pg_catalog.text AS \"tidegate.min_lsn\"";

/// The position that the setting names. What is not set is none; what no text showed and is none means the primary: the safe side.
pub fn min_lsn_from_setting(value: Option<&str>) -> Option<Lsn> {
    let text = value.filter(|text| !text.is_empty())?;
    Some(Lsn::parse(text).unwrap_or(Lsn(u64::MAX)))
}

/// The router of a cluster without replicas.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrimaryOnly;

impl Router for PrimaryOnly {
    fn splits(&self) -> bool {
        false
    }

    fn reads(&mut self, _: &[u8], _: StringSyntax) -> bool {
        false
    }
}

/// What a session says about where its statements go (`SET tidegate.route`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutePreference {
    /// `auto`, or not set: reads may use replicas.
    #[default]
    Auto,
    Primary,
    Replica,
}

impl RoutePreference {
    /// The name of the setting, which travels like any custom setting of PostgreSQL.
    pub const SETTING: &'static str = "tidegate.route";
    /// What it may be.
    pub const WORDS: [&'static str; 3] = ["auto", "primary", "replica"];

    /// The preference that a word names, in any case, as PostgreSQL reads its enum settings.
    pub fn from_word(word: &str) -> Option<Self> {
        let named = |name| word.eq_ignore_ascii_case(name);
        match Self::WORDS.into_iter().find(|name| named(name))? {
            "primary" => Some(Self::Primary),
            "replica" => Some(Self::Replica),
            _ => Some(Self::Auto),
        }
    }

    /// What is not set is `auto`. A wrong word that no text showed means the primary: the safe side.
    pub fn from_setting(value: Option<&str>) -> Self {
        match value {
            None | Some("") => Self::Auto,
            Some(word) => Self::from_word(word).unwrap_or(Self::Primary),
        }
    }
}

/// Why a setting of Tidegate's own cannot have this value: in the words of PostgreSQL's enum settings.
pub fn refuse_setting(name: &str, value: &str) -> Option<Refusal> {
    if name.eq_ignore_ascii_case(MIN_LSN_SETTING) {
        let known = value.is_empty() || Lsn::parse(value).is_some();
        return (!known).then(|| {
            Refusal::error("22023", format!("invalid value for parameter \"{MIN_LSN_SETTING}\": \"{value}\""))
                .hint("It is a position in the log, as SHOW tidegate.min_lsn and pg_current_wal_insert_lsn() tell it: 16/B374D848.")
        });
    }
    let words: [(&str, &[&str]); 4] = [
        (RoutePreference::SETTING, &RoutePreference::WORDS),
        (PRIORITY_SETTING, &PRIORITY_WORDS),
        (CACHE_SETTING, &SWITCH_WORDS),
        (REPLAY_SETTING, &SWITCH_WORDS),
    ];
    let (name, words) = words.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
    let known = words.iter().any(|word| word.eq_ignore_ascii_case(value));
    (!known).then(|| {
        Refusal::error("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
            .hint(format!("Available values: {}.", words.join(", ")))
    })
}

/// What is to run next: everything up to the next moment in which the session may change its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Only statements that are proven to read, and the end of what they are in.
    Reads,
    /// Anything else, or what has not arrived as a whole.
    Anything,
}

/// The decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub target: Target,
    /// While it waits for a server.
    pub priority: Priority,
    /// A read sees everything up to there.
    pub min_lsn: Option<Lsn>,
}

/// Decides from what the session asked for and what is to run.
pub fn target(preference: RoutePreference, unit: Unit) -> Target {
    match (preference, unit) {
        (RoutePreference::Replica, _) => Target::Replica,
        (RoutePreference::Auto, Unit::Reads) => Target::Read,
        _ => Target::Primary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_about_the_cache_is_known_by_its_form() {
        for sql in ["SHOW tidegate.cache", " show  Tidegate.Cache ; ", "SHOW\ntidegate.cache"] {
            assert!(shows_cache(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "SHOW tidegate.cached",
            "SHOWtidegate.cache",
            "SHOW tidegate",
            "",
            "SHOW tidegate.cache, a",
        ] {
            assert!(!shows_cache(sql.as_bytes()), "{sql}");
        }
    }
}
