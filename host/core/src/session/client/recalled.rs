//! Reads that are answered from what is kept, without a server: a Query, or a batch that binds and executes one statement.

use super::{Frame, whole_body};
use crate::limits;
use crate::plan::{CACHE_SETTING, Describes, Recall, Recalled, RecalledBatch, shows_cache};
use crate::session::prepared::{Prepared, SchemaGeneration};
use crate::session::{ClientNext, Held, Io, Session};
use std::sync::Arc;
use tidegate_wire::backend::{self, TransactionStatus};
use tidegate_wire::frame::{Header, Truncated};
use tidegate_wire::frontend::{self, Named, Parse, tag};

/// A unit of which all has arrived.
struct Unit<'a> {
    bytes: usize,
    sql: &'a [u8],
    /// What stands for the text where it was parsed before.
    prepared: Option<Arc<Prepared>>,
    parsed: Option<Parse<'a>>,
    batch: Option<RecalledBatch<'a>>,
}

impl Session {
    /// Before a frame: answers the unit that begins with it, if its answer is kept. `None`: go on.
    pub(super) fn recall(
        &mut self,
        header: Header,
        input: &[u8],
        at: usize,
        io: &mut Io<'_>,
    ) -> Option<Frame> {
        let begins = matches!(header.tag, tag::QUERY | tag::PARSE | tag::DESCRIBE | tag::BIND);
        if !begins || io.server.is_some() {
            return None;
        }
        let off =
            self.settings.own(CACHE_SETTING).is_some_and(|word| word.eq_ignore_ascii_case("off"));
        let looks = !off && io.router.keeps();
        if !looks && !shows(header, input, at) || !self.may_recall() {
            return None;
        }
        let unit = match header.tag {
            tag::QUERY => query(header, input, at)?,
            _ => self.batch_of(input, at, io.interner.generation())?,
        };
        let prepared = unit.prepared.as_deref();
        let sql = prepared.map_or(unit.sql, |prepared| &prepared.sql);
        let types = prepared.map(|prepared| &*prepared.types);
        let batch =
            unit.batch.map(|batch| RecalledBatch { types: types.unwrap_or(batch.types), ..batch });
        let strings = self.string_syntax(sql).filter(|_| self.is_readable(sql))?;
        let recall = Recall { sql, strings, settings: &self.settings, batch };
        let mut recalled = Recalled::No;
        io.to_client.send(|out| recalled = io.router.recall(&recall, out));
        match recalled {
            Recalled::Answered => {}
            Recalled::Later => return Some(Frame::Wait(ClientNext::Recall)),
            Recalled::No => return None,
        }
        io.to_client.send(|out| backend::ready_for_query(out, TransactionStatus::Idle));
        self.note_recalled(&unit, io);
        Some(Frame::Head(unit.bytes))
    }

    /// What the unit has done to the session's statements, as if a server had run it. What has got a name here gets one on
    /// whichever server it is needed next.
    fn note_recalled(&mut self, unit: &Unit<'_>, io: &mut Io<'_>) {
        (self.admitted, self.bound) = (None, None);
        if let Some(parse) = &unit.parsed {
            let prepared = self.intern(parse.sql, parse.types, io.interner);
            if parse.name.is_empty() {
                self.unnamed = Some(prepared);
            } else {
                let held = Held { prepared, since: self.batches.past() };
                self.names.insert(parse.name.into(), held);
            }
        } else if unit.batch.is_none() {
            self.unnamed = None;
        }
        self.unnamed_in = self.batches.past();
    }

    /// Is the session between transactions, with everything known that an answer depends on?
    fn may_recall(&self) -> bool {
        self.may_read_elsewhere()
            && self.expected.is_empty()
            && self.client_rest.0 == 0
            && (self.touched.is_none() && self.probing.is_none() && self.unlisted.is_none())
            && (self.gone, self.leaves, self.laid_open_in_vain) == (None, None, None)
    }

    /// Parse or not, perhaps a description of the statement; Bind, perhaps a description, one Execute and perhaps Close of the
    /// unnamed portal; Sync.
    fn batch_of<'a>(
        &self,
        input: &'a [u8],
        start: usize,
        schema: SchemaGeneration,
    ) -> Option<Unit<'a>> {
        let mut frames = Frames { input, at: start };
        let parsed = match frames.next(tag::PARSE) {
            Some(body) => Some(self.parse_to_recall(body)?),
            None => None,
        };
        let described = frames.next_named(tag::DESCRIBE).transpose().ok()?;
        let bind = frames.next(tag::BIND)?;
        let names = frontend::read_bind_names(bind).filter(|names| names.portal.is_empty())?;
        let prepared = match &parsed {
            Some(parse) if names.statement == parse.name => None,
            Some(_) => return None,
            None => {
                // It may have been described before a schema changed, and an answer of now is another's then.
                let prepared = self.statement_of(names.statement)?;
                Some(prepared.is_current(schema, &self.settings).then(|| prepared.clone())?)
            }
        };
        let describes = match (described, frames.next_named(tag::DESCRIBE).transpose().ok()?) {
            (None, None) => Describes::Nothing,
            (None, Some(Named::Portal(b""))) => Describes::Portal,
            (Some(Named::Statement(name)), None) if name == names.statement => Describes::Statement,
            _ => return None,
        };
        let rows_max = frames.next(tag::EXECUTE).and_then(rows_max_of_unnamed)?;
        let closes = match frames.next_named(tag::CLOSE).transpose().ok()? {
            None => None,
            Some(Named::Portal(b"")) => Some(()),
            Some(_) => return None,
        };
        frames.next(tag::SYNC)?;
        let batch = RecalledBatch {
            types: parsed.as_ref().map_or(&[], |parse| parse.types),
            bound: bind.get(names.names_bytes..)?,
            parses: parsed.as_ref().map(|_| ()),
            describes,
            rows_max,
            closes,
        };
        let sql = parsed.as_ref().map_or(&[][..], |parse| parse.sql);
        Some(Unit { bytes: frames.at - start, sql, prepared, parsed, batch: Some(batch) })
    }

    /// A Parse that a server would not refuse for its name. Whether it likes the text is known from whoever was answered first.
    fn parse_to_recall<'a>(&self, body: &'a [u8]) -> Option<Parse<'a>> {
        let parse = frontend::read_parse(body).ok()?;
        let is_free = parse.name.is_empty()
            || !self.names.contains_key(parse.name)
                && self.names.len() < limits::PREPARED_PER_CLIENT_MAX;
        (is_free && body.len() <= limits::STATEMENT_BYTES_MAX).then_some(parse)
    }
}

/// How many rows an Execute wants at most, if it is of the unnamed portal: what is left there is gone with the Sync behind it.
fn rows_max_of_unnamed(body: &[u8]) -> Option<u32> {
    match body {
        [0, rows @ ..] => <[u8; 4]>::try_from(rows).ok().map(u32::from_be_bytes),
        _ => None,
    }
}

/// Frames that have arrived, one after the other.
struct Frames<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// The body of the next, if it is of this kind and all of it is there.
    fn next(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let header = Header::peek(self.input.get(self.at..)?, limits::FRAME_BYTES_MAX).ok()??;
        if header.tag != wanted {
            return None;
        }
        let body = whole_body(header, self.input, self.at)?;
        self.at += header.frame_bytes();
        Some(body)
    }

    /// The same of a kind that names something.
    fn next_named(&mut self, wanted: u8) -> Option<Result<Named<'a>, Truncated>> {
        self.next(wanted).map(frontend::read_named)
    }
}

/// Does the unit that begins here ask what the cache had to do with the last one?
fn shows(header: Header, input: &[u8], at: usize) -> bool {
    // Shorter than most, so that little is read for nothing.
    const BODY_BYTES_MAX: u32 = 48;
    if header.body_bytes > BODY_BYTES_MAX {
        return false;
    }
    let sql = whole_body(header, input, at).and_then(|body| match header.tag {
        tag::QUERY => frontend::read_query(body).ok(),
        tag::PARSE => frontend::read_parse(body).ok().map(|parse| parse.sql),
        _ => None,
    });
    sql.is_some_and(shows_cache)
}

fn query(header: Header, input: &[u8], at: usize) -> Option<Unit<'_>> {
    let sql = frontend::read_query(whole_body(header, input, at)?).ok()?;
    Some(Unit { bytes: header.frame_bytes(), sql, prepared: None, parsed: None, batch: None })
}
