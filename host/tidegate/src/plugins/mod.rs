//! Plugins as an operator sees them: uploaded, checked, kept, swapped, tried out, taken back, told of.
//!
//! The sandbox and the slots are `tidegate_policy`'s. Here is what happens around them: a process that compiles at low
//! priority, a folder in which accepted plugins outlive the process, signatures, and a line in the log for each order.
//!
//! A load goes to the thread and is thrown away when whoever ordered it has gone. Everything that only moves what is
//! loaded already takes the desk's lock for as long as a small file takes to be written.

mod code; // machine code that is kept
mod compiler; // compiles, in a process of its own
mod desk; // who answers, written down and then done
mod manifest; // who answers, as a file says it
mod notes; // what plugins do, to the log and the metrics
mod order; // orders, refusals
mod report; // slots, as JSON
mod store; // files that outlive the process
mod thread; // loads, one after the other

#[cfg(test)]
mod tests;

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::limits::{PLUGIN_ORDERS_MAX, PLUGIN_RESTORE_TIME_MAX};
use tidegate_core::policy::Slot;
use tidegate_policy::{Compiler, Engine, Registry, Settings, Sink};
use tokio::sync::oneshot;

use crate::config::{PluginsConfig, Rates};
pub use code::KeptCode;
pub use compiler::{ChildProcess, Work, work_for_parent};
use desk::Desk;
use notes::Notes;
pub use notes::{Happened, Recorded};
pub use order::{Intake, Order, Refusal, RefusalKind, Who};
pub use report::{
    CandidateReport, DifferenceReport, HistoryEntry, SlotDetail, SlotReport, VersionReport,
};
use store::Store;
use thread::Job;

/// The plugins of a process.
pub struct Plugins {
    registry: Arc<Registry>,
    config: PluginsConfig,
    /// Settings of the limiting plugin that comes with the program.
    limiting: String,
    desk: Mutex<Desk>,
    jobs: SyncSender<Job>,
    notes: Arc<Notes>,
}

/// What came of an order: the slots that it was about.
pub type Outcome = Result<Vec<SlotReport>, Refusal>;

impl Plugins {
    /// Makes the sandbox and its thread, and brings back what the configuration pins and the state directory holds.
    /// The plugins that come with the program follow on the thread: until then the host answers the same by itself.
    /// Without a compiler this process compiles.
    ///
    /// # Errors
    /// The sandbox or the thread can't be made, as a sentence.
    pub fn start(
        config: &PluginsConfig,
        rates: &Rates,
        workers: usize,
        seed: u64,
        compiler: Option<Arc<dyn Compiler>>,
    ) -> Result<Arc<Self>, String> {
        let settings = Settings {
            // One more for the control plane, which asks for weights.
            instances: workers + 1,
            memory_bytes_max: config.memory_bytes_max,
            plan_time_max: config.plan_time_max,
            decide_time_max: config.decide_time_max,
        };
        let engine = match compiler {
            Some(compiler) => Engine::with_compiler(settings, compiler),
            None => Engine::new(settings),
        };
        let engine = engine.map_err(|error| error.to_string())?;
        let (jobs, receiver) = mpsc::sync_channel(PLUGIN_ORDERS_MAX);
        let notes = Arc::new(Notes::new(jobs.clone()));
        let sink: Arc<dyn Sink> = notes.clone();
        let store = config.state_dir.clone().map(Store::new);
        let plugins = Arc::new(Self {
            registry: Arc::new(Registry::new(Arc::new(engine), seed, &sink)),
            config: config.clone(),
            limiting: rates.settings(),
            desk: Mutex::new(Desk::new(store)),
            jobs,
            notes,
        });
        let (restored, restoring) = mpsc::channel();
        thread::start(Arc::downgrade(&plugins), receiver, restored)
            .map_err(|error| format!("the thread for plugins: {error}"))?;
        if restoring.recv_timeout(PLUGIN_RESTORE_TIME_MAX).is_err() {
            tracing::warn!("plugins take long to compile: the host answers itself until then");
        }
        Ok(plugins)
    }

    /// Where statements are asked about.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Every slot.
    pub fn slots(&self) -> Vec<SlotReport> {
        let (view, desk) = (self.registry.view(), self.desk());
        Slot::ALL.iter().map(|slot| report::slot(*slot, &view, &desk, &self.config)).collect()
    }

    /// One slot, with all that is known of it.
    pub fn slot(&self, slot: Slot) -> SlotDetail {
        let (view, desk) = (self.registry.view(), self.desk());
        report::detail(slot, &view, &desk, &self.config)
    }

    /// What has happened in each slot since the process began.
    pub fn happened(&self) -> Vec<Happened> {
        self.notes.happened()
    }

    /// The metrics that plugins keep themselves.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.notes.recorded()
    }

    /// Does what an operator asks. Dropping the future before a plugin is checked leaves everything as it is.
    ///
    /// # Errors
    /// Why not. Then nothing has changed.
    pub async fn order(self: Arc<Self>, order: Order, who: Who) -> Outcome {
        if let Some(slot) = order.slots().into_iter().find(|slot| self.is_pinned(*slot)) {
            let refusal = Refusal::conflict(format!(
                "{} is pinned by the configuration; change [[pins]] and restart",
                slot.name()
            ));
            return self.refuse(&order, &who, refusal);
        }
        if order.needs_compiler() {
            let (reply, answer) = oneshot::channel();
            if let Err(error) = self.jobs.try_send(Job::Load { order, who, reply }) {
                let (TrySendError::Full(job) | TrySendError::Disconnected(job)) = error;
                return match job {
                    Job::Load { order, who, .. } => self.refuse(&order, &who, Refusal::busy()),
                    Job::Settle(_) => Err(Refusal::busy()),
                };
            }
            return answer.await.unwrap_or_else(|_| Err(Refusal::busy()));
        }
        let moving = tokio::task::spawn_blocking(move || self.carry_out(&order, &who, None));
        moving.await.unwrap_or_else(|_| Err(Refusal::busy()))
    }

    fn is_pinned(&self, slot: Slot) -> bool {
        self.config.pins.iter().any(|pin| pin.slot == slot)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, order: &Order, who: &Who, refusal: Refusal) -> Outcome {
        self.desk().note(order, who, None, Some(&refusal));
        Err(refusal)
    }
}
