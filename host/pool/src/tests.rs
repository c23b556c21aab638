//! Directed cases: one behaviour each, named after it.

use super::*;

#[derive(Default)]
struct Count(usize);

impl Budget for Count {
    fn taken(&self) -> usize {
        self.0
    }
    fn try_take(&mut self, limit: usize) -> bool {
        let free = self.0 < limit;
        self.0 += usize::from(free);
        free
    }
    fn give_back(&mut self) {
        self.0 -= 1;
    }
    fn try_give_back(&mut self, floor: usize) -> bool {
        let above = self.0 > floor;
        self.0 -= usize::from(above);
        above
    }
}

struct Fixture {
    pool: Pool,
    budget: Count,
    now: Instant,
    next_server: u64,
}

use Priority::{Critical, Normal};

impl Fixture {
    fn new(size_min: usize, size_max: usize) -> Self {
        let config = PoolConfig { size_min, size_max, ..PoolConfig::default() };
        let pool = Pool::new(config, Generation(0));
        Self { pool, budget: Count::default(), now: Instant::now(), next_server: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn poll(&mut self) -> Vec<PoolAction> {
        std::iter::from_fn(|| self.pool.poll_action(self.now, &mut self.budget)).collect()
    }

    fn acquire(&mut self, client: u64, priority: Priority) -> Acquire {
        self.pool.acquire(ClientId(client), priority, self.now)
    }

    fn release(&mut self, server: u64) -> Released {
        let server = ServerId(server);
        self.pool.handle_released(server, Fitness::Fit, self.now, &mut self.budget)
    }

    /// Servers 1, 2, … as the polls ask for them.
    fn open_all(&mut self) -> Vec<Released> {
        let mut released = Vec::new();
        for action in self.poll() {
            if let PoolAction::Open(attempt) = action {
                self.next_server += 1;
                let server = ServerId(self.next_server);
                let opened = self.pool.handle_opened(server, attempt, self.now, &mut self.budget);
                released.push(opened);
            }
        }
        released
    }

    fn fail_open(&mut self, failure: OpenFailure) -> Vec<PoolAction> {
        let opens = self.poll().into_iter().filter_map(|action| match action {
            PoolAction::Open(attempt) => Some(attempt),
            _ => None,
        });
        for attempt in opens.collect::<Vec<_>>() {
            let (now, budget) = (self.now, &mut self.budget);
            self.pool.handle_open_failed(attempt, failure, Jitter::NONE, now, budget);
        }
        self.poll()
    }
}

fn fails(waiters: &[u64], attempts: u32) -> Vec<PoolAction> {
    let fail = |id: &u64| PoolAction::Fail { waiter: ClientId(*id), attempts };
    waiters.iter().map(fail).collect()
}

#[test]
fn the_minimum_is_warmed_and_the_last_used_is_used_next() {
    let mut f = Fixture::new(3, 5);
    assert_eq!(f.open_all(), vec![Released::Idle; 3]);
    assert_eq!(f.acquire(1, Normal), Acquire::Granted(ServerId(3)));
    assert_eq!(f.acquire(2, Normal), Acquire::Granted(ServerId(2)));
    assert_eq!(f.release(3), Released::Idle);
    assert_eq!(f.acquire(3, Normal), Acquire::Granted(ServerId(3)));
    let counts = f.pool.counts();
    assert_eq!((counts.idle, counts.in_use, counts.utilisation_percent), (1, 2, 40));
}

#[test]
fn a_released_connection_goes_straight_to_the_first_waiter_critical_ones_first() {
    let mut f = Fixture::new(0, 1);
    assert_eq!(f.acquire(1, Normal), Acquire::Queued);
    assert_eq!(f.open_all(), [Released::HandTo(ClientId(1))]);
    for (client, priority) in [(2, Normal), (3, Normal), (4, Critical)] {
        assert_eq!(f.acquire(client, priority), Acquire::Queued);
    }
    assert_eq!(f.release(1), Released::HandTo(ClientId(4)));
    assert!(f.pool.cancel_wait(ClientId(2)));
    assert_eq!(f.release(1), Released::HandTo(ClientId(3)));
    assert_eq!(f.release(1), Released::Idle);
    assert_eq!(f.release(1), Released::Close(CloseReason::Unfit)); // given back twice
}

#[test]
fn a_wait_ends_at_its_deadline_with_the_facts() {
    let mut f = Fixture::new(0, 1);
    f.acquire(1, Normal);
    f.open_all();
    f.acquire(2, Normal);
    f.pass(Duration::from_secs(1));
    f.acquire(3, Normal);
    f.poll();
    f.pass(Duration::from_millis(28_950));
    f.poll();
    let at = f.pool.poll_timeout();
    assert_eq!(at, Some(f.now + Duration::from_millis(50)));
    f.pass(Duration::from_millis(50));
    let expired = Expired {
        waiter: ClientId(2),
        bound: WaitBound::WaitMax,
        waited: Duration::from_secs(30),
        waiting: 1,
        size: 1,
        size_max: 1,
    };
    assert!(f.poll().contains(&PoolAction::Expire(expired)));
    assert_eq!(f.pool.counts().waiting, 1);
}

#[test]
fn a_full_queue_and_a_draining_pool_refuse() {
    let mut f = Fixture::new(0, 1);
    let config = PoolConfig { waiters_max: 1, ..f.pool.config().clone() };
    f.pool.set_config(config);
    assert_eq!(f.acquire(1, Normal), Acquire::Queued);
    let full = WaitRefusal::QueueFull { waiting: 1, size_max: 1 };
    assert_eq!(f.acquire(2, Normal), Acquire::Refused(full));
    assert_eq!(f.acquire(1, Normal), Acquire::Queued); // waits already
    f.open_all();
    f.pool.drain();
    assert_eq!(f.acquire(3, Normal), Acquire::Refused(WaitRefusal::Draining));
    assert_eq!(f.release(1), Released::Close(CloseReason::Drained));
    assert!(f.pool.is_empty() && f.budget.0 == 0);
}

#[test]
fn one_refused_login_tells_every_waiter_and_stops_warming() {
    let mut f = Fixture::new(2, 4);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    assert_eq!(f.fail_open(OpenFailure::Definitive), fails(&[1, 2], 1));
    f.pass(Duration::from_secs(60));
    assert_eq!(f.poll(), []);
    assert_eq!(f.pool.poll_timeout(), None);
    f.acquire(3, Normal);
    assert!(matches!(f.poll()[..], [PoolAction::Open(Attempt { number: 2, .. })]));
}

#[test]
fn a_full_server_tells_every_waiter_and_warming_goes_on() {
    let mut f = Fixture::new(2, 4);
    f.acquire(1, Normal);
    assert_eq!(f.fail_open(OpenFailure::Full), fails(&[1], 1));
    assert_eq!(f.pool.poll_timeout(), Some(f.now + Duration::from_secs(1)));
    f.pass(Duration::from_secs(1));
    assert_eq!(f.open_all(), [Released::Idle]);
}

#[test]
fn waiters_are_not_failed_while_connections_exist_that_will_be_free() {
    let mut f = Fixture::new(0, 5);
    f.acquire(1, Normal);
    f.open_all();
    f.acquire(2, Normal);
    for number in 1..=4 {
        assert_eq!(
            f.fail_open(OpenFailure::Passing)
                .iter()
                .filter(|action| matches!(action, PoolAction::Fail { .. }))
                .count(),
            0
        );
        f.pass(Backoff::pause(number));
    }
    assert_eq!(f.release(1), Released::HandTo(ClientId(2)));
    // The last connection dies: the next failure is told.
    f.acquire(3, Normal);
    assert!(f.pool.handle_closed(ServerId(1), &mut f.budget));
    let actions = f.fail_open(OpenFailure::Passing);
    assert!(actions.starts_with(&fails(&[3], 5)), "{actions:?}");
}

#[test]
fn attempts_that_run_together_count_once() {
    let mut f = Fixture::new(0, 5);
    for client in 1..=4 {
        f.acquire(client, Normal);
    }
    assert_eq!(f.fail_open(OpenFailure::Passing), [beg(&f)]);
    assert_eq!(f.pool.connect_failures(), 1);
    assert_eq!(f.pool.counts().waiting, 4);
}

fn beg(f: &Fixture) -> PoolAction {
    PoolAction::Beg { priority: Normal, since: f.now }
}

#[test]
fn a_known_recovery_and_an_open_breaker_move_the_next_attempt() {
    let mut f = Fixture::new(0, 5);
    f.acquire(1, Normal);
    f.fail_open(OpenFailure::Passing);
    f.pool.hold_opens_until(f.now + Duration::from_secs(20));
    f.pass(Duration::from_secs(19));
    assert!(!f.poll().iter().any(|action| matches!(action, PoolAction::Open(_))));
    f.pool.retry_now();
    assert!(f.poll().iter().any(|action| matches!(action, PoolAction::Open(_))));
}

#[test]
fn a_reduced_maximum_closes_what_is_free_and_then_what_comes_back() {
    let mut f = Fixture::new(0, 4);
    for client in 1..=4 {
        f.acquire(client, Normal);
    }
    f.open_all();
    f.release(1);
    let config = PoolConfig { size_max: 2, ..f.pool.config().clone() };
    f.pool.set_config(config);
    let closed = PoolAction::Close(ServerId(1), CloseReason::OverMaximum);
    assert!(f.poll().contains(&closed));
    assert_eq!(f.release(2), Released::Close(CloseReason::OverMaximum));
    assert_eq!(f.release(3), Released::Idle);
    assert_eq!(f.budget.0, 2);
}

#[test]
fn an_old_connection_stays_until_its_successor_is_there() {
    let mut f = Fixture::new(1, 2);
    f.open_all();
    f.acquire(1, Normal);
    f.pass(limits::SERVER_LIFETIME_MAX);
    assert_eq!(f.release(1), Released::Idle);
    // Nothing closes yet: the minimum would be undercut.
    assert_eq!(f.open_all(), [Released::Idle]);
    let closed = PoolAction::Close(ServerId(1), CloseReason::TooOld);
    assert_eq!(f.poll(), [closed]);
    assert_eq!((f.budget.0, f.pool.counts().idle), (1, 1));
}

#[test]
fn bounds_that_make_no_sense_are_put_right() {
    let config = PoolConfig {
        size_min: 9,
        size_max: 0,
        idle_max: Duration::MAX,
        lifetime_max: Duration::MAX,
        wait_max: Duration::MAX,
        pause_max: Duration::MAX,
        waiters_max: 1,
    };
    let mut f = Fixture::new(0, 1);
    f.pool.set_config(config);
    f.acquire(1, Normal);
    f.open_all();
    f.acquire(2, Normal);
    assert!(f.pool.poll_timeout().is_some());
    assert_eq!(f.release(1), Released::HandTo(ClientId(2)));
    assert_eq!(f.release(1), Released::Idle);
    f.poll();
    f.pass(limits::CONFIG_DURATION_MAX / 2);
    assert_eq!(f.poll(), []);
    assert_eq!((f.pool.config().size_min, f.pool.config().size_max), (1, 1));
}

#[test]
fn reconnect_closes_every_connection_made_before() {
    let mut f = Fixture::new(0, 4);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    f.open_all();
    f.release(1);
    f.acquire(3, Normal);
    f.acquire(4, Normal);
    let opens = f.poll();
    f.release(2); // to client 4
    f.pool.set_generation(Generation(1));
    assert_eq!(f.release(1), Released::Close(CloseReason::Stale));
    // Also the one that was being opened.
    let PoolAction::Open(attempt) = opens[0] else { panic!("{opens:?}") };
    let released = f.pool.handle_opened(ServerId(9), attempt, f.now, &mut f.budget);
    assert_eq!(released, Released::Close(CloseReason::Stale));
    assert_eq!(f.budget.0, 1);
}

#[test]
fn a_starving_worker_gets_an_idle_connection_or_the_next_released_one_if_it_waits_longer() {
    let mut f = Fixture::new(0, 2);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    f.open_all();
    f.release(1);
    let mut debt = Debt { worker: WorkerId(7), priority: Normal, since: f.now };
    let Begged::Donate(donation) = f.pool.handle_begged(debt, f.now) else { panic!("kept") };
    assert_eq!((donation.server, f.budget.0), (ServerId(1), 2)); // its place travels with it
    f.pass(Duration::from_millis(1));
    f.acquire(3, Normal);
    debt.since = f.now;
    assert_eq!(f.pool.handle_begged(debt, f.now), Begged::Owed);
    assert_eq!(f.release(2), Released::HandTo(ClientId(3))); // waits as long: ours first
    assert!(matches!(f.release(2), Released::Donate(WorkerId(7), _)));
    // A debt nobody repeats is forgotten.
    assert_eq!(f.pool.handle_begged(debt, f.now), Begged::Owed);
    f.pass(Duration::from_secs(1));
    let released = f.pool.handle_donated(donation, f.now, &mut f.budget);
    assert_eq!(released, Released::Idle);
}

#[test]
fn a_full_server_is_tried_again_while_others_make_room_and_nobody_is_told() {
    let mut f = Fixture::new(0, 5);
    f.acquire(1, Normal);
    for _ in 0..limits::ROOM_TRIES_MAX {
        let opened = f.poll();
        assert!(matches!(opened[0], PoolAction::Open(Attempt { number: 1, .. })), "{opened:?}");
        assert!(f.pool.may_ask_for_room());
        f.pool.handle_crowded(f.now, &mut f.budget);
        assert_eq!((f.budget.0, f.pool.counts().waiting), (0, 1));
        assert!(!f.poll().iter().any(|action| matches!(action, PoolAction::Open(_))));
        f.pass(limits::ROOM_PAUSE);
    }
    assert!(!f.pool.may_ask_for_room(), "in vain too often");
    assert!(
        f.fail_open(OpenFailure::Full)
            .contains(&PoolAction::Fail { waiter: ClientId(1), attempts: 1 })
    );
    assert!(!f.pool.may_ask_for_room(), "nobody waits");
}

#[test]
fn what_the_minimum_keeps_is_not_given_up() {
    let mut f = Fixture::new(1, 5);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    f.open_all();
    assert_eq!(f.pool.spare(&f.budget), None, "both are lent");
    f.release(1);
    f.pass(Duration::from_secs(1));
    f.release(2);
    let spare = f.pool.spare(&f.budget).unwrap();
    assert_eq!((spare.count, spare.idle_since), (1, f.now - Duration::from_secs(1)));
    let closed = Some((ServerId(1), CloseReason::MadeRoom));
    assert_eq!(f.pool.give_up_idle(&mut f.budget), closed);
    assert_eq!((f.pool.spare(&f.budget), f.pool.give_up_idle(&mut f.budget)), (None, None));
    assert_eq!((f.budget.0, f.pool.counts().idle), (1, 1));
}

#[test]
fn a_paused_pool_holds_its_clients_and_a_resumed_one_serves_them_in_order() {
    let mut f = Fixture::new(1, 2);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    f.open_all();
    f.poll();
    f.release(1);
    f.poll();
    f.pool.pause(f.now);
    assert_eq!(f.poll(), [PoolAction::Close(ServerId(1), CloseReason::Paused)]);
    assert_eq!(f.acquire(3, Normal), Acquire::Queued);
    assert_eq!(f.acquire(4, Normal), Acquire::Queued);
    assert_eq!(f.release(2), Released::Close(CloseReason::Paused));
    assert_eq!((f.poll(), f.budget.0, f.pool.counts().waiting), (vec![], 0, 2));
    f.pool.resume(f.now);
    assert_eq!(f.open_all(), [Released::HandTo(ClientId(3)), Released::HandTo(ClientId(4))]);
}

#[test]
fn a_held_client_waits_for_pause_max_and_after_the_resume_for_wait_max_anew() {
    let mut f = Fixture::new(0, 1);
    f.acquire(1, Normal);
    f.open_all();
    f.acquire(2, Normal);
    f.poll();
    f.pass(Duration::from_secs(29));
    f.pool.pause(f.now);
    f.pass(Duration::from_secs(200));
    assert_eq!(f.poll(), []);
    assert_eq!(f.pool.poll_timeout(), Some(f.now + Duration::from_secs(100)));
    f.acquire(3, Normal);
    f.pass(Duration::from_secs(100));
    let expired = |action: &PoolAction| match action {
        PoolAction::Expire(expired) => Some((expired.waiter.0, expired.bound)),
        _ => None,
    };
    let told: Vec<_> = f.poll().iter().filter_map(expired).collect();
    assert_eq!(told, [(2, WaitBound::PauseMax)]);
    f.pool.resume(f.now);
    f.pass(Duration::from_secs(29));
    assert_eq!(f.poll().iter().filter_map(expired).count(), 0);
    f.pass(Duration::from_secs(1));
    let told: Vec<_> = f.poll().iter().filter_map(expired).collect();
    assert_eq!(told, [(3, WaitBound::WaitMax)]);
}

#[test]
fn an_attempt_that_ends_during_a_pause_says_nothing() {
    let mut f = Fixture::new(0, 4);
    f.acquire(1, Normal);
    f.acquire(2, Normal);
    let opens = f.poll();
    f.pool.pause(f.now);
    let [PoolAction::Open(fails), PoolAction::Open(attempt), ..] = opens[..] else {
        panic!("{opens:?}")
    };
    let (now, budget, failure) = (f.now, &mut f.budget, OpenFailure::Definitive);
    let count = f.pool.handle_open_failed(fails, failure, Jitter::NONE, now, budget);
    assert_eq!(count, FailureCount::Repeated);
    let released = f.pool.handle_opened(ServerId(9), attempt, f.now, &mut f.budget);
    assert_eq!(released, Released::Close(CloseReason::Paused));
    assert_eq!((f.poll(), f.pool.counts().waiting, f.budget.0), (vec![], 2, 0));
    f.pool.resume(f.now);
    assert_eq!(f.open_all(), [Released::HandTo(ClientId(1)), Released::HandTo(ClientId(2))]);
}
