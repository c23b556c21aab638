//! How busy each server's machine is, and what our user may do: asked at an interval of their own, by connections of their own.

mod database; // the server itself, as far as our user may ask it
mod exporter; // a node_exporter on its machine
mod rights; // what a failover takes

use std::sync::Arc;
use std::time::Duration;

use tidegate_cluster::{LoadMeter, LoadReading, Mode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::{Config, ExporterUrl};
use crate::upstream::{Asker, Target};
use crate::view::LoadView;

/// How often a machine is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// What our user may not ask is asked again after this: it may have been allowed meanwhile.
const AGAIN: Duration = Duration::from_secs(60);
/// An answer that takes longer is none.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Answers that wait; each task waits for its own to be taken.
const TOLD_MAX: usize = 16;

/// What a task has found out.
#[derive(Debug)]
pub(super) enum Told {
    /// Of this member.
    Load(usize, LoadView),
    /// What our user lacks, in a sentence; `None`: nothing.
    Rights(Option<String>),
}

/// What is known of the machines of one cluster.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) told: mpsc::Receiver<Told>,
    loads: Vec<LoadView>,
    #[expect(dead_code, reason = "dropping it ends them")]
    tasks: JoinSet<()>,
}

/// Why a machine does not say how busy it is.
#[derive(Debug)]
enum Trouble {
    Passing(String),
    /// It stays so until somebody does something.
    Lasting(String),
}

impl Hosts {
    /// Asks for ever.
    pub(super) fn watch(config: &Config, targets: &[Arc<Target>]) -> Self {
        let (sender, told) = mpsc::channel(TOLD_MAX);
        let mut tasks = JoinSet::new();
        for (member, target) in targets.iter().enumerate() {
            let asker = Asker::for_cluster(config, member, target.clone(), "tidegate: load");
            let url = config.cluster.server(member).node_exporter.clone();
            tasks.spawn_local(watch_load(asker, member, url, sender.clone()));
        }
        if let (Mode::Embedded, Some(primary)) = (config.failover.policy.mode, targets.first()) {
            let asker = Asker::for_cluster(config, 0, primary.clone(), "tidegate: rights");
            tasks.spawn_local(watch_rights(asker, sender));
        }
        let loads = vec![LoadView::default(); targets.len()];
        Self { told, loads, tasks }
    }

    pub(super) fn load(&self, member: usize) -> LoadView {
        self.loads.get(member).cloned().unwrap_or_default()
    }

    pub(super) fn set_load(&mut self, member: usize, load: LoadView) {
        if let Some(place) = self.loads.get_mut(member) {
            *place = load;
        }
    }
}

/// Ends when nobody listens.
async fn watch_load(
    mut asker: Asker,
    member: usize,
    url: Option<ExporterUrl>,
    told: mpsc::Sender<Told>,
) {
    let source = if url.is_some() { "node_exporter" } else { "database" };
    let mut meter = LoadMeter::default();
    let (mut database, mut directory) = (database::Database::default(), None);
    loop {
        let reading = async {
            match &url {
                Some(url) => exporter::read(url, &mut asker, &mut directory).await,
                None => database.read(&mut asker).await,
            }
        };
        let late = |_| Err(Trouble::Passing("it does not answer in time".to_owned()));
        let reading: Result<LoadReading, Trouble> =
            timeout(ANSWER_TIME_MAX, reading).await.unwrap_or_else(late);
        let (view, pause) = match reading {
            Ok(reading) => {
                let load = meter.handle_reading(reading);
                (LoadView { load, source: Some(source), trouble: None }, INTERVAL)
            }
            Err(trouble) => {
                meter = LoadMeter::default();
                let (words, pause) = match trouble {
                    Trouble::Passing(words) => (words, INTERVAL),
                    Trouble::Lasting(words) => (words, AGAIN),
                };
                if pause == AGAIN {
                    asker.close();
                }
                (LoadView { trouble: Some(words.into()), ..LoadView::default() }, pause)
            }
        };
        if told.send(Told::Load(member, view)).await.is_err() {
            return;
        }
        sleep(pause).await;
    }
}

/// Ends when nobody listens.
async fn watch_rights(mut asker: Asker, told: mpsc::Sender<Told>) {
    loop {
        // A primary that cannot be asked has troubles of its own, which are told elsewhere.
        if let Ok(Ok(lacks)) = timeout(ANSWER_TIME_MAX, rights::lacking(&mut asker)).await
            && told.send(Told::Rights(lacks)).await.is_err()
        {
            return;
        }
        asker.close();
        sleep(AGAIN).await;
    }
}
