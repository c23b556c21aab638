use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const POLICY: OutlierPolicy =
    OutlierPolicy { ratio: 4, floor: Duration::from_millis(25), time: Duration::from_secs(30) };

struct Bench {
    outliers: Outliers,
    good: Vec<bool>,
    totals: Vec<Reads>,
    now: Instant,
}

impl Bench {
    fn new(replicas: usize) -> Self {
        let now = Instant::now();
        Self {
            outliers: Outliers::new(Some(POLICY), replicas, now),
            good: vec![true; replicas],
            totals: vec![Reads::default(); replicas],
            now,
        }
    }

    /// A second in which each answers five times within this.
    fn second(&mut self, answers: &[Duration]) -> Vec<Change> {
        for (replica, took) in answers.iter().enumerate() {
            for _ in 0..5 {
                self.outliers.handle_answer(replica, *took);
            }
        }
        self.now += SECOND;
        self.outliers.judge(&self.good, self.now)
    }

    fn reads(&mut self, replica: usize, count: u64, took: Duration, failed: u64) {
        let totals = &mut self.totals[replica];
        totals.answered += count;
        totals.logs += count * log_of(took);
        totals.failed += failed;
        self.outliers.handle_reads(replica, *totals);
    }
}

#[test]
fn logarithms_grow_with_the_time() {
    assert_eq!(log_of(Duration::ZERO), 0);
    assert_eq!(log_of(Duration::from_nanos(1 << 20)), 20 * 16);
    assert_eq!(log_of(Duration::from_nanos(3 << 19)), 20 * 16 + 8);
    let times = [1, 2, 3, 15, 16, 17, 31, 32, 1_000, 1 << 40].map(Duration::from_nanos);
    assert!(times.map(log_of).is_sorted());
    assert!(log_of(Duration::MAX) < 64 * 16);
}

#[test]
fn a_slow_replica_leaves_for_longer_each_time() {
    let mut bench = Bench::new(2);
    let times = [MS, 200 * MS];
    let mut ejected = Vec::new();
    let mut returned = 0;
    for _ in 0..400 {
        // It is well while it is left out, or it would not return.
        let slow = bench.outliers.why_out(1).is_none();
        for change in bench.second(if slow { &times } else { &[MS, MS] }) {
            match change {
                Change::Ejected { replica, why, time } => {
                    assert_eq!((replica, why), (1, Ejection::Slow));
                    ejected.push(time.as_secs());
                }
                Change::Returned { .. } => returned += 1,
            }
        }
    }
    assert_eq!(ejected[..3], [30, 60, 120]);
    assert!(returned + 1 >= ejected.len());
}

#[test]
fn one_that_still_is_slow_when_its_time_is_over_stays_out() {
    let mut bench = Bench::new(3);
    let mut changes = Vec::new();
    for _ in 0..200 {
        changes.extend(bench.second(&[MS, MS, 300 * MS]));
    }
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(bench.outliers.why_out(2), Some(Ejection::Slow));
    while changes.len() < 2 {
        changes.extend(bench.second(&[MS; 3]));
    }
    assert_eq!(changes[1], Change::Returned { replica: 2 });
}

#[test]
fn microseconds_do_not_matter_nor_does_one_long_read() {
    let mut bench = Bench::new(2);
    for _ in 0..100 {
        bench.reads(0, 50, MS, 0);
        bench.reads(1, 49, MS, 0);
        bench.reads(1, 1, 10 * SECOND, 0);
        let changes = bench.second(&[Duration::from_micros(50), 20 * MS]);
        assert_eq!(changes, []);
    }
}

#[test]
fn who_fails_half_of_its_reads_leaves_even_if_all_do() {
    let mut bench = Bench::new(2);
    let mut ejected = 0;
    for _ in 0..3 {
        bench.reads(0, 3, MS, 4);
        bench.reads(1, 3, MS, 4);
        ejected += bench.second(&[MS, MS]).len();
    }
    assert_eq!(ejected, 2);
    assert_eq!(bench.outliers.why_out(0), Some(Ejection::Failing));
    // Of many reads some may fail.
    let mut bench = Bench::new(2);
    for _ in 0..20 {
        bench.reads(0, 300, MS, 20);
        assert_eq!(bench.second(&[MS, MS]), []);
    }
}

#[test]
fn reads_are_compared_too() {
    let mut bench = Bench::new(2);
    let mut changes = Vec::new();
    for _ in 0..10 {
        bench.reads(0, 40, MS, 0);
        bench.reads(1, 40, 90 * MS, 0);
        changes.extend(bench.second(&[MS, MS]));
    }
    let why = Ejection::Slow;
    assert_eq!(changes, [Change::Ejected { replica: 1, why, time: POLICY.time }]);
}

/// The same replicas under another configuration: in another order, and each was good a moment ago.
fn reloaded(before: &Bench, policy: Option<OutlierPolicy>, order: &[usize]) -> Bench {
    let mut bench = Bench::new(order.len());
    bench.now = before.now;
    bench.outliers = Outliers::new(policy, order.len(), before.now);
    for (now_at, was_at) in order.iter().enumerate() {
        let standings = before.outliers.standings(*was_at);
        bench.outliers.restore(now_at, standings, before.now);
    }
    bench
}

#[test]
fn who_is_left_out_stays_out_through_a_reload_though_it_is_heard_first() {
    let mut bench = Bench::new(3);
    for _ in 0..20 {
        bench.second(&[MS, MS, 300 * MS]);
    }
    let mut after = reloaded(&bench, Some(POLICY), &[2, 0, 1]);
    // For a moment it is the only one of which anything is known.
    after.good = vec![true, false, false];
    assert_eq!(after.outliers.judge(&after.good, after.now), []);
    assert_eq!(after.outliers.why_out(0), Some(Ejection::Slow));
    after.good = vec![true; 3];
    let mut seconds = 0;
    while after.outliers.why_out(0).is_some() {
        assert_eq!([1, 2].map(|other| after.outliers.why_out(other)), [None; 2]);
        after.second(&[MS; 3]);
        seconds += 1;
    }
    assert!((5..=30).contains(&seconds), "{seconds}: what was left of the time");
    // The next time is twice as long, as it would have been.
    let mut time = None;
    while time.is_none() {
        let changes = after.second(&[300 * MS, MS, MS]);
        time = changes.into_iter().find_map(|change| match change {
            Change::Ejected { time, .. } => Some(time),
            Change::Returned { .. } => None,
        });
    }
    assert_eq!(time, Some(2 * POLICY.time));
    // Of a configuration that leaves nobody out nobody is; a shorter time is all that it has.
    assert_eq!(reloaded(&after, None, &[0, 1, 2]).outliers.why_out(0), None);
    let short = OutlierPolicy { time: SECOND, ..POLICY };
    let mut after = reloaded(&after, Some(short), &[0, 1, 2]);
    after.second(&[MS; 3]);
    assert_eq!(after.outliers.why_out(0), Some(Ejection::Slow));
    after.second(&[MS; 3]);
    assert_eq!(after.outliers.why_out(0), None);
}

#[test]
fn who_is_left_alone_with_it_gets_it_back_once_all_could_be_heard() {
    let mut bench = Bench::new(2);
    for _ in 0..20 {
        bench.second(&[MS, 300 * MS]);
    }
    let mut after = reloaded(&bench, Some(POLICY), &[0, 1]);
    after.good = vec![false, true];
    assert_eq!(after.second(&[MS; 2]), [Change::Returned { replica: 1 }]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 37: of replicas that are slower than the others at most half are left out, whatever is lost meanwhile.
    #[test]
    fn at_most_half_are_left_out_for_being_slow(
        seconds in prop::collection::vec(
            (prop::collection::vec(prop_oneof![1..5_u64, 100..2_000_u64], 5),
             prop::collection::vec(prop::bool::weighted(0.9), 5)), 1..80),
    ) {
        let mut bench = Bench::new(5);
        for (millis, good) in seconds {
            bench.good = good;
            let answers: Vec<Duration> = millis.into_iter().map(Duration::from_millis).collect();
            bench.second(&answers);
            let good = |replica: &usize| bench.good[*replica];
            let slow = |replica: &usize| {
                bench.outliers.why_out(*replica) == Some(Ejection::Slow)
            };
            let out = (0..5).filter(good).filter(slow).count();
            prop_assert!(out <= (0..5).filter(good).count() / 2);
        }
    }

    // Property 37: who takes no longer than the others is never left out; who alone takes far longer is, soon.
    #[test]
    fn the_slow_one_is_told_from_the_others(
        others in prop::collection::vec(1..4_u64, 1..6), slow in 60..5_000_u64, place in 0..6_usize,
    ) {
        let place = place.min(others.len());
        let mut answers: Vec<Duration> = others.into_iter().map(Duration::from_millis).collect();
        answers.insert(place, Duration::from_millis(slow));
        let mut bench = Bench::new(answers.len());
        for _ in 0..20 {
            bench.second(&answers);
        }
        for replica in 0..answers.len() {
            prop_assert_eq!(bench.outliers.why_out(replica).is_some(), replica == place);
        }
    }
}
