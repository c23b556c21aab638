//! Several processes that count together, one ring, and a network between them that is late and loses what it likes.

use super::tests::{IDLE, bucket};
use super::*;
use proptest::prelude::*;
use tidegate_core::policy::limit::Bucket;

const DEADLINE: Duration = Duration::from_millis(50);
const WINDOW: Duration = Duration::from_secs(6);
const KEY: u128 = 7;

fn named(number: usize) -> Name {
    Name([number as u8; 16])
}

/// One process; its clock is ahead by so much.
struct Process {
    limiter: Limiter,
    ahead: Duration,
    session: u64,
    /// Statements that wait for an answer: units, and since when.
    waiting: Vec<(u32, Duration)>,
}

/// On its way.
enum Message {
    Order(Order),
    Answer(u128, u64, Taken),
}

struct Letter {
    at: Duration,
    process: usize,
    session: u64,
    /// On the way back.
    delay: Duration,
    is_lost: bool,
    message: Message,
}

struct World {
    processes: Vec<Process>,
    ring: Ring,
    letters: Vec<Letter>,
    bucket: Bucket,
    now: Duration,
    /// By which Redis's clock is behind the true one.
    behind: Duration,
    /// When units were used, by the true clock, and whether whoever shares had granted them.
    used: Vec<(Duration, u32)>,
    refused: u32,
    /// For the next messages: to Redis, back, and whether one of the two is lost.
    weather: (Duration, Duration, Option<bool>),
}

impl World {
    fn new(processes: u32, limit: u32, fail_mode: FailMode) -> Self {
        let config = SharedConfig { deadline: DEADLINE, fail_mode, members: processes };
        let process = |number: u32| Process {
            limiter: Limiter::shared(config),
            ahead: Duration::from_millis(u64::from(number) * 7_777),
            session: 0,
            waiting: Vec::new(),
        };
        Self {
            processes: (0..processes).map(process).collect(),
            ring: Ring::default(),
            letters: Vec::new(),
            bucket: Bucket { window: WINDOW, ..bucket("all", limit, OverLimit::Reject) },
            now: Duration::from_secs(1_000),
            behind: Duration::ZERO,
            used: Vec::new(),
            refused: 0,
            weather: (Duration::ZERO, Duration::ZERO, None),
        }
    }

    /// Everybody reaches a ring that answers at once.
    fn reached(processes: u32, limit: u32, fail_mode: FailMode) -> Self {
        let mut world = Self::new(processes, limit, fail_mode);
        (0..processes as usize).for_each(|process| world.reach(process));
        world
    }

    fn reach(&mut self, process: usize) {
        let (count, now) = (self.processes.len() as u32, self.clock(process));
        self.processes[process].session += 1;
        self.processes[process].limiter.handle_reached(count, now);
    }

    /// What was sent may still arrive; no answer does.
    fn lose(&mut self, process: usize) {
        let now = self.clock(process);
        self.processes[process].session += 1;
        self.processes[process].limiter.handle_lost(now);
        self.ask_again(process);
    }

    fn clock(&self, process: usize) -> Duration {
        self.now + self.processes[process].ahead
    }

    fn flush(&mut self, process: usize) {
        let now = self.clock(process);
        self.processes[process].limiter.flush(now);
        self.send(process);
    }

    fn send(&mut self, process: usize) {
        let (to, delay, lost) = self.weather;
        while let Some(order) = self.processes[process].limiter.poll_order() {
            let session = self.processes[process].session;
            // Either it is lost on its way, or its answer is.
            if lost == Some(true) {
                continue;
            }
            let (at, is_lost) = (self.now + to, lost == Some(false));
            let message = Message::Order(order);
            self.letters.push(Letter { at, process, session, delay, is_lost, message });
        }
    }

    /// A statement of so many units, which has waited since then.
    fn statement(&mut self, process: usize, cost: u32, since: Duration) {
        let bucket = Bucket { cost, ..self.bucket.clone() };
        let now = self.clock(process);
        let statement = Execution { asked: self.now - since, ..IDLE };
        let one = &mut self.processes[process];
        let verdict = one.limiter.admit(&[(&bucket, KEY)], &statement, &mut named, now);
        self.send(process);
        match verdict {
            Verdict::Pass => self.used.push((self.now, cost)),
            Verdict::Asked(..) => self.processes[process].waiting.push((cost, since)),
            Verdict::Later(_) | Verdict::Over(_) => self.refused += 1,
        }
    }

    fn ask_again(&mut self, process: usize) {
        for (cost, since) in std::mem::take(&mut self.processes[process].waiting) {
            self.statement(process, cost, since);
        }
    }

    /// Delivers what arrives until then, in its order.
    fn advance(&mut self, until: Duration) {
        loop {
            let next = (0..self.letters.len()).min_by_key(|letter| self.letters[*letter].at);
            let Some(next) = next.filter(|next| self.letters[*next].at <= until) else { break };
            let letter = self.letters.swap_remove(next);
            self.now = self.now.max(letter.at);
            self.deliver(letter);
        }
        self.now = until;
        for process in 0..self.processes.len() {
            // Those whose time is over ask once more.
            let is_late = |(_, since): &(u32, Duration)| *since + DEADLINE <= until;
            if self.processes[process].waiting.iter().any(is_late) {
                self.ask_again(process);
            }
        }
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { process, session, delay, is_lost, message, .. } = letter;
        match message {
            Message::Order(order) => {
                let micros = (self.now - self.behind).as_micros() as u64;
                let taken = self.ring.take(&order.taking, micros);
                if !is_lost {
                    let message = Message::Answer(order.key, order.number, taken);
                    let at = self.now + delay;
                    self.letters.push(Letter { at, process, session, delay, is_lost, message });
                }
            }
            Message::Answer(key, number, taken) => {
                if session == self.processes[process].session {
                    let now = self.clock(process);
                    self.processes[process].limiter.handle_taken(key, number, &taken, now);
                    self.ask_again(process);
                }
            }
        }
    }

    /// The most that was used within any span of the window's length.
    fn most(&self) -> u32 {
        let within = |end: Duration| {
            let within = self.used.iter().filter(|(at, _)| *at <= end && *at + WINDOW > end);
            within.map(|(_, units)| units).sum()
        };
        self.used.iter().map(|(end, _)| within(*end)).max().unwrap_or(0)
    }

    fn sum(&self) -> u32 {
        self.used.iter().map(|(_, units)| units).sum()
    }

    fn after(&mut self, ms: u64) {
        self.advance(self.now + Duration::from_millis(ms));
    }

    fn counts(&self, process: usize) -> Counts {
        self.processes[process].limiter.counts()
    }
}

// --- what one would expect --------------------------------------------------------------------------------

#[test]
fn who_asks_much_needs_few_round_trips_and_the_limit_is_used_to_its_end() {
    let mut world = World::reached(2, 1_000, FailMode::Closed);
    for n in 0..3_000 {
        world.statement(n % 2, 1, world.now);
        world.after(0);
        if n % 20 == 0 {
            world.after(1);
        }
    }
    assert_eq!((world.sum(), world.most()), (1_000, 1_000));
    let orders: u64 = [0, 1].map(|process| world.counts(process).orders).iter().sum();
    assert!(orders < 150, "{orders} round trips");
    assert_eq!(world.refused, 2_000);
    let denied: u64 = [0, 1].map(|process| world.counts(process).denied).iter().sum();
    assert!(denied >= 1_990, "{denied} refusals without one");
}

#[test]
fn who_asks_little_takes_nothing_ahead_and_gives_back_what_is_left_over() {
    let mut world = World::reached(2, 100, FailMode::Closed);
    for _ in 0..20 {
        world.statement(0, 1, world.now);
        world.after(300);
    }
    assert_eq!(world.counts(0).taken, 20);
    // A burst, and then nothing: what it took ahead is there for the other.
    let mut world = World::reached(2, 100, FailMode::Closed);
    for _ in 0..22 {
        world.statement(0, 1, world.now);
        world.after(1);
    }
    let counts = world.counts(0);
    assert!(counts.taken > 22 && counts.orders < 12, "{counts:?}");
    world.after(150);
    world.flush(0);
    world.after(0);
    assert_eq!(world.counts(0).returned, world.counts(0).taken - 22);
    for _ in 0..100 {
        world.statement(1, 1, world.now);
        world.after(0);
    }
    assert_eq!((world.sum(), world.refused), (100, 22));
}

#[test]
fn what_is_taken_ahead_counts_until_a_window_after_it_may_be_used() {
    let mut world = World::reached(2, 40, FailMode::Closed);
    // At the end of a slot, so that it leaves as soon as it may.
    world.after(90);
    for _ in 0..17 {
        world.statement(0, 1, world.now);
        world.after(0);
    }
    world.after(97);
    let orders = world.counts(0).orders;
    world.statement(0, 1, world.now);
    assert_eq!(world.counts(0).orders, orders, "it was in hand");
    for _ in 0..30 {
        world.statement(1, 1, world.now);
        world.after(0);
    }
    world.after(WINDOW.as_millis() as u64 - 20);
    for _ in 0..300 {
        world.statement(1, 1, world.now);
        world.after(1);
    }
    assert!(world.sum() > 60 && world.most() <= 40, "{} of {}", world.most(), world.sum());
}

#[test]
fn what_passes_in_any_case_is_told_and_leaves_less_for_others() {
    let mut world = World::reached(2, 10, FailMode::Local);
    let counted = Bucket { over: OverLimit::Count, ..world.bucket.clone() };
    let now = world.clock(0);
    for _ in 0..7 {
        let limiter = &mut world.processes[0].limiter;
        assert_eq!(limiter.admit(&[(&counted, KEY)], &IDLE, &mut named, now), Verdict::Pass);
    }
    world.flush(0);
    world.after(0);
    for _ in 0..10 {
        world.statement(1, 1, world.now);
        world.after(0);
    }
    assert_eq!((world.sum(), world.refused), (3, 7));
}

#[test]
fn a_ring_that_is_lost_is_told_again_what_was_used() {
    let mut world = World::reached(2, 10, FailMode::Local);
    for process in [0, 1] {
        for _ in 0..4 {
            world.statement(process, 1, world.now);
            world.after(0);
        }
    }
    world.after(5);
    world.ring.forget();
    // Its session has ended, so each asks about all that it counts; that there is another ring is found out first.
    (0..2).for_each(|process| world.reach(process));
    for _ in 0..2 {
        (0..2).for_each(|process| world.flush(process));
        world.after(0);
    }
    for _ in 0..10 {
        world.statement(1, 1, world.now);
        world.after(0);
    }
    assert_eq!(world.sum(), 10);
}

#[test]
fn a_statement_waits_no_longer_than_the_deadline_and_then_each_process_has_its_part() {
    let mut world = World::reached(2, 10, FailMode::Local);
    world.weather = (Duration::ZERO, Duration::ZERO, Some(true));
    world.statement(0, 1, world.now);
    assert_eq!(world.sum(), 0);
    world.after(49);
    assert_eq!(world.sum(), 0);
    world.after(1);
    assert_eq!(world.sum(), 1, "counted alone");
    // Whoever comes while that question is late, waits for nothing.
    for _ in 0..10 {
        world.statement(0, 1, world.now);
    }
    assert_eq!((world.sum(), world.refused), (5, 6));
    // When it is back, all that was used is told.
    world.weather = (Duration::ZERO, Duration::ZERO, None);
    world.lose(0);
    world.reach(0);
    world.flush(0);
    world.after(0);
    for _ in 0..10 {
        world.statement(1, 1, world.now);
        world.after(0);
    }
    assert_eq!(world.sum(), 10);
}

#[test]
fn without_whoever_shares_everything_or_nothing_passes_if_it_is_so_said() {
    for (mode, passed) in [(FailMode::Open, 50), (FailMode::Closed, 0)] {
        let mut world = World::new(2, 10, mode);
        for _ in 0..50 {
            world.statement(0, 1, world.now);
        }
        assert_eq!(world.sum(), passed);
    }
    let mut closed = World::new(1, 10, FailMode::Closed).processes.remove(0).limiter;
    let bucket = bucket("all", 10, OverLimit::Reject);
    let verdict = closed.admit(&[(&bucket, KEY)], &IDLE, &mut named, Duration::ZERO);
    let Verdict::Over(over) = verdict else { panic!("{verdict:?}") };
    let refusal = over.refusal();
    assert_eq!(
        refusal.message,
        "rate limit \"all\" cannot be counted: the Redis that counts it is lost"
    );
    let detail = "bucket=all limit=10 window_s=60 remaining=0 retry_after_ms=1000";
    assert_eq!(refusal.detail.as_deref(), Some(detail));
}

#[test]
fn nothing_is_taken_of_one_bucket_when_another_has_no_room() {
    let mut world = World::reached(1, 10, FailMode::Closed);
    let (own, all) = (world.bucket.clone(), Bucket { limit: 1, ..world.bucket.clone() });
    let now = world.clock(0);
    let mut passed = 0;
    for _ in 0..20 {
        let buckets = [(&own, 1), (&all, 2)];
        passed += u32::from(
            world.processes[0].limiter.admit(&buckets, &IDLE, &mut named, now) == Verdict::Pass,
        );
        // Each bucket has a ring of its own here.
        while let Some(order) = world.processes[0].limiter.poll_order() {
            let taken = Ring::default().take(&order.taking, 1);
            let granted = if order.key == 2 && passed > 0 { 0 } else { taken.granted };
            let taken = Taken { granted, retry: Duration::from_secs(1), ..taken };
            world.processes[0].limiter.handle_taken(order.key, order.number, &taken, now);
        }
    }
    assert_eq!(passed, 1);
    let Some((_, share)) = world.processes[0].limiter.windows.shared(1) else { panic!() };
    assert_eq!(share.room(1, 10, now), Room::Here, "the unit is still in hand");
}

// --- whatever happens -------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Act {
    Statement(u32),
    Flush,
    Lose,
    Reach,
    ClockBack(u64),
}

#[derive(Clone, Debug)]
struct Step {
    pause_ms: u64,
    process: usize,
    act: Act,
    to_ms: u64,
    back_ms: u64,
    lost: Option<bool>,
}

fn step() -> impl Strategy<Value = Step> {
    let act = prop_oneof![
        20 => (1..4u32).prop_map(Act::Statement),
        4 => Just(Act::Flush),
        1 => Just(Act::Lose),
        2 => Just(Act::Reach),
        1 => (1..20_000u64).prop_map(Act::ClockBack),
    ];
    let around = WINDOW.as_millis() as u64;
    let pause = prop_oneof![
        12 => 0..5u64,
        6 => 0..200u64,
        1 => 0..3_000u64,
        1 => around - 300..around + 100,
    ];
    let delay = || prop_oneof![5 => 0..2u64, 2 => 0..120u64, 1 => 0..4_000u64];
    let lost = prop_oneof![8 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let all = (pause, 0..3usize, act, delay(), delay(), lost);
    all.prop_map(|(pause_ms, process, act, to_ms, back_ms, lost)| Step {
        pause_ms,
        process,
        act,
        to_ms,
        back_ms,
        lost,
    })
}

fn carry_out(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        world.after(step.pause_ms);
        let ms = Duration::from_millis;
        world.weather = (ms(step.to_ms), ms(step.back_ms), step.lost);
        match step.act {
            Act::Statement(units) => world.statement(step.process, units, world.now),
            Act::Flush => world.flush(step.process),
            Act::Lose => world.lose(step.process),
            Act::Reach => world.reach(step.process),
            Act::ClockBack(by) => world.behind += ms(by),
        }
    }
    world.after(10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Property 29: no window of the length admits more than the limit of what several processes have taken from one ring,
    // however late messages are and whichever are lost, while the ring keeps its memory.
    #[test]
    fn no_span_of_the_windows_length_uses_more_than_was_granted(
        limit in 1..40u32,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut world = World::reached(3, limit, FailMode::Closed);
        carry_out(&mut world, steps);
        prop_assert!(world.most() <= limit, "{} of {limit}", world.most());
    }

    // Property 27: all processes together keep to the limit when none of them reaches the others; and when some do and some do
    // not, or lose each other at any time, to twice that.
    #[test]
    fn each_has_its_part_when_nobody_is_reached(
        limit in 12..60u32,
        is_reached in any::<bool>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut world = World::new(3, limit, FailMode::Local);
        if is_reached {
            (0..3).for_each(|process| world.reach(process));
        }
        let alone = steps.into_iter().filter(|step| is_reached || !matches!(step.act, Act::Reach));
        carry_out(&mut world, alone.collect());
        let most = if is_reached { 2 * limit } else { limit };
        prop_assert!(world.most() <= most, "{} of {limit}", world.most());
    }

    // Property 29: with answers that come, nobody who is below the limit is refused for long: what was taken and not used is
    // given back.
    #[test]
    fn what_is_not_used_is_not_lost(
        limit in 10..60u32,
        pauses in prop::collection::vec((100..400u64, 0..3usize), 1..200),
    ) {
        let mut world = World::reached(3, limit, FailMode::Closed);
        for (pause, process) in pauses {
            world.after(pause);
            (0..3).for_each(|process| world.flush(process));
            world.after(0);
            let (before, refused) = (world.used.len(), world.refused);
            world.statement(process, 1, world.now);
            world.after(0);
            prop_assert_eq!(world.used.len() - before + (world.refused - refused) as usize, 1);
            // Two slots longer than the window, and what others have in hand for a slot at most.
            let counts = |at: Duration| at + WINDOW + WINDOW / 60 * 2 > world.now;
            let counted = world.used.iter().filter(|(at, _)| counts(*at)).count() as u32;
            let taken: u32 = (0..3).map(|process| {
                let counts = world.counts(process);
                (counts.taken - counts.returned) as u32
            }).sum();
            let in_hand = taken - world.sum();
            if world.refused > refused {
                prop_assert!(counted + in_hand >= limit, "{counted} and {in_hand} of {limit}");
            }
        }
    }
}
