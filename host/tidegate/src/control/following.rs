//! Writes that do not pass Tidegate: each database in which answers are kept is followed in its log, on the primary.
//!
//! What is decided, and why it holds, is [`Outside`]'s. Here are its connections: one by which the log is streamed, and one that is
//! asked what of it is visible. Whatever goes wrong with either ends both, and nothing is given until both are there again.

mod asking; // what the primary is asked

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_cache::{ASK_INTERVAL, LEASE, Lost, NamesFound, Outside, OutsideCounts};
use tidegate_wire::replication::{Answer, Streamed};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Input, WATCH_INTERVAL, Watched, ticks};
use crate::config::Config;
use crate::results::{FollowState, FollowedLogs, Results};
use crate::upstream::{Asker, ConnectError, LogBytes, LogStream, ServerError, Target};
use crate::view::Views;

/// A server that says nothing for so long, though it is asked all the time, is gone.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(10);
/// After a failure it is tried again in this time, and in twice the time after each further one.
const RETRY_TIME_MIN: Duration = Duration::from_millis(500);
const RETRY_TIME_MAX: Duration = Duration::from_secs(15);

/// A slot that begins no sooner is told of.
const PATIENCE: Duration = Duration::from_secs(20);
const WAITS: &str = "the log begins when all transactions are over that run now; see pg_stat_activity and pg_prepared_xacts";

const _: () = assert!(SILENCE_TIME_MAX.as_secs() > LEASE.as_secs());

/// What following takes.
#[derive(Clone)]
struct Needs {
    config: Arc<Config>,
    primary: Arc<Target>,
    results: Arc<Results>,
    views: Arc<Views>,
    /// Changes of schemas that were seen.
    schema: Arc<AtomicU64>,
}

/// Why a database is not followed any more.
enum Ended {
    Connection(ConnectError),
    Lost(Lost),
    Silent,
    /// The one connection is to another primary than the other.
    OtherPrimary,
    NotUnderstood,
}

/// Without end.
pub(super) async fn watch(input: &Input, watched: &Watched) {
    let Some(logs) = input.results.logs() else { return std::future::pending().await };
    let needs = Needs {
        config: watched.config.clone(),
        primary: watched.targets[0].clone(),
        results: input.results.clone(),
        views: input.views.clone(),
        schema: input.schema.clone(),
    };
    logs.forget_all();
    let (mut all, mut running) = (JoinSet::new(), HashMap::new());
    let mut tick = ticks(WATCH_INTERVAL);
    loop {
        tick.tick().await;
        let keeps = input.results.round() != 0;
        let wanted = if keeps { input.views.wanted() } else { Vec::new() };
        running.retain(|name: &Arc<str>, task: &mut tokio::task::AbortHandle| {
            let stays = wanted.contains(name) && !task.is_finished();
            if !stays {
                task.abort();
                logs.forget(name);
            }
            stays
        });
        while all.try_join_next().is_some() {}
        for name in wanted {
            let task = || all.spawn_local(follow(needs.clone(), name.clone()));
            running.entry(name.clone()).or_insert_with(task);
        }
    }
}

/// One database, without end.
async fn follow(needs: Needs, database: Arc<str>) {
    let Some(logs) = needs.results.logs() else { return };
    let mut pause = RETRY_TIME_MIN;
    loop {
        if !matches!(logs.state(&database), Some(FollowState::Lost(_))) {
            logs.note(&database, FollowState::Starting);
        }
        let Err(ended) = follow_once(&needs, &database, logs).await;
        // Policies want answers kept anew: no trouble.
        if matches!(ended, Ended::Lost(Lost::Restarted)) {
            tokio::time::sleep(RETRY_TIME_MIN).await;
            continue;
        }
        let why: Arc<str> = ended.reason(&needs).into();
        let lost = FollowState::Lost(why.clone());
        let before = logs.note(&database, lost.clone());
        if matches!(before, Some(FollowState::Following(_))) {
            pause = RETRY_TIME_MIN;
        }
        if before.as_ref() != Some(&lost) {
            let advice = ended.advice();
            tracing::warn!(
                %database,
                %why,
                advice,
                "writes past Tidegate cannot be followed: nothing is kept of this database until they are"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_TIME_MAX);
    }
}

/// Both connections, until something is wrong with either.
async fn follow_once(
    needs: &Needs,
    database: &Arc<str>,
    logs: &FollowedLogs,
) -> Result<std::convert::Infallible, Ended> {
    let Needs { config, primary, results, .. } = needs;
    let mut asker = Asker::for_log(config, primary.clone(), "tidegate: writes past it");
    asker.database = database.clone();
    let slot = format!("tidegate_{:016x}_{}", results.seed(), results.number_reading());
    let mut stream = {
        let mut opening = std::pin::pin!(asker.stream_log(&slot));
        tokio::select! {
            opened = &mut opening => opened?,
            () = tokio::time::sleep(PATIENCE) => {
                tracing::warn!(%database, why = WAITS, "writes past Tidegate are not followed yet");
                logs.note(database, FollowState::Lost(WAITS.into()));
                opening.await?
            }
        }
    };
    let process = stream.process();
    let outside = results.with(|store| Outside::new(database.clone(), store));
    let outside = RefCell::new(Some(outside));
    let follower =
        Follower { needs, database, logs, process, outside: &outside, told: &Notify::new() };
    let timeline: Box<str> = stream.timeline().into();
    // Either ends with what is wrong. What was marked is settled when this is dropped.
    tokio::select! {
        ended = follower.listen(&mut stream) => ended,
        ended = follower.ask(&mut asker, &timeline) => ended,
    }
}

struct Follower<'a> {
    needs: &'a Needs,
    database: &'a Arc<str>,
    logs: &'a FollowedLogs,
    /// The server's, which streams.
    process: Option<i32>,
    outside: &'a RefCell<Option<Outside>>,
    /// Something was told that is to be asked about.
    told: &'a Notify,
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        if let Some(outside) = self.outside.take() {
            self.needs.results.with(|store| outside.end(store, Instant::now()));
        }
    }
}

impl Follower<'_> {
    /// What the log tells, as it comes.
    async fn listen(&self, stream: &mut LogStream) -> Result<std::convert::Infallible, Ended> {
        let mut beat = ticks(ASK_INTERVAL);
        let mut heard_at = Instant::now();
        loop {
            let position = || self.outside.borrow().as_ref().map_or(0, Outside::position);
            // Both branches are cancel safe.
            tokio::select! {
                read = stream.read() => {
                    heard_at = Instant::now();
                    if self.take(stream, &read?)? == Answer::Wanted {
                        stream.tell(position(), Answer::Unneeded).await?;
                    }
                }
                _ = beat.tick() => {
                    if heard_at.elapsed() > SILENCE_TIME_MAX {
                        return Err(Ended::Silent);
                    }
                    stream.tell(position(), Answer::Wanted).await?;
                }
            }
        }
    }

    /// Whether the server wants to hear of us.
    fn take(&self, stream: &mut LogStream, read: &LogBytes) -> Result<Answer, Ended> {
        let results = &self.needs.results;
        let view = self.needs.views.latest();
        let known = view.catalogues.get(&**self.database).and_then(|known| known.tables.as_ref());
        let known = known.and_then(|known| Some((known.tables.as_deref()?, known.stamp)));
        let mut outside = self.outside.borrow_mut();
        let Some(outside) = outside.as_mut() else { return Ok(Answer::Unneeded) };
        let (before, now) = (outside.counts(), Instant::now());
        let (mut answer, mut lost) = (Answer::Unneeded, None);
        let (taken, _) = results.with_gates(self.process, |store| {
            stream.take(read, |streamed| match streamed {
                _ if lost.is_some() => {}
                Streamed::Data { position, text } => {
                    lost = outside.handle_text(text, known, store, now).err();
                    outside.handle_position(position);
                }
                Streamed::Keepalive { position, wants_answer } => {
                    outside.handle_position(position);
                    if wants_answer {
                        answer = Answer::Wanted;
                    }
                }
            })
        });
        self.logs.count(read.count(), before, outside.counts());
        if outside.counts().transactions > before.transactions {
            self.told.notify_one();
        }
        taken?;
        lost.map_or(Ok(answer), |lost| Err(lost.into()))
    }

    /// What of it is visible, and what names mean.
    async fn ask(
        &self,
        asker: &mut Asker,
        timeline: &str,
    ) -> Result<std::convert::Infallible, Ended> {
        loop {
            let now = Instant::now();
            let next = self.outside.borrow().as_ref().map(|outside| outside.next_question(now));
            let Some((question, at)) = next else { return std::future::pending().await };
            if at > now {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.told.notified() => continue,
                }
            }
            let asked_at = Instant::now();
            let rows = asker.ask(asking::sql(question)).await?;
            let (answered, of) = asking::read(question, &rows).ok_or(Ended::NotUnderstood)?;
            if of != timeline {
                return Err(Ended::OtherPrimary);
            }
            let mut outside = self.outside.borrow_mut();
            let Some(outside) = outside.as_mut() else { continue };
            let (before, was) = (outside.counts(), outside.is_following());
            let (names, _) = self.needs.results.with_gates(self.process, |store| {
                outside.handle_answer(answered, asked_at, store, Instant::now())
            });
            self.note(outside, before, was);
            if names? == NamesFound::Changed {
                tracing::info!(database = %self.database, "names or rights were changed past Tidegate");
                self.needs.schema.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn note(&self, outside: &Outside, before: OutsideCounts, was_following: bool) {
        self.logs.count(0, before, outside.counts());
        let Some(as_of) = outside.fresh_as_of().filter(|_| outside.is_following()) else { return };
        self.logs.note(self.database, FollowState::Following(as_of));
        if !was_following {
            tracing::info!(database = %self.database, "writes past Tidegate are followed");
        }
    }
}

impl From<ConnectError> for Ended {
    fn from(error: ConnectError) -> Self {
        Self::Connection(error)
    }
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Ended {
    fn reason(&self, needs: &Needs) -> String {
        let server = &needs.primary.name;
        match self {
            Self::Connection(ConnectError::Timeout) => format!(
                "{server} did not answer in time: transactions that run for long may keep a slot from beginning"
            ),
            Self::Connection(error) => format!("{server}: {error}"),
            Self::Lost(lost) => lost.reason().to_owned(),
            Self::Silent => format!("{server} said nothing for {SILENCE_TIME_MAX:?}"),
            Self::OtherPrimary => {
                format!("{server} is another primary than the one whose log is streamed")
            }
            Self::NotUnderstood => format!("{server} answers what is not understood"),
        }
    }

    /// What to do.
    fn advice(&self) -> &'static str {
        match self {
            Self::Connection(ConnectError::Refused(error)) => advice(error),
            _ => "it is tried again by itself",
        }
    }
}

fn advice(error: &ServerError) -> &'static str {
    match error.sqlstate.as_str() {
        "55000" => "ALTER SYSTEM SET wal_level = 'logical', and restart the server",
        "42501" | "28000" => {
            "ALTER ROLE ... REPLICATION for the user of cache.follow_user, or of the primary's URL"
        }
        "53400" => {
            "raise max_replication_slots: it takes one for each database and Tidegate; or drop slots that nobody uses"
        }
        "53300" => "raise max_wal_senders: it takes one for each database and Tidegate",
        "58P01" => {
            "install the output plugin test_decoding, which is part of PostgreSQL's contrib modules"
        }
        _ => "it is tried again by itself",
    }
}
