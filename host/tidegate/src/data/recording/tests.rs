//! Executions are added up, bounded, and forgotten when nobody comes for them.

use tidegate_core::statement::{ShapeCache, TextSettings};
use tidegate_grammar::PostgresGrammar;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn seen(sql: &str) -> Rc<Seen> {
    let mut shapes = ShapeCache::new(PostgresGrammar, 7, RECORD_BYTES_MAX);
    let known = shapes.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now());
    Rc::new(Seen { shape: known.shape, tags: Vec::new(), plan: None })
}

fn runner() -> Runner {
    Runner {
        user: "ann".into(),
        database: "shop".into(),
        application: "psql".into(),
        end_user: Some("42".into()),
        place: Place::Primary,
    }
}

struct One {
    recording: Arc<Recording>,
    recorder: Recorder,
    under_way: UnderWay,
    now: Instant,
}

impl One {
    fn new() -> One {
        let recording = Arc::new(Recording::default());
        let recorder = Recorder::new(recording.clone());
        One { recording, recorder, under_way: UnderWay::default(), now: Instant::now() }
    }

    fn note(&mut self, all: impl IntoIterator<Item = Noted>) {
        all.into_iter().for_each(|noted| self.recorder.note(noted));
        self.under_way.take_notes(&mut self.recorder, self.now);
    }

    fn answer(&mut self, answered: u32, after: Duration) {
        self.now += after;
        self.under_way.settle(answered, &mut self.recorder, runner, self.now);
    }
}

#[test]
fn executions_of_one_kind_are_one_entry() {
    let mut one = One::new();
    let round = one.recording.begin().unwrap();
    assert!(one.recorder.is_on() && one.recording.begin().is_none());
    let read = seen("SELECT a FROM t WHERE id = 1");
    one.note([
        Noted::Query(u32::MAX, Some(read.clone())),
        Noted::Bound(read.clone()),
        Noted::Execute(0),
    ]);
    one.answer(0, MS);
    one.answer(1, 2 * MS);
    one.note([Noted::Query(1, Some(seen("SELECT b FROM t"))), Noted::Query(2, None)]);
    one.note([Noted::Execute(3)]);
    one.answer(3, MS);
    assert_eq!(round.executions(), 3);
    let part = one.recorder.take();
    assert_eq!((part.kept.len(), part.dropped, part.unread), (2, 0, 1));
    assert_eq!(part.unanswered(), 1);
    let kept = part.kept.values().find(|kept| kept.count == 2).unwrap();
    assert_eq!((kept.total, kept.longest, kept.error), (4 * MS, 3 * MS, None));
    assert!(kept.end_user.is_some() && Arc::ptr_eq(&kept.shape, &read.shape));
    drop(round);
    assert!(!one.recorder.is_on() && one.recording.begin().is_some());
}

#[test]
fn what_failed_says_so_and_what_never_ran_is_not_recorded() {
    let mut one = One::new();
    let _round = one.recording.begin().unwrap();
    let read = seen("SELECT a FROM t");
    one.note((0..4).map(|number| Noted::Query(number, Some(read.clone()))));
    one.note([Noted::Failed { first: 1, until: 3, sqlstate: *b"22012" }]);
    one.answer(4, MS);
    let part = one.recorder.take();
    let count =
        |error| part.kept.values().filter(|k| k.error == error).map(|k| k.count).sum::<u64>();
    assert_eq!((count(None), count(Some(*b"22012")), part.unanswered()), (2, 1, 0));
    // Nothing of the batch was a statement.
    one.note([
        Noted::Query(4, Some(read)),
        Noted::Failed { first: 4, until: 4, sqlstate: *b"42601" },
    ]);
    one.answer(5, MS);
    assert!(one.recorder.take().kept.values().all(|kept| kept.error.is_none()));
}

#[test]
fn kinds_beyond_the_bound_are_counted_and_known_ones_go_on() {
    let mut one = One::new();
    let _round = one.recording.begin().unwrap();
    let read = seen("SELECT a FROM t");
    for number in 0..RECORD_LINES_MAX as u32 + 10 {
        one.note([Noted::Query(number, Some(read.clone()))]);
        let runner = || Runner { application: number.to_string().into(), ..runner() };
        one.under_way.settle(number + 1, &mut one.recorder, runner, one.now);
    }
    one.note([Noted::Query(20_000, Some(read))]);
    let first = || Runner { application: "0".into(), ..runner() };
    one.under_way.settle(20_001, &mut one.recorder, first, one.now);
    let part = one.recorder.take();
    assert!(part.kept.len() <= RECORD_LINES_MAX && part.bytes <= RECORD_BYTES_MAX);
    let counted: u64 = part.kept.values().map(|kept| kept.count).sum();
    assert_eq!(counted + part.dropped, RECORD_LINES_MAX as u64 + 11);
    assert!(part.kept.values().any(|kept| kept.count == 2));
}

#[test]
fn a_record_that_nobody_came_for_is_given_up_and_the_next_begins_anew() {
    let mut one = One::new();
    let read = seen("SELECT a FROM t");
    let round = one.recording.begin().unwrap();
    one.note([Noted::Query(0, Some(read.clone())), Noted::Query(1, Some(read.clone()))]);
    one.answer(1, MS);
    one.recorder.maintain(one.now + 2 * RECORD_KEPT_TIME_MAX);
    assert_eq!(one.recorder.part.kept.len(), 1, "it still goes on");
    drop(round);
    one.recorder.maintain(one.now + RECORD_KEPT_TIME_MAX);
    assert_eq!(one.recorder.part.kept.len(), 1, "somebody may come");
    one.recorder.maintain(one.now + RECORD_KEPT_TIME_MAX + MS);
    assert_eq!(one.recorder.part.kept.len(), 0);
    let _next = one.recording.begin().unwrap();
    // Sent before it began: of another record.
    one.answer(2, MS);
    one.note([Noted::Query(2, Some(read))]);
    one.answer(3, MS);
    let part = one.recorder.take();
    assert_eq!(part.kept.values().map(|kept| kept.count).sum::<u64>(), 1);
    assert_eq!(part.unanswered(), 0);
    assert!(one.under_way.sent.is_empty());
}
