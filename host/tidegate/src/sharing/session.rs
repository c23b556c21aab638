//! The task that owns the connection to Redis: connects, joins, carries out what is asked, and beats; again after each end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Cmd;
use tidegate_cache::{Flight, MembershipConfig, Names, Tag};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::commands::{Connection, Lost, Redis};
use super::entries::Asked;
use super::inbox::{Looked, Order, Request, Shared};
use super::scripts::Script;
use super::{Orphan, REQUESTS_MAX, Sharing, tags};
use crate::config::RedisSettings;

/// From the connection to the scripts in place.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const RETRY_TIME_MIN: Duration = Duration::from_millis(100);
const RETRY_TIME_MAX: Duration = Duration::from_secs(5);
/// A beat is made so many times in a lease.
const BEATS_PER_LEASE: u32 = 10;
/// Calls under way at a time.
const CALLS_MAX: usize = 1_024;
const SESSION_BYTES: usize = 32;

/// Told what the versions of the cluster and a database are.
pub type Note<'a> = dyn Fn(&Arc<str>, [u64; 2]) + 'a;

/// What came of a call.
enum Done {
    Beat {
        made_at: Instant,
        answer: Result<Vec<Vec<u8>>, Lost>,
    },
    /// A mark or an end.
    Told {
        done: oneshot::Sender<()>,
        names: Option<Names>,
        answer: Result<Vec<Vec<u8>>, Lost>,
    },
    Looked {
        found: oneshot::Sender<Looked>,
        answer: Result<Vec<Vec<u8>>, Lost>,
    },
    Put {
        answer: Result<Vec<Vec<u8>>, Lost>,
    },
    Entries {
        found: oneshot::Sender<Vec<Vec<u8>>>,
        answer: Result<Vec<Vec<u8>>, Lost>,
    },
    /// It was late, and nothing depends on it.
    Late,
}

/// Ends what there is when the task is dropped.
struct Leaving<'a>(&'a Sharing);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut core = self.0.core();
        self.0.lose(&mut core, "the configuration is read again");
    }
}

impl Sharing {
    /// Without end. `place` tells clusters apart, and a primary from the one before it.
    pub async fn run(&self, own: u8, peers: &[u8], place: &str, note: &Note<'_>) {
        let RedisSettings { lease, reliance, .. } = self.settings;
        let config = MembershipConfig { own, peers: peers.into(), lease, reliance };
        self.core().membership.set_config(config);
        let _leaving = Leaving(self);
        // Who has other times is never heard: each relies on the other's.
        let (lease_ms, reliance_ms) = (lease.as_millis(), reliance.as_millis());
        let (own_prefix, format) = (&self.settings.prefix, tags::FORMAT);
        let prefix = format!("{own_prefix}:{format}:{lease_ms}:{reliance_ms}:{{{place}}}:");
        let (mut redis, mut retry) = (Redis::new(self.settings.url.clone()), RETRY_TIME_MIN);
        loop {
            let before = self.core().membership.session();
            let Err(why) = self.session(own, (&mut redis, &prefix), note).await;
            let joined = {
                let mut core = self.core();
                let joined = core.membership.joined() > before;
                self.lose(&mut core, &why);
                joined
            };
            retry = if joined { RETRY_TIME_MIN } else { (retry * 2).min(RETRY_TIME_MAX) };
            tokio::time::sleep(retry).await;
        }
    }

    async fn session(
        &self,
        own: u8,
        (redis, prefix): (&mut Redis, &str),
        note: &Note<'_>,
    ) -> Result<std::convert::Infallible, Lost> {
        let opening = Connection::open(redis, prefix);
        let opened = tokio::time::timeout(CONNECT_TIME_MAX, opening).await;
        let connection = opened.map_err(|_| "it does not answer".to_owned())??;
        let number = self.core().membership.session() + 1;
        let who = Who {
            id: own.to_string(),
            session: format!("{}{number:016x}", self.process),
            life: Vec::new(),
        };
        let mut session = Session { sharing: self, connection, who, calls: JoinSet::new() };
        session.hello().await?;
        session.leave_the_last().await;
        session.wait_for_orphans().await;
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let flights = {
            let mut core = self.core();
            core.requests = Some(sender);
            core.membership.handle_connected(&session.connection.run)
        };
        session.mark_again(flights).await?;
        session.join().await?;
        session.serve(requests, note).await
    }
}

/// Who calls, in which life of the data.
struct Who {
    id: String,
    session: String,
    life: Vec<u8>,
}

struct Session<'a> {
    sharing: &'a Sharing,
    connection: Connection,
    who: Who,
    calls: JoinSet<Done>,
}

impl Session<'_> {
    /// Makes this number's place ours. Somebody else who has it and goes on is left in peace; one that is silent is gone.
    async fn hello(&mut self) -> Result<(), Lost> {
        let lease = self.sharing.settings.lease;
        let mut silent: Option<(Vec<u8>, Instant)> = None;
        let mut taken = Vec::new();
        loop {
            let mut call = self.connection.call(Script::Hello);
            call.arg(&self.connection.run).arg(format!("{:016x}", random()?));
            call.arg(&self.who.id).arg(&self.who.session).arg(&taken);
            let mut answer = self.now(call).await?.into_iter();
            let word = answer.next().unwrap_or_default();
            if word == b"held" {
                let holder = answer.next().unwrap_or_default();
                match &silent {
                    Some((same, since)) if *same == holder => {
                        if since.elapsed() > lease * 2 {
                            taken = holder;
                        }
                    }
                    Some(_) => {
                        return Err(format!(
                            "another process has this one's number ({}) and goes on: each needs a peer_id of its own",
                            self.who.id
                        ));
                    }
                    None => silent = Some((holder, Instant::now())),
                }
                tokio::time::sleep(lease / BEATS_PER_LEASE).await;
                continue;
            }
            self.who.life = answer.next().unwrap_or_default();
            let number = answer.next().as_deref().and_then(number).ok_or("HELLO says no number")?;
            self.sharing.core().membership.handle_number(number);
            self.note_orphans(answer.collect());
            return Ok(());
        }
    }

    /// Marks of other processes that had this number: what they had under way may yet be committed.
    fn note_orphans(&self, open: Vec<Vec<u8>>) {
        let now = Instant::now();
        let mut orphans =
            self.sharing.orphans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        orphans.clear();
        for pair in open.chunks_exact(2) {
            if pair[0].starts_with(self.sharing.process.as_bytes()) {
                continue;
            }
            let process = pair[1].split(|byte| *byte == 0).next().and_then(|process| {
                std::str::from_utf8(process).ok().and_then(|process| process.parse().ok())
            });
            orphans.push(Orphan { process, since: now });
        }
    }

    /// Where beats were made before, they may still be heard: by those who have not found out that Redis is elsewhere now.
    async fn leave_the_last(&self) {
        let run = &self.connection.run;
        let usable_at = self.sharing.core().membership.usable_at(run);
        if let Some(at) = usable_at {
            tokio::time::sleep_until(at.into()).await;
        }
    }

    async fn wait_for_orphans(&self) {
        while self.sharing.has_orphans() {
            tokio::time::sleep(RETRY_TIME_MIN).await;
        }
    }

    /// What is under way was marked in an earlier session, or never.
    async fn mark_again(&self, flights: Vec<(u64, Flight)>) -> Result<(), Lost> {
        for (token, flight) in flights {
            let call = self.mark(token, flight.process, &flight.tags, None)?;
            self.now(call).await?;
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<(), Lost> {
        let made_at = Instant::now();
        let heard = self.sharing.core().membership.begin_beat(made_at);
        let mut call = self.member(Script::Join);
        call.arg(heard).arg(&tags::version(random()?)).arg(tags::name(&Tag::Cluster));
        let answer = self.now(call).await?;
        // What others were told to rely on may have been lost: nothing is committed before nobody does any more.
        tokio::time::sleep(self.wait()).await;
        self.sharing.core().membership.handle_joined(Instant::now());
        self.handle_beat(made_at, answer)
    }

    fn wait(&self) -> Duration {
        self.sharing.core().membership.wait()
    }

    async fn serve(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        note: &Note<'_>,
    ) -> Result<std::convert::Infallible, Lost> {
        let lease = self.sharing.settings.lease;
        let mut ticks = tokio::time::interval(lease / BEATS_PER_LEASE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_beating = false;
        loop {
            // All branches are cancel safe.
            tokio::select! {
                _ = ticks.tick() => {
                    self.sharing.note_standing();
                    if !is_beating {
                        is_beating = true;
                        self.beat();
                    }
                }
                request = requests.recv(), if self.calls.len() < CALLS_MAX => {
                    let request = request.ok_or("the session was given up")?;
                    self.carry_out(request)?;
                }
                done = self.calls.join_next(), if !self.calls.is_empty() => match done {
                    Some(Ok(Done::Beat { made_at, answer })) => {
                        is_beating = false;
                        self.handle_beat(made_at, answer?)?;
                    }
                    Some(Ok(done)) => self.settle(done, note)?,
                    Some(Err(_)) => return Err("a call came to nothing".to_owned()),
                    None => {}
                }
            }
        }
    }

    fn beat(&mut self) {
        let made_at = Instant::now();
        let heard = self.sharing.core().membership.begin_beat(made_at);
        let mut call = self.member(Script::Beat);
        call.arg(heard);
        let (sent, patience) = (self.connection.send(call), self.sharing.patience());
        self.calls.spawn(async move {
            let answer = in_time(patience, sent).await;
            Done::Beat { made_at, answer }
        });
    }

    fn handle_beat(&self, made_at: Instant, answer: Vec<Vec<u8>>) -> Result<(), Lost> {
        let mut answer = answer.into_iter().skip(1);
        let drawn = answer.next().as_deref().and_then(number).ok_or("BEAT draws no number")?;
        let rest: Vec<Vec<u8>> = answer.collect();
        let told = |pair: &[Vec<u8>]| {
            let id = std::str::from_utf8(&pair[0]).ok()?.parse().ok()?;
            Some((id, number(pair[1].get(SESSION_BYTES..)?)?))
        };
        let told: Vec<(u8, u64)> = rest.chunks_exact(2).filter_map(told).collect();
        self.sharing.core().membership.handle_beat(made_at, drawn, &told, Instant::now());
        Ok(())
    }

    fn carry_out(&mut self, Request { order, done }: Request) -> Result<(), Lost> {
        let patience = self.sharing.patience();
        match order {
            Order::Mark { token, process, tags, names } => {
                let call = self.mark(token, process, &tags, names.as_ref())?;
                let (sent, wait) = (self.connection.send(call), self.wait());
                self.calls.spawn(async move {
                    let answer = in_time(patience, sent).await;
                    if answer.as_ref().is_ok_and(|answer| is_relied_on(answer)) {
                        tokio::time::sleep(wait).await;
                    }
                    Done::Told { done, names, answer }
                });
            }
            Order::End { tokens, tags, names } => {
                let call = self.end(&tokens, &tags, names.as_ref())?;
                let sent = self.connection.send(call);
                self.calls.spawn(async move {
                    Done::Told { done, names, answer: in_time(patience, sent).await }
                });
            }
            Order::Look { entry, has, relies, found } => {
                let mut call = self.life(Script::Look);
                call.arg(&tags::version(random()?));
                call.arg(&entry.name()).arg(has.map_or_else(Vec::new, |has| tags::bytes_of(&has)));
                call.arg(if relies { &*self.who.id } else { "" });
                entry.tags.iter().for_each(|tag| {
                    call.arg(tags::name(tag));
                });
                let (sent, deadline) = (self.connection.send(call), self.sharing.deadline());
                self.calls.spawn(async move {
                    match tokio::time::timeout(deadline, sent).await {
                        Ok(answer) => Done::Looked { found, answer },
                        Err(_) => Done::Late,
                    }
                });
            }
            Order::Put { entry, versions, value, ttl } => {
                let versions = tags::bytes_of(&versions);
                let mut call = self.life(Script::Put);
                call.arg(&entry.name()).arg(tags::milliseconds(ttl)).arg(&versions);
                call.arg([versions, value].concat());
                entry.tags.iter().for_each(|tag| {
                    call.arg(tags::name(tag));
                });
                let sent = self.connection.send(call);
                self.calls.spawn(async move {
                    match tokio::time::timeout(patience, sent).await {
                        Ok(answer) => Done::Put { answer },
                        Err(_) => Done::Late,
                    }
                });
            }
            Order::Entries(Asked { script, arguments, answer: found }) => {
                let mut call = self.member(script);
                arguments.iter().for_each(|argument| {
                    call.arg(argument);
                });
                let sent = self.connection.send(call);
                self.calls.spawn(async move {
                    match tokio::time::timeout(patience, sent).await {
                        Ok(answer) => Done::Entries { found, answer },
                        Err(_) => Done::Late,
                    }
                });
            }
        }
        Ok(())
    }

    /// What a call other than a beat has come to.
    fn settle(&self, done: Done, note: &Note<'_>) -> Result<(), Lost> {
        match done {
            Done::Told { done, names, answer } => {
                let answer = answer?;
                if let (Some(names), [_, cluster, database, ..]) = (names, &answer[..])
                    && let (Some(cluster), Some(database)) =
                        (tags::versions(cluster), tags::versions(database))
                    && let ([cluster], [database]) = (&cluster[..], &database[..])
                {
                    note(&names.database, [*cluster, *database]);
                }
                // Whoever waited may have gone.
                let _ = done.send(());
            }
            Done::Looked { found, answer } => {
                if let Some(looked) = looked(answer?) {
                    if let Looked::Shared(Shared { value: Some(_), .. }) = &looked {
                        super::count(&self.sharing.counts.hits);
                    }
                    let _ = found.send(looked);
                }
            }
            Done::Put { answer } => {
                if answer?.first().is_some_and(|word| word == b"ok") {
                    super::count(&self.sharing.counts.puts);
                }
            }
            Done::Entries { found, answer } => drop(found.send(answer?)),
            Done::Late | Done::Beat { .. } => {}
        }
        Ok(())
    }

    // --- calls ---------------------------------------------------------------------------------------

    fn life(&self, script: Script) -> Cmd {
        let mut call = self.connection.call(script);
        call.arg(&self.who.life);
        call
    }

    fn member(&self, script: Script) -> Cmd {
        let mut call = self.life(script);
        call.arg(&self.who.id).arg(&self.who.session);
        call
    }

    fn mark(
        &self,
        token: u64,
        process: Option<i32>,
        all: &[Tag],
        names: Option<&Names>,
    ) -> Result<Cmd, Lost> {
        let mut call = self.member(Script::Mark);
        call.arg(token);
        match process {
            Some(process) => call.arg(process),
            None => call.arg("-"),
        };
        call.arg(&tags::version(random()?));
        tags::names(names).iter().for_each(|name| {
            call.arg(name);
        });
        all.iter().for_each(|tag| {
            call.arg(tags::name(tag));
        });
        Ok(call)
    }

    fn end(&self, tokens: &[u64], all: &[Tag], names: Option<&Names>) -> Result<Cmd, Lost> {
        let mut call = self.member(Script::End);
        call.arg(tokens.len()).arg(&tags::version(random()?));
        tags::names(names).iter().for_each(|name| {
            call.arg(name);
        });
        tokens.iter().for_each(|token| {
            call.arg(*token);
        });
        all.iter().for_each(|tag| {
            call.arg(tags::name(tag));
        });
        Ok(call)
    }

    /// Before the session serves: one call at a time.
    async fn now(&self, call: Cmd) -> Result<Vec<Vec<u8>>, Lost> {
        in_time(self.sharing.patience(), self.connection.send(call)).await
    }
}

async fn in_time<T>(
    time_max: Duration,
    answer: impl Future<Output = Result<T, Lost>>,
) -> Result<T, Lost> {
    let answer = tokio::time::timeout(time_max, answer).await;
    answer.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
}

fn looked(answer: Vec<Vec<u8>>) -> Option<Looked> {
    let mut parts = answer.into_iter();
    if parts.next()? == b"marked" {
        return Some(Looked::Marked);
    }
    let versions = parts.next()?;
    let value = match (parts.next(), parts.next().as_deref().and_then(number)) {
        (Some(value), Some(left)) => {
            Some((value.get(versions.len()..)?.to_vec(), Duration::from_millis(left)))
        }
        _ => None,
    };
    let versions = tags::versions(&versions)?;
    Some(Looked::Shared(Shared { versions, value, relied_from: None }))
}

/// The answer of a mark.
fn is_relied_on(answer: &[Vec<u8>]) -> bool {
    answer.get(3).is_none_or(|relied| relied != b"0")
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn random() -> Result<u64, Lost> {
    getrandom::u64().map_err(|error| error.to_string())
}
