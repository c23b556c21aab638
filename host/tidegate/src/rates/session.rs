//! The thread that owns the connection to Redis: reaches it, asks what is ordered, and again after each end.

use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tidegate_limiter::{Order, Taken};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Inner;
use super::function::Calls;
use crate::config::RateRedis;
use crate::redis_connection::{Lost, Redis};

/// From the connection to the functions in place.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// What is late is waited for, so that what it took is not lost; then it is given up, and the connection with it.
const LATE_TIME_MAX: Duration = Duration::from_secs(2);
/// How often is told what was used without having been taken, and given back what is left over.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
const BEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A process that has not been heard for so long takes no part.
const MEMBER_TIME_MAX: Duration = Duration::from_secs(3);
/// Calls under way at a time.
const CALLS_MAX: usize = 1_024;

/// Starts the thread. It ends when the sender of the orders is dropped.
pub(super) fn start(
    inner: Arc<Inner>,
    settings: RateRedis,
    orders: mpsc::Receiver<Order>,
) -> std::io::Result<()> {
    let process = format!("{:016x}", getrandom::u64().map_err(std::io::Error::other)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = run(inner, settings, process, orders);
    thread::Builder::new()
        .name("tidegate-limits".to_owned())
        .spawn(move || runtime.block_on(run))?;
    Ok(())
}

async fn run(
    inner: Arc<Inner>,
    settings: RateRedis,
    process: String,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut redis = Redis::new(settings.url.clone());
    while pause(&inner, &mut orders).await {
        let why = match open(&settings, &mut redis, &process).await {
            Err(why) => why,
            Ok((calls, members)) => {
                inner.reach(members);
                let deadline = settings.deadline;
                let session =
                    Session { inner: &inner, calls, process: &process, deadline, why: None };
                match session.serve(&mut orders).await {
                    End::Stopped => return,
                    End::Lost(why) => why,
                }
            }
        };
        inner.lose(why);
    }
}

/// Until it is to be tried again. False: there is nobody any more for whom.
async fn pause(inner: &Inner, orders: &mut mpsc::Receiver<Order>) -> bool {
    loop {
        let wait = inner.probe_at().saturating_sub(inner.now());
        // All branches are cancel safe.
        tokio::select! {
            () = tokio::time::sleep(wait) => return true,
            // It was meant for the session that has ended.
            order = orders.recv() => if order.is_none() { return false },
        }
    }
}

/// Whoever answers this in time is asked.
async fn open(
    settings: &RateRedis,
    redis: &mut Redis,
    process: &str,
) -> Result<(Calls, u32), Lost> {
    let silent = |_| "it does not answer".to_owned();
    let opening = Calls::open(redis, &settings.prefix);
    let calls = timeout(CONNECT_TIME_MAX, opening).await.map_err(silent)??;
    let member = || calls.members(process, milliseconds(MEMBER_TIME_MAX));
    // The first may have to bring the functions.
    timeout(CONNECT_TIME_MAX, member()).await.map_err(silent)??;
    let members = timeout(settings.deadline, member()).await.map_err(|_| late())??;
    Ok((calls, members))
}

/// Why a session has ended.
enum End {
    Lost(Lost),
    /// Nobody orders any more.
    Stopped,
}

type Answer<T> = Result<T, Lost>;
type Later = Pin<Box<dyn Future<Output = Answer<Taken>> + Send>>;

/// What came of a call.
enum Done {
    Taken(Ticket, Answer<Taken>),
    Late(Ticket, Later),
    Members(Answer<u32>),
    MembersLate,
    /// It was late, and never came.
    Silent,
}

/// Whose answer it is.
#[derive(Clone, Copy)]
struct Ticket {
    key: u128,
    number: u64,
}

struct Session<'a> {
    inner: &'a Inner,
    calls: Calls,
    process: &'a str,
    deadline: Duration,
    /// What an error said last.
    why: Option<Lost>,
}

impl Session<'_> {
    async fn serve(mut self, orders: &mut mpsc::Receiver<Order>) -> End {
        let ticks = |period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut flushes, mut beats) = (ticks(FLUSH_INTERVAL), ticks(BEAT_INTERVAL));
        let mut under_way = JoinSet::new();
        while self.inner.is_reached() {
            // All branches are cancel safe.
            tokio::select! {
                order = orders.recv(), if under_way.len() < CALLS_MAX => match order {
                    Some(order) => self.take(&order, &mut under_way),
                    None => return End::Stopped,
                },
                done = under_way.join_next(), if !under_way.is_empty() => match done {
                    Some(Ok(Done::Silent)) => return End::Lost("it does not answer".to_owned()),
                    Some(Ok(done)) => self.settle(done, &mut under_way),
                    Some(Err(_)) => return End::Lost("a call came to nothing".to_owned()),
                    None => {}
                },
                _ = flushes.tick() => {
                    self.inner.flush().iter().for_each(|order| self.take(order, &mut under_way));
                }
                _ = beats.tick() => self.beat(&mut under_way),
            }
        }
        End::Lost(self.why.unwrap_or_else(late))
    }

    fn take(&self, order: &Order, under_way: &mut JoinSet<Done>) {
        if order.session != self.inner.session() {
            return;
        }
        let ticket = Ticket { key: order.key, number: order.number };
        let (sent, deadline) = (self.calls.take(order), self.deadline);
        under_way.spawn(async move {
            let mut sent: Later = Box::pin(sent);
            match timeout(deadline, &mut sent).await {
                Ok(answer) => Done::Taken(ticket, answer),
                Err(_) => Done::Late(ticket, sent),
            }
        });
    }

    fn beat(&self, under_way: &mut JoinSet<Done>) {
        let (sent, deadline) =
            (self.calls.members(self.process, milliseconds(MEMBER_TIME_MAX)), self.deadline);
        under_way.spawn(async move {
            timeout(deadline, sent).await.map_or(Done::MembersLate, Done::Members)
        });
    }

    fn settle(&mut self, done: Done, under_way: &mut JoinSet<Done>) {
        match done {
            Done::Taken(Ticket { key, number }, answer) => {
                self.why = answer.as_ref().err().cloned();
                self.inner.handle(key, number, answer.ok());
            }
            Done::Late(ticket, sent) => {
                self.why = Some(late());
                self.inner.handle_late();
                under_way.spawn(async move {
                    let answer = timeout(LATE_TIME_MAX, sent).await;
                    answer.map_or(Done::Silent, |answer| Done::Taken(ticket, answer))
                });
            }
            Done::Members(Ok(members)) => self.inner.handle_members(members),
            Done::Members(Err(why)) => {
                self.why = Some(why);
                self.inner.handle_late();
            }
            Done::MembersLate => self.inner.handle_late(),
            Done::Silent => {}
        }
    }
}

/// What happens, told to the counts and to who waits for them.
impl Inner {
    fn reach(&self, members: u32) {
        let mut state = self.state();
        state.limiter.handle_reached(members, self.now());
        state.say(&self.redis(), None);
    }

    fn lose(&self, why: Lost) {
        let mut state = self.state();
        state.limiter.handle_lost(self.now());
        state.wake_all();
        state.say(&self.redis(), Some(why));
    }

    fn redis(&self) -> String {
        self.redis.as_ref().map_or_else(String::new, |redis| redis.url.to_string())
    }

    fn is_reached(&self) -> bool {
        self.state().limiter.is_reached()
    }

    fn session(&self) -> u64 {
        self.state().limiter.session()
    }

    fn probe_at(&self) -> Duration {
        self.state().limiter.probe_at().unwrap_or_default()
    }

    fn flush(&self) -> Vec<Order> {
        let mut state = self.state();
        state.limiter.flush(self.now());
        std::iter::from_fn(|| state.limiter.poll_order()).collect()
    }

    /// `None`: an error.
    fn handle(&self, key: u128, number: u64, taken: Option<Taken>) {
        let mut state = self.state();
        let now = self.now();
        match taken {
            Some(taken) => state.limiter.handle_taken(key, number, &taken, now),
            None => state.limiter.handle_refused(key, number, now),
        }
        state.wake(key);
    }

    fn handle_late(&self) {
        self.state().limiter.handle_late(self.now());
    }

    fn handle_members(&self, members: u32) {
        self.state().limiter.handle_members(members, self.now());
    }
}

fn late() -> Lost {
    "it does not answer in time".to_owned()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
