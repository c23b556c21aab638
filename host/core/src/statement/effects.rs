//! What a statement may do to its session, as plain data.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of effect classes, one bit each.
///
/// A bit says "may": it is set whenever the text leaves a doubt. An absent bit is a promise, except for
/// what no text can show: functions called by triggers, operators, casts, views, rules and defaults.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Effects = Effects(1 << $bit);)*

            /// Every class with its name, in the order of the bits.
            pub const CLASSES: &[(Effects, &str)] = &[$((Effects::$name, stringify!($name)),)*];
        }
    };
}

effects! {
    /// A session-level SET or RESET of settings that `Analysis::names` lists.
    SETS = 0;
    /// RESET ALL (DISCARD ALL has its own bit).
    RESET_ALL = 1;
    /// May change *any* session state, settings that we cannot name first of all: DO, CALL, EXECUTE,
    /// a function that is no known built-in, CREATE EXTENSION, a text that we do not understand.
    UNKNOWN_SETTINGS = 2;
    /// Creates or names temporary objects.
    TEMP_OBJECTS = 3;
    /// State may have gone: DROP, DISCARD, ROLLBACK, ROLLBACK TO.
    DROPS = 4;
    /// Takes session-level advisory locks.
    ADVISORY_LOCK = 5;
    /// Releases session-level advisory locks.
    ADVISORY_UNLOCK = 6;
    /// DECLARE … WITH HOLD.
    HOLD_CURSOR = 7;
    /// CLOSE.
    CLOSES_CURSOR = 8;
    LISTEN = 9;
    UNLISTEN = 10;
    /// SQL-level PREPARE (names in `Analysis::prepared`).
    PREPARES = 11;
    /// SQL-level EXECUTE, also below EXPLAIN and CREATE TABLE AS. Always together with
    /// `UNKNOWN_SETTINGS`: what was prepared may do anything.
    EXECUTES = 12;
    /// DEALLOCATE (names in `Analysis::prepared`).
    DEALLOCATES = 13;
    DISCARD_ALL = 14;
    DISCARD_PLANS = 15;
    DISCARD_TEMP = 16;
    DISCARD_SEQUENCES = 17;
    /// BEGIN, START TRANSACTION.
    BEGINS = 18;
    /// COMMIT, END, ROLLBACK, ABORT, PREPARE TRANSACTION; not ROLLBACK TO, not COMMIT PREPARED.
    ENDS = 19;
    /// AND CHAIN: the transaction that ends is followed by another at once.
    CHAINS = 20;
    /// Reads what `nextval` left in this session: currval, lastval.
    SEQUENCE_STATE = 21;
    /// setseed(), SET SEED.
    SEED = 22;
    /// LOAD of a shared library, and CREATE FUNCTION in C; only the end of the connection undoes it.
    LOADS = 23;
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TWO_PHASE = 24;
    /// Changes the catalogue.
    DDL = 25;
    /// Large-object descriptors, which live until the transaction ends.
    LARGE_OBJECT_DESCRIPTOR = 26;
    COPY_FROM = 27;
    COPY_TO = 28;
    /// Changes the current or session user: SET ROLE, SET SESSION AUTHORIZATION and their RESETs.
    SESSION_AUTHORIZATION = 29;
    /// SET, RESET or SHOW of Tidegate's own virtual settings (`tidegate.*`).
    TIDEGATE_SET = 30;
    /// State that cannot be looked up afterwards and ends only with the connection: replication commands,
    /// slots and origins, a running base backup, `search_path` on the temporary schema.
    SESSION_BOUND = 31;
}

impl Effects {
    pub const NONE: Effects = Effects(0);

    /// Everything that can leave state behind in the session. What a text that we do not understand may do.
    pub const ANY_STATE: Effects = Effects::UNKNOWN_SETTINGS
        .with(Effects::SETS)
        .with(Effects::TEMP_OBJECTS)
        .with(Effects::ADVISORY_LOCK)
        .with(Effects::HOLD_CURSOR)
        .with(Effects::LISTEN)
        .with(Effects::PREPARES)
        .with(Effects::EXECUTES)
        .with(Effects::SEED)
        .with(Effects::LOADS)
        .with(Effects::SESSION_AUTHORIZATION)
        .with(Effects::SESSION_BOUND);

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Are all of `other`'s bits set?
    pub const fn contains(self, other: Effects) -> bool {
        self.0 & other.0 == other.0
    }

    /// Is any of `other`'s bits set?
    pub const fn intersects(self, other: Effects) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn with(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Effects) -> Effects {
        Effects(self.0 & !other.0)
    }
}

impl BitOr for Effects {
    type Output = Effects;
    fn bitor(self, other: Effects) -> Effects {
        self.with(other)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, other: Effects) {
        *self = self.with(other);
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Effects::CLASSES.iter().filter(|(bit, _)| self.contains(*bit));
        f.write_str("{")?;
        for (position, (_, name)) in names.enumerate() {
            f.write_str(if position == 0 { "" } else { " " })?;
            f.write_str(name)?;
        }
        f.write_str("}")
    }
}

/// The command a statement starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No statement at all: empty, or only white space, comments and semicolons.
    #[default]
    Empty,
    Select,
    /// WITH …: its last part may be any of the five that follow SELECT here.
    With,
    Values,
    /// TABLE name.
    Table,
    Insert,
    Update,
    Delete,
    Merge,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    /// RELEASE SAVEPOINT.
    Release,
    RollbackTo,
    PrepareTransaction,
    /// COMMIT PREPARED and ROLLBACK PREPARED.
    FinishPrepared,
    Set,
    /// SET LOCAL, which ends with the transaction.
    SetLocal,
    /// SET TRANSACTION and SET CONSTRAINTS, which end with the transaction.
    SetTransaction,
    Reset,
    Show,
    Copy,
    Prepare,
    Execute,
    Deallocate,
    Discard,
    Declare,
    /// FETCH and MOVE.
    Fetch,
    Close,
    Listen,
    Unlisten,
    Notify,
    Explain,
    Call,
    Do,
    Load,
    Lock,
    Truncate,
    /// CREATE TABLE, CREATE INDEX, ALTER TABLE: what comes of it runs no code but what the text names, and what its types,
    /// parents and triggers run.
    DefineRelation,
    /// Any other CREATE and ALTER.
    Create,
    Alter,
    Drop,
    /// GRANT, REVOKE, COMMENT, SECURITY LABEL, REASSIGN, IMPORT FOREIGN SCHEMA.
    OtherDdl,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, REFRESH, CHECKPOINT.
    Maintenance,
    /// The commands that only a walsender knows.
    Replication,
    Other,
}

impl Kind {
    /// Is it about the session or the transaction alone, and changes no data itself?
    pub fn is_about_session(self) -> bool {
        matches!(
            self,
            Kind::Empty
                | Kind::Begin
                | Kind::Commit
                | Kind::Rollback
                | Kind::Savepoint
                | Kind::Release
                | Kind::RollbackTo
                | Kind::Set
                | Kind::SetLocal
                | Kind::SetTransaction
                | Kind::Reset
                | Kind::Show
                | Kind::Prepare
                | Kind::Deallocate
                | Kind::Discard
                | Kind::Listen
                | Kind::Unlisten
                | Kind::Close
        )
    }
}

/// A setting that a statement names; names are canonical and in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SettingTouched {
    /// Changed until the session ends (or the transaction rolls back).
    Set(String),
    /// Changed until the transaction ends; no effect bit goes with it.
    SetLocal(String),
    /// Back to the session's start value: RESET, SET … TO DEFAULT.
    Reset(String),
    ResetAll,
}

/// A SQL-level prepared statement that a statement names, cut to 63 bytes as PostgreSQL does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PreparedTouched {
    Prepare(String),
    Execute(String),
    Deallocate(String),
    DeallocateAll,
}

/// Whose sessions begin with other settings: ALTER ROLE … SET, ALTER DATABASE … SET.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StartDefaults {
    pub role: RoleNamed,
    /// None: in every database.
    pub database: Option<String>,
}

/// Whom ALTER ROLE means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoleNamed {
    Name(String),
    /// CURRENT_ROLE, CURRENT_USER, SESSION_USER.
    Own,
    /// ALL, or a name that could not be read.
    Any,
}

/// A statement about Tidegate's own settings. Names come without `tidegate.`, in lower case; `Analysis::names`
/// has them in full, as for any setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TidegateCommand {
    /// `SET [SESSION] tidegate.name = value`.
    Set { name: String, value: String },
    /// `SET LOCAL tidegate.name = value`.
    SetLocal { name: String, value: String },
    /// `RESET tidegate.name`, `SET tidegate.name TO DEFAULT`.
    Reset { name: String },
    /// `SHOW tidegate.name`.
    Show { name: String },
}
