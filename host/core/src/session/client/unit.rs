//! Where the next unit of a client's work may run: a Query, or an extended batch up to its Sync.
//!
//! The server is chosen before the first frame is sent, and cannot be changed before the last one is answered. So a unit
//! runs on a replica only if all of it has arrived and all of it is proven to read.

use super::{Frame, whole_body};
use crate::ids::Priority;
use crate::limits;
use crate::plan::{
    END_USER_SETTING, MIN_LSN_SETTING, Next, PRIORITY_SETTING, Plan, RoutePreference, Router,
    Target, Unit, min_lsn_from_setting, priority_from_setting, target,
};
use crate::session::expected::Copying;
use crate::session::{Batch, ClientNext, Io, PoolMode, Session, SettingsNow};
use crate::statement::Analysis;
use tidegate_wire::backend::TransactionStatus;
use tidegate_wire::frame::Header;
use tidegate_wire::frontend::{self, Named, tag};

/// What the session's server was chosen for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::session) enum Chosen {
    /// For anything, or by the client itself.
    #[default]
    ForAnything,
    /// For one unit of reads, of which nothing has been sent yet.
    ForReads,
    /// A unit of reads has been sent; the next may be another.
    AfterReads,
}

impl Chosen {
    pub(in crate::session) fn for_target(target: Target) -> Self {
        if target == Target::Read { Self::ForReads } else { Self::ForAnything }
    }
}

impl Session {
    /// Asks for a server for the frame at `at` and what follows it.
    pub(super) fn lease(&self, input: &[u8], at: usize, router: &mut dyn Router) -> Frame {
        Frame::Wait(ClientNext::Lease(self.plan_unit(input, at, router)))
    }

    fn plan_unit(&self, input: &[u8], at: usize, router: &mut dyn Router) -> Plan {
        let preference = RoutePreference::from_setting(self.settings.own(RoutePreference::SETTING));
        let reads = preference == RoutePreference::Auto
            && router.splits()
            && self.may_read_elsewhere()
            && self.unit_reads(input, at, router);
        let target = target(preference, if reads { Unit::Reads } else { Unit::Anything });
        let min_lsn = match target {
            Target::Read => min_lsn_from_setting(self.settings.own(MIN_LSN_SETTING)),
            Target::Primary | Target::Replica => None,
        };
        Plan { target, priority: self.priority(input, at, router), min_lsn }
    }

    /// How what begins at `at` waits for its server: by the session's word, else by the policy's for the first text.
    fn priority(&self, input: &[u8], at: usize, router: &mut dyn Router) -> Priority {
        let told = self.told_priority();
        if told == Priority::Critical {
            return told;
        }
        let Ok(Some(header)) = Header::peek(&input[at..], limits::FRAME_BYTES_MAX) else {
            return told;
        };
        let Some(body) = whole_body(header, input, at) else { return told };
        let sql = match header.tag {
            tag::QUERY => frontend::read_query(body).ok(),
            tag::PARSE => frontend::read_parse(body).ok().map(|parse| parse.sql),
            tag::BIND => frontend::read_bind_names(body).and_then(|names| {
                self.statement_of(names.statement).map(|prepared| &*prepared.sql)
            }),
            _ => None,
        };
        let next = sql.filter(|sql| router.ranks(sql)).and_then(|sql| self.next(sql));
        next.map_or(told, |next| router.priority(&next))
    }

    /// What the session's own setting says.
    pub fn told_priority(&self) -> Priority {
        priority_from_setting(self.settings.own(PRIORITY_SETTING))
    }

    /// A text as a router is asked about it; `None`: it is not certain how it is read.
    fn next<'a>(&'a self, sql: &'a [u8]) -> Option<Next<'a>> {
        Some(Next {
            sql,
            strings: self.string_syntax(sql)?,
            end_user: self.settings.own(END_USER_SETTING).filter(|user| !user.is_empty()),
            priority: self.told_priority(),
        })
    }

    /// Is the session between transactions, in a state that a replica can take over and give back?
    pub(super) fn may_read_elsewhere(&self) -> bool {
        // A replica refuses SERIALIZABLE.
        let serializable = self.setting("default_transaction_isolation") == Some("serializable");
        self.mode == PoolMode::Transaction
            && self.status == TransactionStatus::Idle
            && self.batch == Batch::Closed
            && self.copying == Copying::Nothing
            && self.settings_now == SettingsNow::Known
            // What keeps its server would keep a replica, where it cannot write.
            && self.pins.is_empty()
            && self.changes_schema.is_none()
            && !serializable
    }

    /// Has the unit that begins at `at` arrived, and does all of it read?
    fn unit_reads(&self, input: &[u8], mut at: usize, router: &mut dyn Router) -> bool {
        let mut parsed: Vec<&[u8]> = Vec::new();
        loop {
            let Ok(Some(header)) = Header::peek(&input[at..], limits::FRAME_BYTES_MAX) else {
                return false;
            };
            let Some(body) = whole_body(header, input, at) else { return false };
            let reads = match header.tag {
                tag::QUERY => {
                    return frontend::read_query(body)
                        .is_ok_and(|sql| self.text_wants_replica(sql, router));
                }
                tag::PARSE => frontend::read_parse(body).is_ok_and(|parse| {
                    parsed.push(parse.name);
                    self.text_wants_replica(parse.sql, router)
                }),
                tag::BIND => frontend::read_bind_names(body).is_some_and(|names| {
                    parsed.contains(&names.statement) || self.name_reads(names.statement, router)
                }),
                tag::DESCRIBE => frontend::read_named(body).is_ok_and(|named| match named {
                    Named::Portal(_) => true,
                    Named::Statement(name) => {
                        parsed.contains(&name) || self.name_reads(name, router)
                    }
                }),
                tag::EXECUTE | tag::CLOSE | tag::FLUSH => true,
                tag::SYNC => return true,
                _ => false,
            };
            if !reads {
                return false;
            }
            at += header.frame_bytes();
        }
    }

    fn name_reads(&self, name: &[u8], router: &mut dyn Router) -> bool {
        let prepared = self.statement_of(name);
        prepared.is_some_and(|prepared| self.text_wants_replica(&prepared.sql, router))
    }

    /// May a replica run the text, as far as proofs and the policy go?
    fn text_wants_replica(&self, sql: &[u8], router: &mut dyn Router) -> bool {
        self.is_readable(sql) && self.next(sql).is_some_and(|next| router.wants_replica(&next))
    }

    fn text_reads(&self, sql: &[u8], router: &mut dyn Router) -> bool {
        self.is_readable(sql)
            && self.string_syntax(sql).is_some_and(|strings| router.reads(sql, strings))
    }

    /// A name is looked up in the catalogue, so its letters must be certain.
    pub(super) fn is_readable(&self, sql: &[u8]) -> bool {
        let encoding = self.setting("client_encoding").unwrap_or_default();
        sql.is_ascii()
            || encoding.eq_ignore_ascii_case("utf8")
            || encoding.eq_ignore_ascii_case("utf-8")
    }

    /// Before a frame: a server that was chosen for reads serves nothing else. `None`: go on.
    pub(super) fn leave_replica(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Option<Frame> {
        let begins = self.batch == Batch::Closed
            && self.copying == Copying::Nothing
            && !matches!(header.tag, tag::SYNC | tag::FLUSH | tag::TERMINATE);
        if self.chosen == Chosen::ForAnything || io.server.is_none() || !begins {
            return None;
        }
        if self.chosen == Chosen::ForReads {
            self.chosen = Chosen::AfterReads;
            self.keep_unit(input, at);
            return None;
        }
        self.forget_unit();
        let plan = self.plan_unit(input, at, io.router);
        if plan.target == Target::Read || !self.pins.is_empty() {
            // What is pinned cannot move; what it may not do there, the server refuses.
            return None;
        }
        Some(Frame::Wait(match self.expected.is_empty() {
            false => ClientNext::Replies,
            true => ClientNext::Lease(plan),
        }))
    }

    /// Notes that a statement which goes to the primary may write, unless it is proven not to.
    pub(super) fn note_access(&mut self, sql: &[u8], analysis: &Analysis, router: &mut dyn Router) {
        let known = self.wrote.is_some() && self.acknowledged.may_write.is_some();
        if known || self.chosen != Chosen::ForAnything || !router.splits() {
            return;
        }
        if !(leaves_data_alone(analysis) || self.text_reads(sql, router)) {
            (self.wrote, self.acknowledged.may_write) = (Some(()), Some(()));
        }
    }

    /// May anything that ran since the last call of `take_wrote` have written?
    pub fn may_have_written(&self) -> bool {
        self.wrote.is_some()
    }

    /// May anything that ran since the last call have written?
    pub fn take_wrote(&mut self) -> bool {
        self.wrote.take().is_some()
    }
}

/// Commands about the session or the transaction, which change no data themselves.
fn leaves_data_alone(analysis: &Analysis) -> bool {
    analysis.statements <= 1 && analysis.kind.is_about_session()
}
