//! The shell's pools against servers on loopback sockets that need no login.

use super::*;
use crate::config::{ProtocolVersion, ServerAddress};
use crate::stream::{Socket, Stream};
use crate::tls::{ServerTls, SslMode};
use crate::upstream::{BackendKey, ConnectError, Credentials, NewServer, ServerError, Target};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tidegate_core::ids::ClientId;
use tidegate_core::refusal::{Refusal, Severity};
use tidegate_pool::breaker::BreakerState;
use tidegate_pool::{CloseReason, Fitness, PoolConfig, Priority, WorkerId};
use tidegate_wire::backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// Connections as the servers see them, in order, and how the next attempts end (`None`: they
/// succeed).
#[derive(Default)]
struct Fake {
    accepted: RefCell<Vec<TcpStream>>,
    failures: RefCell<VecDeque<ConnectError>>,
    /// Attempts fail for ever once this is set.
    always: RefCell<Option<fn() -> ConnectError>>,
    attempts: RefCell<usize>,
}

struct FakeConnect(Rc<Fake>);

impl Connect for FakeConnect {
    fn connect(&self, _: Arc<Target>, _: Arc<str>, _: Arc<str>, _: Credentials) -> Connecting {
        let fake = Rc::clone(&self.0);
        *fake.attempts.borrow_mut() += 1;
        let always = fake.always.borrow().map(|make| make());
        let failure = always.or_else(|| fake.failures.borrow_mut().pop_front());
        Box::pin(async move {
            if let Some(failure) = failure {
                return Err(failure);
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            fake.accepted.borrow_mut().push(accepted.unwrap().0);
            Ok(NewServer {
                stream: Stream::Plain(Socket::Tcp(client.unwrap())),
                backend_key: Some(BackendKey { pid: 7, secret: vec![1, 2, 3, 4] }),
                parameters: vec![("TimeZone".to_owned(), "UTC".to_owned())],
            })
        })
    }
}

/// Messages to workers, delivered by the test.
#[derive(Default)]
struct Mail(RefCell<VecDeque<(WorkerId, PoolMessage)>>);

struct MailBox(Rc<Mail>);

impl Neighbours for MailBox {
    fn try_send(&self, to: WorkerId, message: PoolMessage) -> Result<(), Box<PoolMessage>> {
        self.0.0.borrow_mut().push_back((to, message));
        Ok(())
    }
    fn workers(&self) -> usize {
        2
    }
}

struct Fixture {
    workers: Vec<Rc<Pools>>,
    fake: Rc<Fake>,
    mail: Rc<Mail>,
    shared: Arc<SharedPools>,
}

fn target() -> Target {
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: 5432 };
    let tls = ServerTls::new(SslMode::Disable, None, None).unwrap();
    Target { name: "primary".into(), address, tls, protocol: ProtocolVersion::default() }
}

fn key(kind: PoolKind) -> PoolKey {
    PoolKey { database: "shop".into(), user: "app".into(), instance: 0, kind }
}

impl Fixture {
    fn new(size_min: usize, size_max: usize) -> Self {
        let shared = SharedPools::new(2);
        let fake = Rc::new(Fake::default());
        let mail = Rc::new(Mail::default());
        let bounds = move |_: &PoolKey| PoolConfig { size_min, size_max, ..PoolConfig::default() };
        let config =
            Arc::new(PoolsConfig { targets: vec![Arc::new(target())], bounds: Box::new(bounds) });
        let worker = |index| {
            Pools::new(
                WorkerId(index),
                Arc::clone(&shared),
                Arc::clone(&config),
                Box::new(FakeConnect(Rc::clone(&fake))),
                Box::new(MailBox(Rc::clone(&mail))),
            )
        };
        let workers = vec![worker(0), worker(1)];
        Self { workers, fake, mail, shared }
    }

    fn pools(&self) -> &Rc<Pools> {
        &self.workers[0]
    }

    fn pool(&self) -> Rc<PoolCell> {
        self.pools().pool(&key(PoolKind::Write), &Credentials::None, Instant::now())
    }

    fn deliver(&self) {
        // Bound first, so that the mail is not borrowed while a message is handled.
        let next = || self.mail.0.borrow_mut().pop_front();
        while let Some((to, message)) = next() {
            self.workers[to.0].handle_message(message, Instant::now());
        }
    }

    /// One lease, waiting for it if need be.
    async fn lease(&self, pool: &Rc<PoolCell>, client: u64) -> Result<Lease, Refusal> {
        let slot = WaitSlot::new(ClientId(client));
        match self.pools().acquire(pool, &slot, Instant::now()) {
            Acquired::Now(lease) => Ok(lease),
            Acquired::Queued => granted(&slot).await,
            Acquired::Refused(refusal) => Err(refusal),
        }
    }

    fn taken(&self, kind: PoolKind) -> usize {
        use tidegate_pool::Budget;
        shared::SharedBudget(&self.shared.pool(&key(kind))).taken()
    }
}

async fn granted(slot: &WaitSlot) -> Result<Lease, Refusal> {
    within(std::future::poll_fn(|cx| {
        slot.set_waker(cx.waker());
        slot.take_grant().map_or(Poll::Pending, Poll::Ready)
    }))
    .await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("it takes too long")
}

/// Lets tasks and the reactor run until the condition holds.
async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn refused(sqlstate: &str) -> ConnectError {
    let message = "password authentication failed for user \"app\"".to_owned();
    let error = ServerError { sqlstate: sqlstate.to_owned(), message, ..ServerError::default() };
    ConnectError::Refused(Box::new(error))
}

fn unreachable_server() -> ConnectError {
    ConnectError::Unreachable(std::io::ErrorKind::ConnectionRefused.into())
}

#[test]
fn connections_are_reused_and_handed_to_waiters_in_order() {
    run(async {
        let f = Fixture::new(0, 1);
        let pool = f.pool();
        let first = f.lease(&pool, 1).await.unwrap();
        let id = first.server.id;
        let slots = [(2, Priority::Normal), (3, Priority::Normal), (4, Priority::Critical)];
        let slots = slots.map(|(client, priority)| {
            let slot = WaitSlot::new(ClientId(client));
            slot.set_priority(priority);
            let acquired = f.pools().acquire(&pool, &slot, Instant::now());
            assert!(matches!(acquired, Acquired::Queued));
            slot
        });
        first.release(Fitness::Fit, Instant::now());
        let critical = granted(&slots[2]).await.unwrap();
        assert_eq!(critical.server.id, id);
        assert!(slots[0].take_grant().is_none() && slots[0].is_waiting());
        f.pools().give_up(&slots[0], Instant::now());
        critical.release(Fitness::Fit, Instant::now());
        let last = granted(&slots[1]).await.unwrap();
        assert_eq!((last.server.id, *f.fake.attempts.borrow()), (id, 1));
        // A grant nobody takes goes on too.
        let slot = WaitSlot::new(ClientId(5));
        f.pools().acquire(&pool, &slot, Instant::now());
        last.release(Fitness::Fit, Instant::now());
        assert!(!slot.is_waiting());
        f.pools().give_up(&slot, Instant::now());
        assert_eq!((pool.counts().idle, pool.counts().in_use), (1, 0));
    });
}

#[test]
fn a_warmed_pool_has_its_minimum_and_stays() {
    run(async {
        let f = Fixture::new(3, 5);
        let key = key(PoolKind::Read);
        f.pools().warm(&key, &Credentials::None, Instant::now());
        let idle = || f.pools().snapshot(Instant::now())[0].counts.idle;
        until(|| idle() == 3).await;
        f.pools().maintain(Instant::now() + Duration::from_secs(1_000));
        assert_eq!((idle(), f.taken(PoolKind::Read), f.taken(PoolKind::Write)), (3, 3, 0));
        let snapshot = &f.pools().snapshot(Instant::now())[0];
        assert_eq!((snapshot.servers.len(), snapshot.totals.opened), (3, 3));
        assert_eq!(snapshot.servers[0].process_id, Some(7));
        assert_eq!(snapshot.servers[0].place, ServerPlace::Idle);
    });
}

#[test]
fn before_a_database_is_dropped_its_connections_close_unless_a_client_is_there() {
    run(async {
        let f = Fixture::new(1, 5);
        let pool = f.pool();
        let lease = f.lease(&pool, 1).await.unwrap();
        lease.release(Fitness::Fit, Instant::now());
        let database = pool.key.database.to_string();
        f.shared.vacate(std::slice::from_ref(&database));
        f.pools().maintain(Instant::now());
        assert_eq!(f.taken(PoolKind::Write), 1, "a client holds the pool");
        drop(pool);
        f.shared.vacate(&["another".to_owned()]);
        f.pools().maintain(Instant::now());
        assert_eq!(f.taken(PoolKind::Write), 0, "below its minimum");
    });
}

#[test]
fn dead_idle_connections_are_never_lent() {
    run(async {
        let f = Fixture::new(0, 5);
        let pool = f.pool();
        let (one, two) = (f.lease(&pool, 1).await.unwrap(), f.lease(&pool, 2).await.unwrap());
        let survivor = one.server.id;
        one.release(Fitness::Fit, Instant::now());
        // The second one is used next, says that it shuts down, and closes.
        let mut farewell = Vec::new();
        tidegate_wire::frame::write(&mut farewell, b'E', |body| body.extend(b"C57P01\0\0"));
        let mut peer = f.fake.accepted.borrow_mut().pop().unwrap();
        peer.write_all(&farewell).await.unwrap();
        let Stream::Plain(Socket::Tcp(tcp)) = &two.server.stream else { panic!("not TCP") };
        within(tcp.readable()).await.unwrap();
        two.release(Fitness::Fit, Instant::now());
        let lease = f.lease(&pool, 3).await.unwrap();
        assert_eq!(lease.server.id, survivor);
        assert_eq!(f.taken(PoolKind::Write), 1);
        // Nobody asks for it, and it leaves all the same.
        lease.release(Fitness::Fit, Instant::now());
        f.fake.accepted.borrow_mut().clear();
        let later = Instant::now();
        until(|| {
            f.pools().maintain(later + later.elapsed() * 2_000);
            f.taken(PoolKind::Write) == 0
        })
        .await;
        let totals = f.pools().snapshot(Instant::now())[0].totals.clone();
        let died = CloseReason::ALL.iter().position(|reason| *reason == CloseReason::DiedIdle);
        assert_eq!(totals.closed[died.unwrap()], 2);
    });
}

#[test]
fn parameter_changes_of_an_idle_connection_are_seen_by_the_next_client() {
    run(async {
        let f = Fixture::new(0, 1);
        let pool = f.pool();
        let lease = f.lease(&pool, 1).await.unwrap();
        let mut changed = Vec::new();
        backend::parameter_status(&mut changed, b"TimeZone", b"Asia/Tokyo");
        f.fake.accepted.borrow_mut()[0].try_write(&changed).unwrap();
        let Stream::Plain(Socket::Tcp(tcp)) = &lease.server.stream else { panic!("not TCP") };
        within(tcp.readable()).await.unwrap();
        lease.release(Fitness::Fit, Instant::now());
        let lease = f.lease(&pool, 2).await.unwrap();
        assert_eq!(lease.server.parameters[0].1, "Asia/Tokyo");
    });
}

#[test]
fn a_dropped_or_unfit_lease_closes_and_a_waiter_gets_a_new_connection() {
    run(async {
        let f = Fixture::new(0, 1);
        let pool = f.pool();
        let lease = f.lease(&pool, 1).await.unwrap();
        let slot = WaitSlot::new(ClientId(9));
        f.pools().acquire(&pool, &slot, Instant::now());
        let mut tick = Box::pin(f.pools().tick());
        let mut is_due = async || {
            std::future::poll_fn(|cx| Poll::Ready(tick.as_mut().poll(cx).is_ready())).await
        };
        assert!(!is_due().await);
        drop(lease);
        assert_eq!((pool.counts().in_use, f.taken(PoolKind::Write)), (0, 0));
        assert!(is_due().await, "the worker learns it at once");
        f.pools().maintain(Instant::now());
        drop(granted(&slot).await.unwrap());
        let lease = f.lease(&pool, 2).await.unwrap();
        let slot = WaitSlot::new(ClientId(3));
        f.pools().acquire(&pool, &slot, Instant::now());
        lease.release(Fitness::Unfit, Instant::now());
        let lease = granted(&slot).await.unwrap();
        assert_eq!(*f.fake.attempts.borrow(), 4);
        // The server of an unfit one hears a goodbye.
        let mut peer = f.fake.accepted.borrow_mut().remove(2);
        let mut heard = Vec::new();
        within(peer.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, [b'X', 0, 0, 0, 4]);
        drop(lease);
    });
}

#[test]
fn a_refused_login_is_told_with_the_servers_words_and_other_credentials_are_tried_at_once() {
    run(async {
        let f = Fixture::new(2, 5);
        f.fake.failures.borrow_mut().extend([refused("28P01"), refused("28P01")]);
        let pool = f.pool();
        let refusal = f.lease(&pool, 1).await.unwrap_err();
        assert_eq!((refusal.severity, refusal.sqlstate), (Severity::Fatal, "28P01"));
        assert_eq!(refusal.message, "password authentication failed for user \"app\"");
        f.fake.failures.borrow_mut().clear();
        assert!(f.lease(&f.pool(), 2).await.is_ok());
        assert_eq!(f.pools().snapshot(Instant::now())[0].breaker, BreakerState::Closed);
    });
}

#[test]
fn an_unreachable_server_is_tried_three_times() {
    run(async {
        let f = Fixture::new(0, 5);
        *f.fake.always.borrow_mut() = Some(unreachable_server);
        let pool = f.pool();
        let slot = WaitSlot::new(ClientId(1));
        let start = Instant::now();
        f.pools().acquire(&pool, &slot, start);
        for attempt in 1..=3 {
            let errors = || f.pools().snapshot(start)[0].totals.connect_errors;
            until(|| errors() == attempt).await;
            assert_eq!(slot.is_waiting(), attempt < 3);
            f.pools().maintain(Instant::now() + Duration::from_secs(2 * attempt));
        }
        let refusal = granted(&slot).await.unwrap_err();
        assert_eq!((refusal.severity, refusal.sqlstate), (Severity::Error, "08006"));
        assert!(refusal.detail.unwrap().contains("3 attempts"));
    });
}

/// Fails until the pool's breaker is open. Maintenance is told times at which attempts are due, and
/// those of an open breaker are not.
async fn open_breaker(f: &Fixture, pool: &Rc<PoolCell>) {
    *f.fake.always.borrow_mut() = Some(unreachable_server);
    let slot = WaitSlot::new(ClientId(1));
    f.pools().acquire(pool, &slot, Instant::now());
    until(|| {
        f.pools().maintain(Instant::now() + Duration::from_secs(20));
        if !slot.is_waiting() {
            f.pools().give_up(&slot, Instant::now());
            f.pools().acquire(pool, &slot, Instant::now());
        }
        f.pools().snapshot(Instant::now())[0].breaker == BreakerState::Open
    })
    .await;
    f.pools().give_up(&slot, Instant::now());
}

#[test]
fn an_open_breaker_refuses_at_once() {
    run(async {
        let f = Fixture::new(0, 5);
        let pool = f.pool();
        open_breaker(&f, &pool).await;
        let attempts = *f.fake.attempts.borrow();
        let refusal = f.lease(&pool, 2).await.unwrap_err();
        assert!(refusal.hint.unwrap().starts_with("Retry in"));
        assert_eq!(*f.fake.attempts.borrow(), attempts);
        // And others are told of it.
        f.pools().maintain(Instant::now());
        assert_eq!(f.shared.troubles(), [(key(PoolKind::Write), PoolTrouble::Tripped)]);
    });
}

#[test]
fn a_lost_server_is_probed_without_a_client_and_served_again_when_it_answers() {
    run(async {
        let f = Fixture::new(0, 5);
        let pool = f.pool();
        open_breaker(&f, &pool).await;
        *f.fake.always.borrow_mut() = None;
        until(|| {
            f.pools().maintain(Instant::now() + Duration::from_secs(20));
            f.pools().snapshot(Instant::now())[0].breaker == BreakerState::Closed
        })
        .await;
        f.pools().maintain(Instant::now() + Duration::from_secs(20));
        assert_eq!(f.shared.troubles(), []);
        // The probe's connection was nobody's, and said goodbye.
        let mut probe = f.fake.accepted.borrow_mut().remove(0);
        let mut heard = Vec::new();
        within(probe.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, [b'X', 0, 0, 0, 4]);
        assert!(f.lease(&pool, 3).await.is_ok());
    });
}

#[test]
fn a_connection_of_another_pool_tells_that_the_server_is_back() {
    run(async {
        let f = Fixture::new(0, 5);
        let pool = f.pool();
        open_breaker(&f, &pool).await;
        *f.fake.always.borrow_mut() = None;
        let attempts = *f.fake.attempts.borrow();
        let other = &f.workers[1];
        let reads = other.pool(&key(PoolKind::Read), &Credentials::None, Instant::now());
        let slot = WaitSlot::new(ClientId(7));
        other.acquire(&reads, &slot, Instant::now());
        granted(&slot).await.unwrap();
        f.pools().maintain(Instant::now());
        assert_eq!(*f.fake.attempts.borrow(), attempts + 1);
        assert!(f.lease(&pool, 3).await.is_ok());
    });
}

/// A lease for which the server had no room until a connection was given up, on whichever worker.
async fn lease_at_a_full_server(f: &Fixture, idle: impl Fn() -> usize) {
    f.fake.failures.borrow_mut().push_back(refused("53300"));
    let slot = WaitSlot::new(ClientId(9));
    let pool = f.pool();
    f.pools().acquire(&pool, &slot, Instant::now());
    until(|| {
        f.pools().maintain(Instant::now());
        f.deliver();
        !slot.is_waiting()
    })
    .await;
    assert!(granted(&slot).await.is_ok(), "nobody is told");
    assert_eq!(idle(), 0);
}

#[test]
fn at_a_full_server_an_idle_connection_of_another_pool_makes_room() {
    run(async {
        let f = Fixture::new(0, 5);
        let reads = f.pools().pool(&key(PoolKind::Read), &Credentials::None, Instant::now());
        f.lease(&reads, 1).await.unwrap().release(Fitness::Fit, Instant::now());
        lease_at_a_full_server(&f, || reads.counts().idle).await;
        let mut heard = Vec::new();
        let mut peer = f.fake.accepted.borrow_mut().remove(0);
        within(peer.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, [b'X', 0, 0, 0, 4]);
    });
}

#[test]
fn another_workers_idle_connection_makes_room_too() {
    run(async {
        let f = Fixture::new(0, 5);
        let there = &f.workers[1];
        let reads = there.pool(&key(PoolKind::Read), &Credentials::None, Instant::now());
        let slot = WaitSlot::new(ClientId(1));
        there.acquire(&reads, &slot, Instant::now());
        granted(&slot).await.unwrap().release(Fitness::Fit, Instant::now());
        there.maintain(Instant::now());
        lease_at_a_full_server(&f, || reads.counts().idle).await;
    });
}

#[test]
fn a_full_server_without_anything_idle_is_told_after_a_few_tries() {
    run(async {
        let f = Fixture::new(0, 5);
        *f.fake.always.borrow_mut() = Some(|| refused("53300"));
        let (pool, slot) = (f.pool(), WaitSlot::new(ClientId(1)));
        f.pools().acquire(&pool, &slot, Instant::now());
        until(|| {
            f.pools().maintain(Instant::now());
            !slot.is_waiting()
        })
        .await;
        assert_eq!(granted(&slot).await.unwrap_err().sqlstate, "53300");
        assert_eq!(*f.fake.attempts.borrow(), 6);
    });
}

#[test]
fn a_wait_has_a_deadline() {
    run(async {
        let f = Fixture::new(0, 1);
        let pool = f.pool();
        let _lease = f.lease(&pool, 1).await.unwrap();
        let slot = WaitSlot::new(ClientId(2));
        let start = Instant::now();
        f.pools().acquire(&pool, &slot, start);
        f.pools().maintain(start + Duration::from_secs(29));
        assert!(slot.take_grant().is_none());
        f.pools().maintain(start + Duration::from_secs(30));
        let refusal = slot.take_grant().unwrap().unwrap_err();
        assert_eq!((refusal.severity, refusal.sqlstate), (Severity::Error, "53300"));
        let detail = refusal.detail.unwrap();
        assert!(detail.contains("Waited 30.0 s") && detail.contains("1 of at most 1"), "{detail}");
        assert_eq!(f.pools().snapshot(start)[0].totals.expired, 1);
    });
}

#[test]
fn a_starving_worker_gets_a_live_connection_of_another_one() {
    run(async {
        let f = Fixture::new(0, 1);
        let here = f.pool();
        let lease = f.lease(&here, 1).await.unwrap();
        let id = lease.server.id;
        let key = key(PoolKind::Write);
        let there = f.workers[1].pool(&key, &Credentials::None, Instant::now());
        let slot = WaitSlot::new(ClientId(2));
        f.workers[1].acquire(&there, &slot, Instant::now());
        assert!(slot.is_waiting());
        f.deliver(); // nothing idle: it is owed
        assert!(slot.take_grant().is_none());
        lease.release(Fitness::Fit, Instant::now());
        f.deliver();
        let mut lease = granted(&slot).await.unwrap();
        assert_eq!((lease.server.id, *f.fake.attempts.borrow()), (id, 1));
        assert_eq!((here.counts().idle, there.counts().in_use), (0, 1));
        // And it still speaks.
        let mut peer = f.fake.accepted.borrow_mut().remove(0);
        peer.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        within(lease.server.stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!((&heard, f.taken(PoolKind::Write)), (b"hello", 1));
        // A connection that is lost on its way gives its place back.
        lease.release(Fitness::Fit, Instant::now());
        let slot = WaitSlot::new(ClientId(3));
        f.pools().acquire(&here, &slot, Instant::now());
        let (to, beg) = f.mail.0.borrow_mut().pop_front().unwrap();
        f.workers[to.0].handle_message(beg, Instant::now());
        f.mail.0.borrow_mut().clear();
        assert_eq!(f.taken(PoolKind::Write), 0);
    });
}

#[test]
fn an_operator_reconnects_and_unused_pools_are_forgotten() {
    run(async {
        let f = Fixture::new(0, 2);
        let pool = f.pool();
        let one = f.lease(&pool, 1).await.unwrap();
        f.lease(&pool, 2).await.unwrap().release(Fitness::Fit, Instant::now());
        f.shared.reconnect(|key| &*key.database == "shop");
        let now = Instant::now();
        f.pools().maintain(now);
        assert_eq!(pool.counts().idle, 0);
        one.release(Fitness::Fit, now);
        assert_eq!(f.taken(PoolKind::Write), 0);
        f.lease(&pool, 3).await.unwrap().release(Fitness::Fit, Instant::now());
        drop(pool);
        f.pools().maintain(now + Duration::from_secs(10));
        assert_eq!(f.pools().snapshot(now).len(), 1);
        f.pools().maintain(now + Duration::from_secs(400));
        assert_eq!((f.pools().snapshot(now).len(), f.taken(PoolKind::Write)), (0, 0));
    });
}

#[test]
fn a_drained_pool_lends_nothing_and_closes_what_comes_back() {
    run(async {
        let f = Fixture::new(1, 2);
        let pool = f.pool();
        let lease = f.lease(&pool, 1).await.unwrap();
        until(|| pool.counts().opening == 0).await;
        f.pools().drain(Instant::now());
        let refusal = f.lease(&pool, 2).await.unwrap_err();
        assert_eq!((refusal.severity, refusal.sqlstate), (Severity::Fatal, "57P01"));
        assert_eq!(f.pools().in_use(), 1);
        lease.release(Fitness::Fit, Instant::now());
        assert_eq!((f.pools().in_use(), f.taken(PoolKind::Write)), (0, 0));
        f.pools().close_all(Instant::now());
    });
}

/// Repeatable numbers: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One client's life: asks, waits, leaves, returns, drops, as the dice say.
async fn live(f: Rc<Fixture>, client: u64, seed: u64) {
    let mut dice = Dice(seed * 2_654_435_769 + client + 1);
    let pools = Rc::clone(&f.workers[(client % 2) as usize]);
    let pool = pools.pool(&key(PoolKind::Write), &Credentials::None, Instant::now());
    let slot = WaitSlot::new(ClientId(client));
    for _ in 0..40 {
        if dice.roll(8) == 0 {
            slot.set_priority(Priority::Critical);
        }
        let lease = match pools.acquire(&pool, &slot, Instant::now()) {
            Acquired::Now(lease) => lease,
            Acquired::Refused(_) => continue,
            Acquired::Queued if dice.roll(6) == 0 => {
                tokio::task::yield_now().await;
                pools.give_up(&slot, Instant::now());
                continue;
            }
            Acquired::Queued => match granted(&slot).await {
                Ok(lease) => lease,
                Err(_) => continue,
            },
        };
        for _ in 0..dice.roll(4) {
            tokio::task::yield_now().await;
        }
        match dice.roll(12) {
            0 => drop(lease),
            1 => lease.release(Fitness::Unfit, Instant::now()),
            2 => {
                let mut accepted = f.fake.accepted.borrow_mut();
                if !accepted.is_empty() {
                    let victim = dice.roll(accepted.len() as u64) as usize;
                    accepted.swap_remove(victim);
                }
                drop(accepted);
                lease.release(Fitness::Fit, Instant::now());
            }
            _ => lease.release(Fitness::Fit, Instant::now()),
        }
    }
}

#[test]
fn after_a_storm_of_clients_deaths_and_donations_the_books_are_right() {
    for seed in 1..=8 {
        run(async move {
            let f = Rc::new(Fixture::new(1, 4));
            let mut clients = tokio::task::JoinSet::new();
            for client in 0..40 {
                clients.spawn_local(live(Rc::clone(&f), client, seed));
            }
            let mut ended = 0;
            let maintain = || {
                f.deliver();
                f.workers.iter().for_each(|pools| pools.maintain(Instant::now()));
                assert!(f.taken(PoolKind::Write) <= 4, "property 13: the maximum");
            };
            within(async {
                while ended < 40 {
                    maintain();
                    tokio::task::yield_now().await;
                    while let Some(client) = clients.try_join_next() {
                        client.unwrap();
                        ended += 1;
                    }
                }
            })
            .await;
            let open = || {
                let parts = f.workers.iter().flat_map(|pools| pools.snapshot(Instant::now()));
                parts.map(|part| (part.counts, part.servers.len())).collect::<Vec<_>>()
            };
            until(|| {
                maintain();
                open().iter().all(|(counts, _)| counts.opening == 0)
            })
            .await;
            let parts = open();
            assert!(parts.iter().all(|(counts, servers)| counts.idle == *servers));
            assert!(parts.iter().all(|(counts, _)| (counts.in_use, counts.waiting) == (0, 0)));
            let servers: usize = parts.iter().map(|(_, servers)| servers).sum();
            assert_eq!(servers, f.taken(PoolKind::Write));
            assert!((1..=4).contains(&servers), "property 13: {servers}");
        });
    }
}
