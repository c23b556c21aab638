//! Random histories of a pool of two workers against a naive model: properties 12 to 16 and 41.
//!
//! The model keeps plain lists. Answers to commands it predicts exactly; actions it checks for a
//! reason, and after polling until nothing is due it checks that nothing which is due was left
//! undone.

use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::rc::Rc;
use tidegate_core::limits::{CONNECT_ATTEMPTS_MAX, POOL_CONNECTING_MAX};

/// The count all parts share.
#[derive(Clone, Default)]
struct Shared(Rc<Cell<usize>>, Rc<Cell<Option<Pressure>>>);

impl Budget for Shared {
    fn taken(&self) -> usize {
        self.0.get()
    }
    fn try_take(&mut self, limit: usize) -> bool {
        let free = self.0.get() < limit && self.pressure() == Pressure::None;
        self.0.set(self.0.get() + usize::from(free));
        free
    }
    fn give_back(&mut self) {
        assert!(self.0.get() > 0, "a place is given back twice");
        self.0.set(self.0.get() - 1);
    }
    fn try_give_back(&mut self, floor: usize) -> bool {
        let above = self.0.get() > floor;
        self.0.set(self.0.get() - usize::from(above));
        above
    }
    fn pressure(&self) -> Pressure {
        self.1.get().unwrap_or(Pressure::None)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Acquire(Priority),
    Cancel(usize),
    Release(usize, Fitness),
    Die(usize),
    Opened(usize),
    OpenFailed(usize, OpenFailure),
    Pass(Duration),
    Resize(usize, usize),
    Reconnect,
    Pause,
    Resume,
    /// The bound that the pool shares with others: reduced, used up by somebody so long ago, or neither.
    Press(Option<Option<Duration>>),
    MakeRoom,
}

struct Part {
    pool: Pool,
    idle: Vec<(ServerId, Instant)>,
    used: Vec<ServerId>,
    attempts: Vec<Attempt>,
    waiters: Vec<Waiter>,
    /// To be told that their connection cannot be opened.
    doomed_waiters: Vec<ClientId>,
    failures: u32,
    failed_at: Option<Instant>,
    is_high: bool,
}

struct World {
    parts: Vec<Part>,
    budget: Shared,
    config: PoolConfig,
    generation: Generation,
    now: Instant,
    /// Since when it is paused, and when it was resumed last.
    paused_at: Option<Instant>,
    resumed_at: Option<Instant>,
    next_id: u64,
    /// Everything a client or the server could notice, for comparing two runs.
    trace: Vec<String>,
}

const IDLE_MAX: Duration = Duration::from_secs(300);
const WAIT_MAX: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(300);

impl World {
    fn new(workers: usize, now: Instant) -> Self {
        let config = PoolConfig { size_min: 2, size_max: 6, waiters_max: 9, ..Default::default() };
        assert_eq!((config.idle_max, config.wait_max), (IDLE_MAX, WAIT_MAX));
        assert_eq!(config.pause_max, PAUSE_MAX);
        let part = |_| Part {
            pool: Pool::new(config.clone(), Generation(0)),
            idle: Vec::new(),
            used: Vec::new(),
            attempts: Vec::new(),
            waiters: Vec::new(),
            doomed_waiters: Vec::new(),
            failures: 0,
            failed_at: None,
            is_high: false,
        };
        let mut world = Self {
            parts: (0..workers).map(part).collect(),
            budget: Shared::default(),
            config,
            generation: Generation(0),
            now,
            paused_at: None,
            resumed_at: None,
            next_id: 0,
            trace: Vec::new(),
        };
        world.settle();
        world
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn apply(&mut self, worker: usize, op: &Op) {
        let worker = worker % self.parts.len();
        match *op {
            Op::Acquire(priority) => self.acquire(worker, priority),
            Op::Cancel(nth) => self.cancel(worker, nth),
            Op::Release(nth, fitness) => {
                let Some(server) = take_nth(&mut self.parts[worker].used, nth) else { return };
                let now = self.now;
                let part = &mut self.parts[worker];
                let released = part.pool.handle_released(server, fitness, now, &mut self.budget);
                if fitness == Fitness::Unfit {
                    assert_eq!(released, Released::Close(CloseReason::Unfit));
                } else {
                    self.placed(worker, server, released);
                }
            }
            Op::Die(nth) => self.die(worker, nth),
            Op::Opened(nth) => {
                let Some(attempt) = take_nth(&mut self.parts[worker].attempts, nth) else { return };
                let server = ServerId(self.id());
                let part = &mut self.parts[worker];
                (part.failures, part.failed_at) = (0, None);
                let released = part.pool.handle_opened(server, attempt, self.now, &mut self.budget);
                if self.paused_at.is_none() && attempt.generation < self.generation {
                    assert_eq!(released, Released::Close(CloseReason::Stale));
                }
                self.placed(worker, server, released);
            }
            Op::OpenFailed(nth, failure) => self.open_failed(worker, nth, failure),
            Op::MakeRoom => self.make_room(worker),
            Op::Pass(time) => self.now += time,
            Op::Resize(size_min, size_max) => {
                self.config.size_min = size_min.min(size_max);
                self.config.size_max = size_max;
                for part in &mut self.parts {
                    part.pool.set_config(self.config.clone());
                }
            }
            Op::Press(pressure) => self.budget.1.set(pressure.map(|wanted| match wanted {
                None => Pressure::Over,
                Some(ago) => Pressure::Wanted(self.now - ago),
            })),
            Op::Pause => self.pause(),
            Op::Resume => self.resume(),
            Op::Reconnect => {
                self.generation.0 += 1;
                for part in &mut self.parts {
                    part.pool.set_generation(self.generation);
                    (part.failures, part.failed_at) = (0, None);
                }
            }
        }
        self.settle();
    }

    fn pause(&mut self) {
        self.paused_at.get_or_insert(self.now);
        for part in &mut self.parts {
            part.pool.pause(self.now);
        }
    }

    fn resume(&mut self) {
        if self.paused_at.take().is_none() {
            return;
        }
        self.resumed_at = Some(self.now);
        for part in &mut self.parts {
            part.pool.resume(self.now);
            (part.failures, part.failed_at) = (0, None);
        }
    }

    /// How long a client has waited by the bound that holds now, and that bound.
    fn waited(&self, waiter: &Waiter) -> (Duration, Duration) {
        let (from, bound) = match (self.paused_at, self.resumed_at) {
            (Some(at), _) => (at, PAUSE_MAX),
            (None, Some(at)) => (at, WAIT_MAX),
            (None, None) => (waiter.since, WAIT_MAX),
        };
        (self.now - waiter.since.max(from), bound)
    }

    fn acquire(&mut self, worker: usize, priority: Priority) {
        let client = ClientId(self.id());
        let part = &mut self.parts[worker];
        let got = part.pool.acquire(client, priority, self.now);
        self.trace.push(format!("{worker} {client:?} {got:?}"));
        let expected = if let Some((server, _)) = part.idle.pop() {
            part.used.push(server); // the most recently used one
            Acquire::Granted(server)
        } else if part.waiters.len() >= self.config.waiters_max {
            let (waiting, size_max) = (part.waiters.len(), self.config.size_max);
            Acquire::Refused(WaitRefusal::QueueFull { waiting, size_max })
        } else {
            part.waiters.push(Waiter { client, priority, since: self.now });
            // Stable, so in order within a priority.
            part.waiters.sort_by_key(|waiter| waiter.priority);
            Acquire::Queued
        };
        assert_eq!(got, expected);
    }

    fn cancel(&mut self, worker: usize, nth: usize) {
        let part = &mut self.parts[worker];
        let Some(waiter) = take_nth(&mut part.waiters, nth) else { return };
        assert!(part.pool.cancel_wait(waiter.client));
        assert!(!part.pool.cancel_wait(waiter.client));
    }

    fn die(&mut self, worker: usize, nth: usize) {
        let part = &mut self.parts[worker];
        let mut all: Vec<ServerId> = part.used.clone();
        all.extend(part.idle.iter().map(|(server, _)| *server));
        let Some(server) = take_nth(&mut all, nth) else { return };
        part.used.retain(|used| *used != server);
        part.idle.retain(|(idle, _)| *idle != server);
        assert!(part.pool.handle_closed(server, &mut self.budget));
        assert!(!part.pool.handle_closed(server, &mut self.budget));
    }

    /// The longest idle connection goes, unless the minimum may need it.
    fn make_room(&mut self, worker: usize) {
        let above = self.budget.taken().saturating_sub(self.config.size_min);
        let part = &mut self.parts[worker];
        let is_spare = above > 0 && !part.idle.is_empty() && part.attempts.is_empty();
        let spare = part.pool.spare(&self.budget).map(|spare| (spare.count, spare.idle_since));
        let expected = is_spare.then(|| (part.idle.len().min(above), part.idle[0].1));
        assert_eq!(spare, expected);
        let given_up = part.pool.give_up_idle(&mut self.budget);
        let expected = is_spare.then(|| (part.idle.remove(0).0, CloseReason::MadeRoom));
        assert_eq!(given_up, expected);
    }

    fn open_failed(&mut self, worker: usize, nth: usize, failure: OpenFailure) {
        let now = self.now;
        let elsewhere = self.elsewhere(worker);
        let part = &mut self.parts[worker];
        let Some(attempt) = take_nth(&mut part.attempts, nth) else { return };
        part.pool.handle_elsewhere(elsewhere);
        let budget = &mut self.budget;
        let count = part.pool.handle_open_failed(attempt, failure, Jitter::NONE, now, budget);
        let is_old = attempt.generation < self.generation || self.paused_at.is_some();
        if is_old || attempt.number <= part.failures {
            assert_eq!(count, FailureCount::Repeated);
            return;
        }
        assert_eq!(count, FailureCount::Counted);
        part.failures += 1;
        part.failed_at = Some(now);
        let gives_up = part.failures >= CONNECT_ATTEMPTS_MAX || failure != OpenFailure::Passing;
        if gives_up && part.used.len() + part.idle.len() + elsewhere.idle + elsewhere.in_use == 0 {
            part.doomed_waiters.extend(part.waiters.drain(..).map(|waiter| waiter.client));
        }
    }

    fn elsewhere(&self, worker: usize) -> Elsewhere {
        let others = self.parts.iter().enumerate().filter(|(other, _)| *other != worker);
        let others = others.map(|(_, part)| (part.idle.len(), part.used.len()));
        others.fold(Elsewhere::default(), |sum, (idle, in_use)| Elsewhere {
            idle: sum.idle + idle,
            in_use: sum.in_use + in_use,
        })
    }

    /// A free connection found its place.
    fn placed(&mut self, worker: usize, server: ServerId, released: Released) {
        self.trace.push(format!("{worker} {server:?} {released:?}"));
        if self.paused_at.is_some() {
            assert_eq!(released, Released::Close(CloseReason::Paused), "paused: all are closed");
            return;
        }
        let part = &mut self.parts[worker];
        match released {
            Released::HandTo(client) => {
                let first = part.waiters.remove(0);
                assert_eq!(client, first.client, "waiters are served in order");
                part.used.push(server);
            }
            Released::Idle => {
                assert!(part.waiters.is_empty(), "idle while somebody waits");
                part.idle.push((server, self.now));
            }
            Released::Donate(to, donation) => {
                assert_eq!(donation.server, server);
                self.donated(to.0, donation);
            }
            Released::Close(CloseReason::OverMaximum) => {
                let is_over = self.budget.pressure() == Pressure::Over;
                assert!(is_over || self.budget.taken() >= self.config.size_max);
            }
            Released::Close(CloseReason::MadeRoom) => {
                let Pressure::Wanted(since) = self.budget.pressure() else { panic!("nobody") };
                assert!(part.waiters.first().is_none_or(|waiter| since < waiter.since));
            }
            Released::Close(CloseReason::Stale) => {}
            Released::Close(CloseReason::TooOld) => {
                assert!(self.budget.taken() + 1 >= self.config.size_min);
            }
            Released::Close(reason) => panic!("closed for {reason:?}"),
        }
    }

    fn donated(&mut self, worker: usize, donation: Donation) {
        let part = &mut self.parts[worker];
        let released = part.pool.handle_donated(donation, self.now, &mut self.budget);
        self.placed(worker, donation.server, released);
    }

    /// Polls every part until nothing is due, then looks for what should have been done.
    fn settle(&mut self) {
        // A donation gives another part something to do, and changes what is in use elsewhere.
        for _ in 0..4 {
            for worker in 0..self.parts.len() {
                let elsewhere = self.elsewhere(worker);
                self.parts[worker].pool.handle_elsewhere(elsewhere);
                self.poll(worker);
            }
        }
        for worker in 0..self.parts.len() {
            self.check(worker);
        }
        let held: usize = self
            .parts
            .iter()
            .map(|part| part.idle.len() + part.used.len() + part.attempts.len())
            .sum();
        assert_eq!(self.budget.taken(), held, "the books agree with the budget");
    }

    fn poll(&mut self, worker: usize) {
        for round in 0.. {
            assert!(round < 1_000, "polling does not end");
            let before = self.budget.taken();
            let part = &mut self.parts[worker];
            let Some(action) = part.pool.poll_action(self.now, &mut self.budget) else { break };
            self.trace.push(format!("{worker} {action:?}"));
            match action {
                PoolAction::Open(attempt) => self.opening(worker, attempt, before),
                PoolAction::Close(server, reason) => self.closed(worker, server, reason, before),
                PoolAction::Expire(expired) => {
                    let part = &mut self.parts[worker];
                    let index = part.waiters.iter().position(|w| w.client == expired.waiter);
                    let waiter = part.waiters.remove(index.unwrap());
                    assert_eq!(expired.waited, self.now - waiter.since);
                    let (waited, bound) = self.waited(&waiter);
                    assert!(waited >= bound, "told too early");
                    let part = &self.parts[worker];
                    assert_eq!(expired.waiting, part.waiters.len());
                }
                PoolAction::Fail { waiter, attempts } => {
                    // Property 41: only after enough attempts (or a definitive answer), in order.
                    assert_eq!(part.doomed_waiters.remove(0), waiter);
                    assert!(attempts >= 1);
                }
                PoolAction::Utilisation(crossing) => part.crossed(crossing),
                PoolAction::Beg { priority, since } => self.beg(worker, priority, since),
            }
        }
    }

    fn opening(&mut self, worker: usize, attempt: Attempt, before: usize) {
        let part = &mut self.parts[worker];
        assert!(self.paused_at.is_none(), "paused: nothing is opened");
        assert!(before < self.config.size_max, "property 13: the maximum");
        assert_eq!(attempt.number, part.failures + 1);
        assert_eq!(attempt.generation, self.generation);
        if let Some(failed_at) = part.failed_at {
            // Property 16, from the definition: 1 s doubled for each further failure, at most 30 s.
            let pause = Duration::from_secs((1u64 << (part.failures - 1).min(10)).min(30));
            assert!(self.now >= failed_at + pause, "property 16: the pause");
            assert!(part.attempts.is_empty(), "one attempt at a time after a failure");
        }
        let is_waited_for = part.waiters.len() > part.attempts.len();
        let is_below = before < self.config.size_min;
        let has_old = part.idle.iter().any(|(server, _)| part.pool.is_too_old(*server, self.now));
        assert!(is_waited_for || is_below || has_old, "nobody needs another connection");
        part.attempts.push(attempt);
        assert!(part.attempts.len() <= POOL_CONNECTING_MAX);
    }

    fn closed(&mut self, worker: usize, server: ServerId, reason: CloseReason, before: usize) {
        let part = &mut self.parts[worker];
        let index = part.idle.iter().position(|(idle, _)| *idle == server);
        let (_, since) = part.idle.remove(index.unwrap());
        match reason {
            CloseReason::IdleTooLong => {
                assert!(self.now - since >= IDLE_MAX);
                assert!(before > self.config.size_min, "property 14: down to the minimum");
            }
            CloseReason::OverMaximum => {
                assert!(before > self.config.size_max || self.budget.pressure() == Pressure::Over)
            }
            CloseReason::TooOld => assert!(
                before > self.config.size_min || self.config.size_min == self.config.size_max
            ),
            CloseReason::Stale => {}
            CloseReason::Paused => assert!(self.paused_at.is_some()),
            other => panic!("closed for {other:?}"),
        }
    }

    fn beg(&mut self, worker: usize, priority: Priority, since: Instant) {
        let debt = Debt { worker: WorkerId(worker), priority, since };
        assert_eq!(self.parts[worker].waiters[0].priority, priority);
        for other in (0..self.parts.len()).filter(|other| *other != worker) {
            let coldest = self.parts[other].idle.first().copied();
            let begged = self.parts[other].pool.handle_begged(debt, self.now);
            match begged {
                Begged::Donate(donation) => {
                    assert_eq!(Some(donation.server), coldest.map(|(server, _)| server));
                    self.parts[other].idle.remove(0);
                    self.donated(worker, donation);
                }
                Begged::Owed => assert_eq!(coldest, None),
            }
        }
    }

    fn check(&mut self, worker: usize) {
        let (taken, config, now) = (self.budget.taken(), &self.config, self.now);
        let elsewhere = self.elsewhere(worker);
        let part = &self.parts[worker];
        let counts = part.pool.counts();
        assert_eq!(counts.idle, part.idle.len());
        assert_eq!(counts.in_use, part.used.len());
        assert_eq!(counts.opening, part.attempts.len());
        assert_eq!(counts.waiting, part.waiters.len());
        assert_eq!(part.pool.connect_failures(), part.failures);
        assert!(part.idle.is_empty() || part.waiters.is_empty(), "idle while somebody waits");
        assert!(part.waiters.len() <= config.waiters_max);
        assert!(part.doomed_waiters.is_empty(), "property 41: told at once");
        let is_in_time = |waiter: &Waiter| {
            let (waited, bound) = self.waited(waiter);
            waited < bound
        };
        assert!(part.waiters.iter().all(is_in_time), "a late expiry");
        if self.paused_at.is_some() {
            assert!(part.idle.is_empty(), "paused: nothing stays open");
        }
        let pressure = self.budget.pressure();
        if taken > config.size_max || pressure == Pressure::Over {
            assert!(part.idle.is_empty(), "property 13: idle though over the maximum");
        }
        let may_open = part.attempts.len() < POOL_CONNECTING_MAX
            && part.failures == 0
            && pressure == Pressure::None
            && self.paused_at.is_none();
        if may_open {
            assert!(taken >= config.size_min, "property 13: the minimum while the server is up");
            let wanted = part.waiters.len() > part.attempts.len();
            assert!(!wanted || taken >= config.size_max, "a client waits for nothing");
        }
        if part.attempts.is_empty() && taken > config.size_min && part.recheck_passed(now) {
            let late = part.idle.iter().any(|(_, since)| now - *since >= IDLE_MAX);
            assert!(!late, "property 14: idle for too long");
        }
        // Property 15: above 80 % it has warned, below 70 % it has cleared.
        let used = part.used.len() + elsewhere.in_use;
        if used * 100 > config.size_max * 80 {
            assert!(part.is_high, "property 15: no warning");
        } else if used * 100 < config.size_max * 70 {
            assert!(!part.is_high, "property 15: not cleared");
        }
        if let Some(at) = part.pool.poll_timeout() {
            assert!(at > now, "polled until nothing is due, yet due");
        }
    }
}

impl Part {
    fn crossed(&mut self, crossing: Crossing) {
        match crossing {
            Crossing::High { percent } => {
                assert!(!self.is_high && percent >= 80, "property 15: {percent}");
                self.is_high = true;
            }
            Crossing::Normal { percent } => {
                assert!(self.is_high && percent < 70, "property 15: {percent}");
                self.is_high = false;
            }
        }
    }

    fn recheck_passed(&self, now: Instant) -> bool {
        self.pool.idle_recheck_at.is_none_or(|at| at <= now)
    }
}

fn take_nth<T>(list: &mut Vec<T>, nth: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.remove(nth % list.len())) }
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![1 => Just(Priority::Critical), 3 => Just(Priority::Normal)]
}

fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => 0..500u64,
        3 => 500..5_000u64,
        2 => 5_000..40_000u64,
        1 => 40_000..400_000u64,
        1 => Just(3_700_000u64),
    ]
    .prop_map(Duration::from_millis)
}

fn op() -> impl Strategy<Value = Op> {
    let fitness = prop_oneof![4 => Just(Fitness::Fit), 1 => Just(Fitness::Unfit)];
    let failure = prop_oneof![
        6 => Just(OpenFailure::Passing),
        1 => Just(OpenFailure::Full),
        1 => Just(OpenFailure::Definitive),
    ];
    prop_oneof![
        8 => priority().prop_map(Op::Acquire),
        1 => any::<usize>().prop_map(Op::Cancel),
        6 => (any::<usize>(), fitness).prop_map(|(nth, fitness)| Op::Release(nth, fitness)),
        1 => any::<usize>().prop_map(Op::Die),
        6 => any::<usize>().prop_map(Op::Opened),
        2 => (any::<usize>(), failure).prop_map(|(nth, failure)| Op::OpenFailed(nth, failure)),
        4 => pause().prop_map(Op::Pass),
        1 => (0..8usize, 1..12usize).prop_map(|(min, max)| Op::Resize(min, max)),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Pause),
        1 => (0..4_000u64).prop_map(|ms| Op::Press(Some(Some(Duration::from_millis(ms))))),
        1 => Just(Op::Press(Some(None))),
        2 => Just(Op::Press(None)),
        2 => Just(Op::Resume),
        1 => Just(Op::MakeRoom),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((0..60usize, any::<bool>()), 1..100)
}

fn history() -> impl Strategy<Value = Vec<(usize, Op)>> {
    prop::collection::vec((0..2usize, op()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 13: never outside the bounds while the server is up (reduced bounds are reached by
    // closing what is free).
    // Property 14: idle for longer than 300 s is closed, down to the minimum.
    // Property 15: a warning above 80 % with hysteresis.
    // Property 16: attempts after failures wait 1 s, 2 s, 4 s …, bounded.
    // Property 41: after 3 failed attempts, those who wait for the connection are told.
    // PAUSE: nothing is granted, opened or kept, nobody's wait ends before `pause_max`; RESUME: in order.
    #[test]
    fn one_worker_behaves_as_its_model(history in history()) {
        let mut world = World::new(1, Instant::now());
        for (_, op) in &history {
            world.apply(0, op);
        }
    }

    // Property 13: the bounds hold over all workers together, with connections moving between them.
    #[test]
    fn two_workers_share_one_budget(history in history()) {
        let mut world = World::new(2, Instant::now());
        for (worker, op) in &history {
            world.apply(*worker, op);
        }
    }

    // Property 12: what happens in the pool for reads is not noticed in the pool for writes.
    #[test]
    fn pools_do_not_see_each_other(history in history()) {
        let start = Instant::now();
        let (mut write, mut read) = (World::new(1, start), World::new(1, start));
        let mut alone = World::new(1, start);
        for (pool, op) in &history {
            match (pool, op) {
                (_, Op::Pass(_)) => [&mut write, &mut read].map(|w| w.apply(0, op)),
                (0, _) => [write.apply(0, op), ()],
                _ => [read.apply(0, op), ()],
            };
            if *pool == 0 || matches!(op, Op::Pass(_)) {
                alone.apply(0, op);
            }
        }
        prop_assert_eq!(write.trace, alone.trace);
        prop_assert_eq!(write.budget.taken(), alone.budget.taken());
    }

    // Property 16: the pause doubles from 1 s to the bound, jitter adds at most a quarter, success
    // starts again.
    #[test]
    fn pauses_double(jitters in prop::collection::vec(any::<u8>(), 1..20)) {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let mut expected = Duration::from_secs(1);
        for jitter in &jitters {
            backoff.handle_failure(now, Jitter(*jitter));
            let pause = backoff.retry_at().unwrap() - now;
            prop_assert!(pause >= expected && pause <= expected * 5 / 4);
            prop_assert!(*jitter != 0 || pause == expected);
            prop_assert!(!backoff.is_ready(now) && backoff.is_ready(now + pause));
            expected = (expected * 2).min(Duration::from_secs(30));
        }
        backoff.handle_success();
        prop_assert!(backoff.is_ready(now) && backoff.failures() == 0);
    }

    // Property 41: a server that never answers fails every waiter with the third attempt, 3 s (1 +
    // 2) after the first.
    #[test]
    fn three_attempts_then_told(waiting in 1..9usize, late in 0..3_000u64) {
        let start = Instant::now();
        let mut world = World::new(1, start);
        for _ in 0..waiting {
            world.apply(0, &Op::Acquire(Priority::Normal));
        }
        let mut told_after = Vec::new();
        for number in 1..=CONNECT_ATTEMPTS_MAX {
            prop_assert!(!world.parts[0].attempts.is_empty());
            while !world.parts[0].attempts.is_empty() {
                world.apply(0, &Op::OpenFailed(0, OpenFailure::Passing));
            }
            if world.parts[0].waiters.is_empty() {
                told_after.push((number, world.now - start));
            }
            let pause = Backoff::pause(number);
            if number < CONNECT_ATTEMPTS_MAX {
                world.apply(0, &Op::Pass(pause.mul_f64(late as f64 / 3_001.0)));
                prop_assert!(world.parts[0].attempts.is_empty(), "tries before the pause is over");
                world.apply(0, &Op::Pass(pause));
            }
        }
        prop_assert_eq!(told_after.len(), 1);
        prop_assert_eq!(told_after[0].0, 3);
        prop_assert!(told_after[0].1 >= Duration::from_secs(3));
    }

    // Property 15: reported once per crossing, from a plain definition of the hysteresis.
    #[test]
    fn warnings_follow_the_hysteresis(steps in steps()) {
        let mut utilisation = Utilisation::default();
        let (mut is_high, mut crossed) = (false, false);
        for (used, polls) in steps {
            utilisation.observe(used, 50);
            crossed |= used > 40;
            if !polls {
                continue;
            }
            let expected = match (is_high, crossed, used < 35) {
                (false, true, _) => { is_high = true; true }
                (true, _, true) => { is_high = false; crossed = false; true }
                _ => false,
            };
            let polled = utilisation.poll();
            prop_assert_eq!(polled.is_some(), expected);
            prop_assert_eq!(matches!(polled, Some(Crossing::High { .. })), expected && is_high);
        }
    }
}
