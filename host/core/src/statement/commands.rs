//! Commands that are about the session or the transaction by their first words.

use super::lexer::Kind as TokenKind;
use super::words::{self as w, Key};
use super::{Effects, Kind, PreparedTouched, Reader};

/// Commands of the replication protocol whose names are longer than a key.
const LONG_REPLICATION: [&str; 5] = [
    "start_replication",
    "create_replication_slot",
    "drop_replication_slot",
    "alter_replication_slot",
    "read_replication_slot",
];

/// The command that a statement's first word begins.
pub(super) fn kind(first: Key, text: &[u8]) -> Kind {
    match first {
        w::SELECT => Kind::Select,
        w::INSERT => Kind::Insert,
        w::UPDATE => Kind::Update,
        w::DELETE => Kind::Delete,
        w::WITH => Kind::With,
        w::BEGIN | w::START => Kind::Begin,
        w::COMMIT | w::END => Kind::Commit,
        w::ROLLBACK | w::ABORT => Kind::Rollback,
        w::SET => Kind::Set,
        w::SHOW => Kind::Show,
        w::RESET => Kind::Reset,
        w::SAVEPOINT => Kind::Savepoint,
        w::RELEASE => Kind::Release,
        w::VALUES => Kind::Values,
        w::TABLE => Kind::Table,
        w::MERGE => Kind::Merge,
        w::COPY => Kind::Copy,
        w::PREPARE => Kind::Prepare,
        w::EXECUTE => Kind::Execute,
        w::DEALLOCATE => Kind::Deallocate,
        w::DISCARD => Kind::Discard,
        w::DECLARE => Kind::Declare,
        w::FETCH | w::MOVE => Kind::Fetch,
        w::CLOSE => Kind::Close,
        w::LISTEN => Kind::Listen,
        w::UNLISTEN => Kind::Unlisten,
        w::NOTIFY => Kind::Notify,
        w::EXPLAIN => Kind::Explain,
        w::CALL => Kind::Call,
        w::DO => Kind::Do,
        w::LOAD => Kind::Load,
        w::LOCK => Kind::Lock,
        w::TRUNCATE => Kind::Truncate,
        w::CREATE => Kind::Create,
        w::ALTER => Kind::Alter,
        w::DROP => Kind::Drop,
        w::GRANT | w::REVOKE | w::COMMENT | w::SECURITY | w::REASSIGN | w::IMPORT => Kind::OtherDdl,
        w::VACUUM
        | w::ANALYZE
        | w::ANALYSE
        | w::CLUSTER
        | w::REINDEX
        | w::REFRESH
        | w::CHECKPOINT => Kind::Maintenance,
        w::IDENTIFY_SYSTEM | w::BASE_BACKUP | w::TIMELINE_HISTORY | w::UPLOAD_MANIFEST => {
            Kind::Replication
        }
        _ if LONG_REPLICATION.iter().any(|c| c.as_bytes().eq_ignore_ascii_case(text)) => {
            Kind::Replication
        }
        _ => Kind::Other,
    }
}

impl Reader<'_> {
    /// Reads what a command's own grammar says after its first word, and returns the command, which later
    /// words may have made more precise. The rest of the statement stays to be read.
    pub(super) fn command(&mut self, kind: Kind) -> Kind {
        let effects = match kind {
            Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::With => return kind,
            Kind::Begin => Effects::BEGINS,
            Kind::Commit | Kind::Rollback => return self.ending(kind),
            Kind::Set => return self.set(),
            Kind::Reset => return self.reset(),
            Kind::Show => return self.show(),
            Kind::Prepare => return self.prepare(),
            Kind::Execute => {
                self.executed_name();
                Effects::EXECUTES | Effects::UNKNOWN_SETTINGS
            }
            Kind::Deallocate => self.deallocate(),
            Kind::Discard => self.discard(),
            Kind::Close => Effects::CLOSES_CURSOR,
            Kind::Listen => Effects::LISTEN,
            Kind::Unlisten => Effects::UNLISTEN,
            // A procedure or a block may do anything; an unknown command, too.
            Kind::Call | Kind::Other => Effects::UNKNOWN_SETTINGS,
            // Changes of schemas are what blocks are often for.
            Kind::Do => Effects::UNKNOWN_SETTINGS | Effects::DDL,
            Kind::Load => Effects::LOADS,
            Kind::Alter => {
                self.start_defaults();
                self.may(Effects::DDL);
                return if self.word() == w::TABLE { self.is(Kind::DefineRelation) } else { kind };
            }
            Kind::Create => {
                self.may(Effects::DDL);
                return self.created();
            }
            Kind::OtherDdl | Kind::Truncate => Effects::DDL,
            Kind::Drop => self.dropped(),
            Kind::Replication => Effects::SESSION_BOUND,
            _ => Effects::NONE,
        };
        self.may(effects);
        kind
    }

    /// Takes the current token if it is the given word.
    pub(super) fn take(&mut self, word: Key) -> bool {
        let found = self.word() == word;
        if found {
            self.advance();
        }
        found
    }

    /// COMMIT, END, ROLLBACK, ABORT after the first word.
    fn ending(&mut self, kind: Kind) -> Kind {
        if self.take(w::PREPARED) {
            self.may(Effects::TWO_PHASE);
            return self.is(Kind::FinishPrepared);
        }
        if !self.take(w::WORK) {
            self.take(w::TRANSACTION);
        }
        if kind == Kind::Rollback {
            self.may(Effects::DROPS);
            if self.take(w::TO) {
                return self.is(Kind::RollbackTo);
            }
        }
        self.may(Effects::ENDS);
        if self.take(w::AND) && self.take(w::CHAIN) {
            self.may(Effects::CHAINS);
        }
        kind
    }

    /// Says that the statement's command is `kind` rather than what its first word suggested.
    pub(super) fn is(&mut self, kind: Kind) -> Kind {
        if self.analysis.statements == 1 {
            self.analysis.kind = kind;
        }
        kind
    }

    fn prepare(&mut self) -> Kind {
        let name = self.lexer.token;
        let transaction = self.take(w::TRANSACTION);
        if transaction && self.lexer.token.kind != TokenKind::Open && self.word() != w::AS {
            self.may(Effects::TWO_PHASE | Effects::ENDS);
            return self.is(Kind::PrepareTransaction);
        }
        self.may(Effects::PREPARES);
        match self.identifier(name) {
            Some(name) => self.analysis.prepared.push(PreparedTouched::Prepare(name)),
            None => self.may(Effects::UNKNOWN_SETTINGS),
        }
        if !transaction {
            self.skip_name();
        }
        Kind::Prepare
    }

    /// The name after EXECUTE.
    pub(super) fn executed_name(&mut self) {
        if let Some(name) = self.identifier(self.lexer.token) {
            self.analysis.prepared.push(PreparedTouched::Execute(name));
        }
        self.skip_name();
    }

    fn deallocate(&mut self) -> Effects {
        let mut name = self.lexer.token;
        let first = self.word();
        self.skip_name();
        if first == w::PREPARE
            && matches!(self.lexer.token.kind, TokenKind::Word | TokenKind::Quoted)
        {
            name = self.lexer.token;
            self.advance();
        }
        let all = w::key_of(self.lexer.text, name.start(), name.end()) == w::ALL;
        if all {
            self.analysis.prepared.push(PreparedTouched::DeallocateAll);
        } else if let Some(name) = self.identifier(name) {
            self.analysis.prepared.push(PreparedTouched::Deallocate(name));
        } else {
            self.may(Effects::UNKNOWN_SETTINGS);
        }
        Effects::DEALLOCATES
    }

    fn discard(&mut self) -> Effects {
        let what = match self.word() {
            w::ALL => Effects::DISCARD_ALL,
            w::PLANS => Effects::DISCARD_PLANS,
            w::TEMP | w::TEMPORARY => Effects::DISCARD_TEMP,
            w::SEQUENCES => Effects::DISCARD_SEQUENCES,
            _ => Effects::UNKNOWN_SETTINGS,
        };
        what | Effects::DROPS
    }

    /// Skips a token that should be a name; anything else is the body's to judge.
    fn skip_name(&mut self) {
        if matches!(self.lexer.token.kind, TokenKind::Word | TokenKind::Quoted) {
            self.advance();
        }
    }
}
