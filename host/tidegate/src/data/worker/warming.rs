//! Warming: statements that an operator names are asked by clients of the worker's own, so that their answers are there when
//! others ask. They go the way of all others: what may not be kept is not, whoever wants it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_core::limits::{WARM_AT_ONCE_MAX, WARM_KNOWN_TIME_MAX, WARM_TIME_MAX};
use tidegate_core::settings::Settings;
use tidegate_wire::frontend;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use tidegate_cache::Again;

use super::again::{Answered, Asks, drive};
use super::{Life, Worker};
use crate::data::caching::CacheNote;
use crate::data::greeting::Parameters;
use crate::upstream::Credentials;
use crate::upstream::pool::{PoolKey, PoolKind};

/// One statement is given up after this.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(30);

/// What to ask, and as whom.
#[derive(Clone, Debug)]
pub struct WarmOrder {
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// Where no pool of this user is at hand.
    pub credentials: Option<Credentials>,
    /// As clients have them, by start-up parameters.
    pub settings: Vec<(String, String)>,
    pub statements: Arc<[String]>,
}

/// What became of one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warm {
    Kept,
    /// It was there already.
    There,
    NotKept(String),
}

/// Why nothing was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwarmed {
    /// This worker has no pool of the user, and nobody has told a password.
    Stranger,
    Failed(String),
}

impl Worker {
    /// Asks, and tells what became of each statement, in their order.
    pub(super) fn warm_answers(
        self: &Rc<Self>,
        order: WarmOrder,
        told: oneshot::Sender<Result<Vec<Warm>, Unwarmed>>,
    ) {
        let worker = self.clone();
        self.tasks.borrow_mut().spawn_local(async move {
            let (database, user) = (order.database.clone(), order.user.clone());
            let began = Instant::now();
            let found = worker.clone().carry_out(order).await;
            if let Ok(found) = &found {
                let count = |wanted: &Warm| found.iter().filter(|warm| *warm == wanted).count();
                let (kept, there) = (count(&Warm::Kept), count(&Warm::There));
                worker.shared.results.note_warmed(kept);
                let not_kept = found.len() - kept - there;
                let ms = began.elapsed().as_millis();
                tracing::info!(%database, %user, kept, there, not_kept, ms, "answers warmed");
            }
            // Whoever has asked may have given up.
            let _ = told.send(found);
        });
    }

    async fn carry_out(self: Rc<Self>, order: WarmOrder) -> Result<Vec<Warm>, Unwarmed> {
        let deadline = Instant::now() + WARM_TIME_MAX;
        let (asks, settings) = self.as_whom(&order).await?;
        self.until_known(&order.database).await?;
        let late = || Warm::NotKept("there was no time left for it".to_owned());
        let found = Rc::new(RefCell::new(vec![late(); order.statements.len()]));
        let (asks, next) = (Rc::new(asks), Rc::new(Cell::new(0)));
        let mut lanes = JoinSet::new();
        for _ in 0..WARM_AT_ONCE_MAX.min(order.statements.len()) {
            let (worker, asks, settings) = (self.clone(), asks.clone(), settings.clone());
            let (next, found, statements) = (next.clone(), found.clone(), order.statements.clone());
            lanes.spawn_local(async move {
                while let Some(sql) = statements.get(next.get())
                    && Instant::now() < deadline
                    && worker.life.get() != Life::Draining
                {
                    let place = next.replace(next.get() + 1);
                    let warm = worker.warm_one(&asks, &settings, sql).await;
                    if let Some(found) = found.borrow_mut().get_mut(place) {
                        *found = warm;
                    }
                }
            });
        }
        while lanes.join_next().await.is_some() {}
        Ok(found.take())
    }

    /// As the user logs in, as far as pools and settings go.
    async fn as_whom(&self, order: &WarmOrder) -> Result<(Asks, Arc<Settings>), Unwarmed> {
        let key = PoolKey {
            database: order.database.clone(),
            user: order.user.clone(),
            instance: 0,
            kind: PoolKind::Write,
        };
        let now = Instant::now();
        let known = self.pools.known(&key).or_else(|| {
            let credentials = order.credentials.clone()?;
            Some((self.pools.pool(&key, &credentials, now), credentials))
        });
        let (write_pool, credentials) = known.ok_or(Unwarmed::Stranger)?;
        let wanted: &Parameters = &order.settings;
        let (id, hidden) = (self.shared.next_client(), self.shared.hidden.of(&order.database, now));
        let welcome = self.welcome_of(&order.database, &order.user);
        let settings = welcome.borrow().recall(wanted);
        let settings = match settings {
            Some(settings) => settings,
            None => self
                .ask_for_settings(&write_pool, id, wanted, &welcome, &hidden)
                .await
                .map_err(|refusal| Unwarmed::Failed(refusal.message.into()))?,
        };
        let (database, user) = (order.database.clone(), order.user.clone());
        Ok((Asks { database, user, credentials, write_pool }, settings))
    }

    /// Until something may be kept of the database. A server has said that there is one.
    async fn until_known(&self, database: &Arc<str>) -> Result<(), Unwarmed> {
        if self.shared.results.round() == 0 {
            let why = "nothing is kept: no caching policy wants it, or other processes could write past this one";
            return Err(Unwarmed::Failed(why.to_owned()));
        }
        self.shared.views.want(database);
        let mut views = self.shared.views.subscribe();
        let known = views.wait_for(|view| {
            let known = view.catalogues.get(database).and_then(|known| known.tables.as_ref());
            known.is_some_and(|known| self.shared.results.is_followed(database, known.stamp))
        });
        match tokio::time::timeout(WARM_KNOWN_TIME_MAX, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unwarmed::Failed(format!(
                "the catalogue of {database} could not be read in time, or its log not be followed"
            ))),
        }
    }

    async fn warm_one(self: &Rc<Self>, asks: &Asks, settings: &Arc<Settings>, sql: &str) -> Warm {
        let mut unit = Vec::with_capacity(sql.len() + 8);
        frontend::query(&mut unit, sql.as_bytes());
        let again = Again {
            user: asks.user.clone(),
            settings: settings.clone(),
            unit: unit.into(),
            wanted_at: Instant::now(),
        };
        let Some((connection, client, theirs)) = self.own_client(asks, Arc::new(again)) else {
            return Warm::NotKept("the quota of clients has no room for it".to_owned());
        };
        let answered = drive(connection, theirs, STATEMENT_TIME_MAX).await;
        match (answered, client.cache_note()) {
            (Answered::Whole, _) if client.is_kept() => Warm::Kept,
            (Answered::Whole, CacheNote::Hit) => Warm::There,
            (Answered::Whole, note) => Warm::NotKept(note.words().into_owned()),
            (Answered::Failed, _) => Warm::NotKept("it fails".to_owned()),
            (Answered::Late, _) => Warm::NotKept("it takes too long".to_owned()),
        }
    }
}
