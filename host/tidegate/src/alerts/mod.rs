//! ALERTS: tells people what is wrong with the cluster, on a thread of its own. What is told and when decides `tidegate-alerts`.

mod mail; // SMTP
mod sending; // one letter to one receiver
mod web; // POST over HTTP and HTTPS

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tidegate_alerts::{Condition, Finding, Ledger, Letter, Occasion, Outbox, Told};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use crate::config::{AlertKind, AlertReceiver};
use sending::{Refused, send};

/// Words about the cluster that wait for this thread, which waits for nobody.
const ORDERS_MAX: usize = 64;
/// How long to sleep when nothing is due.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// What was done just before a trouble was seen belongs to it.
const DONE_BEFORE: Duration = Duration::from_secs(2);
/// Of what was done, so much is told.
const DONE_MAX: usize = 10;

/// The cluster, as far as people may have to be told of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// What was done and decided of late, oldest first.
    pub done: Vec<(SystemTime, Arc<str>)>,
    /// The servers in a sentence.
    pub cluster: String,
}

/// What came of a letter that somebody has asked for: the receiver, and why it did not get it.
pub type Tried = Vec<(String, Result<(), String>)>;

enum Order {
    Report(Report),
    Receivers(Vec<AlertReceiver>),
    Test(oneshot::Sender<Tried>),
}

/// The way to the thread, which ends when the last of these is dropped.
#[derive(Clone, Debug)]
pub struct Alerts {
    orders: mpsc::Sender<Order>,
}

impl Alerts {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        thread::Builder::new().name("tidegate-alerts".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, run(ordered));
        })?;
        Ok(Self { orders })
    }

    /// How the cluster is now; false when there is no room for the word.
    #[must_use]
    pub fn report(&self, report: Report) -> bool {
        self.has_room(Order::Report(report))
    }

    /// Whom to tell from now on; false when there is no room for the word. Who was there before goes on where it was.
    #[must_use]
    pub fn set_receivers(&self, receivers: Vec<AlertReceiver>) -> bool {
        self.has_room(Order::Receivers(receivers))
    }

    /// A thread that is gone takes everything: nobody is to wait for it.
    fn has_room(&self, order: Order) -> bool {
        !matches!(self.orders.try_send(order), Err(TrySendError::Full(_)))
    }

    /// Sends each receiver a letter that says that nothing is wrong.
    pub async fn test(&self) -> Tried {
        let (answer, answered) = oneshot::channel();
        if self.orders.send(Order::Test(answer)).await.is_err() {
            return Vec::new();
        }
        answered.await.unwrap_or_default()
    }
}

/// One receiver: what it was told, and what waits for it.
struct Desk {
    number: u64,
    receiver: Arc<AlertReceiver>,
    ledger: Ledger,
    outbox: Outbox<Letter>,
    is_failing: bool,
}

struct Office {
    desks: Vec<Desk>,
    numbers: u64,
    report: Report,
    source: String,
    sendings: JoinSet<(u64, Result<(), Refused>)>,
    tests: JoinSet<()>,
}

async fn run(mut orders: mpsc::Receiver<Order>) {
    let mut office = Office {
        desks: Vec::new(),
        numbers: 0,
        report: Report::default(),
        source: machine(),
        sendings: JoinSet::new(),
        tests: JoinSet::new(),
    };
    loop {
        let now = Instant::now();
        office.work(now);
        let wake_at = office.wake_at(now);
        // All branches are cancel safe.
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => office.handle_order(order),
                None => return,
            },
            Some(Ok((number, outcome))) = office.sendings.join_next() => {
                office.handle_outcome(number, outcome);
            }
            Some(_) = office.tests.join_next() => {}
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
    }
}

impl Office {
    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Report(report) => self.report = report,
            Order::Receivers(receivers) => self.set_receivers(receivers),
            Order::Test(answer) => self.test(answer),
        }
    }

    fn set_receivers(&mut self, receivers: Vec<AlertReceiver>) {
        let mut before = std::mem::take(&mut self.desks);
        for receiver in receivers {
            let known = before.iter().position(|desk| *desk.receiver == receiver);
            let desk = match known {
                Some(at) => before.swap_remove(at),
                None => {
                    self.numbers += 1;
                    Desk {
                        number: self.numbers,
                        ledger: Ledger::new(receiver.repeat),
                        receiver: Arc::new(receiver),
                        outbox: Outbox::default(),
                        is_failing: false,
                    }
                }
            };
            self.desks.push(desk);
        }
    }

    fn test(&mut self, answer: oneshot::Sender<Tried>) {
        let what = "a test: alerts arrive".to_owned();
        let finding = Finding { condition: Condition::Test, server: None, what, is_urgent: true };
        let now = Instant::now();
        let told = Told { occasion: Occasion::Fired, finding, since: now };
        let letter = letter(told, &self.report, &self.source, now);
        let receivers: Vec<_> = self.desks.iter().map(|desk| desk.receiver.clone()).collect();
        self.tests.spawn_local(async move {
            let mut sendings = JoinSet::new();
            for (at, receiver) in receivers.iter().cloned().enumerate() {
                let letter = letter.clone();
                sendings.spawn_local(async move { (at, send_test(&receiver, letter).await) });
            }
            let mut tried: Tried = receivers
                .iter()
                .map(|r| (r.to_string(), Err("it was not tried".to_owned())))
                .collect();
            while let Some(Ok((at, outcome))) = sendings.join_next().await {
                tried[at].1 = outcome.map_err(|refused| refused.words);
            }
            // Who asked may have gone.
            let _ = answer.send(tried);
        });
    }

    /// Whatever is due.
    fn work(&mut self, now: Instant) {
        for desk in &mut self.desks {
            for told in desk.ledger.handle_findings(&self.report.findings, now) {
                let letter = letter(told, &self.report, &self.source, now);
                desk.outbox.push(letter, now);
            }
            if let Some(letter) = desk.outbox.next(now) {
                let (number, receiver, letter) =
                    (desk.number, desk.receiver.clone(), letter.clone());
                self.sendings.spawn_local(async move { (number, send(&receiver, &letter).await) });
            }
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let dues = self
            .desks
            .iter()
            .flat_map(|desk| desk.ledger.wake_at().into_iter().chain(desk.outbox.wake_at(now)));
        dues.min().unwrap_or(now + SLEEP_MAX).min(now + SLEEP_MAX)
    }

    fn handle_outcome(&mut self, number: u64, outcome: Result<(), Refused>) {
        // A reload may have taken it out.
        let Some(desk) = self.desks.iter_mut().find(|desk| desk.number == number) else { return };
        let receiver = &desk.receiver;
        match outcome {
            Ok(()) => {
                desk.outbox.handle_sent();
                if std::mem::take(&mut desk.is_failing) {
                    tracing::info!(%receiver, "alerts arrive again");
                }
            }
            Err(Refused { failure, words }) => {
                if !std::mem::replace(&mut desk.is_failing, true) {
                    tracing::error!(%receiver, reason = words, "an alert could not be sent");
                }
                desk.outbox.handle_failure(failure, Instant::now());
            }
        }
    }
}

/// No incident is left open.
async fn send_test(receiver: &AlertReceiver, letter: Letter) -> Result<(), Refused> {
    send(receiver, &letter).await?;
    match receiver.channel.kind() {
        AlertKind::PagerDuty => {
            send(receiver, &Letter { occasion: Occasion::Cleared, ..letter }).await
        }
        AlertKind::Webhook | AlertKind::Slack | AlertKind::Email => Ok(()),
    }
}

fn letter(told: Told, report: &Report, source: &str, now: Instant) -> Letter {
    let Told { occasion, finding, since } = told;
    let lasted = now.saturating_duration_since(since);
    let since = SystemTime::now().checked_sub(lasted).unwrap_or(SystemTime::UNIX_EPOCH);
    let belongs = |(at, _): &&(SystemTime, Arc<str>)| *at + DONE_BEFORE >= since;
    let done: Vec<String> =
        report.done.iter().filter(belongs).map(|(_, text)| text.to_string()).collect();
    let done = done[done.len().saturating_sub(DONE_MAX)..].to_vec();
    let (cluster, source) = (report.cluster.clone(), source.to_owned());
    Letter { occasion, finding, since, lasted, done, cluster, source }
}

/// This machine's name, for whoever is told.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
