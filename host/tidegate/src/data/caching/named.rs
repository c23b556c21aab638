//! What the caching policy names: tags of answers, and what writes take of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_cache::{Tag, Written, named_tags, taken_by_write};
use tidegate_core::plan::Recall;
use tidegate_core::policy::cache::CacheRule;
use tidegate_core::policy::{Slot, Template};
use tidegate_core::statement::Shape;
use tidegate_policy::{AnswerSource, Asker, Question};
use tidegate_wire::frontend::read_text_parameters;

use super::Planned;
use crate::data::clients::Client;
use crate::data::routing::Routing;

/// All tags of a plan's answers, where they are the same for all executions; and by which reading of the catalogue.
pub(super) type Constant = Rc<RefCell<Option<(u64, Arc<[Tag]>)>>>;

/// The tags of an answer: what it is read from, which is as of a reading of the catalogue, and what the policy names besides.
pub(super) fn with_named(
    (tags, serial): (Arc<[Tag]>, u64),
    (planned, rule): (&Planned, &CacheRule),
    next: &Recall<'_>,
    database: &Arc<str>,
) -> Arc<[Tag]> {
    if rule.tags.is_empty() {
        return tags;
    }
    let is_constant = rule.tags.iter().all(Template::is_constant);
    if is_constant
        && let Some((as_of, known)) = &*planned.constant.borrow()
        && *as_of == serial
    {
        return known.clone();
    }
    let bound = next.batch.as_ref().filter(|_| !is_constant).map(|batch| batch.bound);
    let parameters = bound.and_then(read_text_parameters);
    let named = named_tags(&rule.tags, parameters.as_deref(), database);
    let all: Arc<[Tag]> = tags.iter().cloned().chain(named).collect();
    if is_constant {
        *planned.constant.borrow_mut() = Some((serial, all.clone()));
    }
    all
}

impl Routing {
    /// What a statement changes, which is as of a reading of the catalogue, and what the policy says that it takes besides. What
    /// takes all rows takes that too.
    pub(super) fn with_taken(
        &mut self,
        (written, serial): (Written, u64),
        shape: &Shape,
        client: &Client,
    ) -> Written {
        let Written::Tags(tags) = &written else { return written };
        let taken = self.taken(serial, shape, client);
        if taken.is_empty() {
            return written;
        }
        Written::Tags(tags.iter().chain(&*taken).cloned().collect())
    }

    fn taken(&mut self, serial: u64, shape: &Shape, client: &Client) -> Arc<[Tag]> {
        let (view, session) = (self.reader.view(), client.id.0);
        let key = (shape.fingerprint.0, serial);
        let stamp = view.slot(Slot::Caching).stamp(session);
        let is_whole = shape.incomplete.is_none();
        if is_whole && let Some(taken) = self.caching.taken.get(key, stamp) {
            return taken.clone();
        }
        let asker = Asker { view, session };
        let answer = self.policies.plan_invalidate(asker, Question { shape, tags: &[] });
        let taken: Arc<[Tag]> = taken_by_write(answer.plan.as_deref(), &client.database).into();
        if is_whole && answer.source != AnswerSource::StandIn {
            self.caching.taken.put(key, stamp, taken.clone());
        }
        taken
    }
}
