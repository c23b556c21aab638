//! A record of what runs: begun, waited for, gathered from the workers, written.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;
use tidegate_core::limits::RECORD_BYTES_MAX;
use tidegate_core::route::Place;
use tidegate_policy::{Asker, Plan, Question, Registry};
use tokio::sync::oneshot;

use super::aside;
use crate::admin::RecordOrder;
use crate::data::recording::{Kept, Key, Part, Round};
use crate::data::worker::{Message, Shared};
use crate::trace::{Counts, FORMAT, Head, Line, PlanLine, ShapeLine, Tail, Writer};

/// How often it is looked whether enough was recorded.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The caching policy is asked about what was recorded within this; about what is left, it is not.
const CACHE_ASK_TIME_MAX: Duration = Duration::from_millis(500);
/// A worker hands its part over within this.
const PART_TIME_MAX: Duration = Duration::from_secs(5);

/// Records until the time is over or enough was recorded. Dropping the future ends it.
pub(super) async fn run(
    shared: Arc<Shared>,
    policies: Arc<Registry>,
    round: Round,
    order: RecordOrder,
) -> Vec<u8> {
    let began = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    while began.elapsed() < order.time && round.executions() < order.executions_max {
        let left = order.time.saturating_sub(began.elapsed());
        tokio::time::sleep(LOOK_INTERVAL.min(left)).await;
    }
    let lasted = began.elapsed();
    drop(round);
    let parts = gather(&shared).await;
    let view = shared.views.latest();
    let head = Head {
        tidegate_record: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        began_ms: millis(since),
        replicas: view.names.iter().map(|name| name.to_string()).collect(),
    };
    let mut rest = Tail { lasted_ms: millis(lasted), ..Tail::default() };
    let mut all: FxHashMap<Key, Kept> = FxHashMap::default();
    for part in parts {
        rest.dropped += part.dropped;
        rest.unread += part.unread;
        rest.unanswered += part.unanswered();
        part.kept.into_iter().for_each(|(key, kept)| add(&mut all, key, kept));
    }
    let mut kept: Vec<Kept> = all.into_values().collect();
    // What runs most comes first, and is there when there is not room for all.
    kept.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.first.cmp(&b.first)));
    // The caching policy may take its time, in which others are to be answered.
    aside(move || {
        let mut writer = Writer::new(&head, RECORD_BYTES_MAX);
        let until = Instant::now() + CACHE_ASK_TIME_MAX;
        for kept in &kept {
            let cache = (Instant::now() < until).then(|| cache(&policies, kept));
            writer.put(&line(kept, cache, &head, began));
        }
        writer.end(rest)
    })
    .await
}

/// What the caching policy plans for a statement, as for nobody's session.
fn cache(policies: &Registry, kept: &Kept) -> String {
    let view = policies.view();
    let asker = Asker { view: &view, session: 0 };
    let tags: Vec<(&str, &str)> = kept.tags.iter().map(|(key, value)| (&**key, &**value)).collect();
    let question = Question { shape: &kept.shape, tags: &tags };
    Plan::Cache(policies.plan_cache(asker, question).plan, Vec::new()).to_string()
}

async fn gather(shared: &Shared) -> Vec<Part> {
    let mut asked = Vec::new();
    for sender in &shared.senders {
        let (reply, part) = oneshot::channel();
        asked.extend(sender.try_send(Message::Record(reply)).ok().map(|()| part));
    }
    let mut parts = Vec::new();
    for part in asked {
        parts.extend(tokio::time::timeout(PART_TIME_MAX, part).await.ok().and_then(Result::ok));
    }
    parts
}

fn add(all: &mut FxHashMap<Key, Kept>, key: Key, kept: Kept) {
    let Some(known) = all.get_mut(&key) else {
        all.insert(key, kept);
        return;
    };
    known.count += kept.count;
    known.first = known.first.min(kept.first);
    known.last = known.last.max(kept.last);
    known.total += kept.total;
    known.longest = known.longest.max(kept.longest);
}

fn line(kept: &Kept, cache: Option<String>, head: &Head, began: Instant) -> Line {
    let server = match kept.place {
        Place::Primary => "primary".to_owned(),
        Place::Replica(index) => {
            head.replicas.get(index).cloned().unwrap_or_else(|| format!("replica {index}"))
        }
    };
    let plan = kept.plan.as_ref().map(|(plan, generation)| PlanLine {
        target: Plan::Route(plan.as_ref().clone()).word().to_owned(),
        label: plan.label.as_ref().map(|label| label.to_string()),
        generation: *generation,
    });
    let tags = kept.tags.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let mean = kept.total.as_micros() / u128::from(kept.count.max(1));
    Line {
        shape: ShapeLine::from(kept.shape.as_ref()),
        tags: tags.collect(),
        user: kept.user.to_string(),
        database: kept.database.to_string(),
        application: kept.application.to_string(),
        end_user: kept.end_user.map(|hash| format!("{hash:016x}")),
        server,
        plan,
        cache,
        error: kept.error.map(|sqlstate| String::from_utf8_lossy(&sqlstate).into_owned()),
        counts: Counts {
            count: kept.count,
            first_ms: millis(kept.first.saturating_duration_since(began)),
            last_ms: millis(kept.last.saturating_duration_since(began)),
            mean_us: u64::try_from(mean).unwrap_or(u64::MAX),
            max_us: u64::try_from(kept.longest.as_micros()).unwrap_or(u64::MAX),
        },
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
