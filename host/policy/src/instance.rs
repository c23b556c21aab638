//! One live instance of a plugin: its store, and how a call into it is made and judged.

use crate::bindings::since_v0_1::types::PluginInfo;
use crate::bindings::since_v0_1::{advising, caching, limiting, routing};
use crate::component::Linked;
use crate::engine::{Engine, Settings, ticks};
use crate::error::LoadError;
use crate::fault::Fault;
use crate::granted::Granted;
use crate::guest::Guest;
use crate::watch::thread_cpu_time;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::limits::{
    POLICY_ANSWER_BYTES_MAX, POLICY_BACKGROUND_TIME_MAX, POLICY_CPU_TIME_MAX,
};
use wasmtime::Store;

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Once per shape.
    Plan,
    /// Now and then, for the shares of replicas.
    Weigh,
    /// Once per execution.
    Decide,
    /// Nobody waits.
    Background,
}

impl Pace {
    /// Until the first look.
    fn time(self, settings: &Settings) -> Duration {
        match self {
            Pace::Plan | Pace::Weigh => settings.plan_time_max,
            Pace::Decide => settings.decide_time_max,
            Pace::Background => POLICY_BACKGROUND_TIME_MAX,
        }
    }

    /// From then on.
    fn cpu(self) -> Duration {
        match self {
            Pace::Plan | Pace::Weigh | Pace::Decide => POLICY_CPU_TIME_MAX,
            Pace::Background => POLICY_BACKGROUND_TIME_MAX,
        }
    }
}

/// The exports of one world.
pub(crate) enum Exports {
    Routing(routing::Routing),
    Caching(caching::Caching),
    Limiting(limiting::Limiting),
    Advising(advising::Advising),
}

/// A store with one instance in it. After a trap it is good for nothing, and is dropped.
pub(crate) struct Instance {
    pub(crate) store: Store<Guest>,
    pub(crate) exports: Exports,
    /// The cluster state that it was last told, by its number.
    pub(crate) told: u64,
    /// The engine's.
    settings: Settings,
}

impl Instance {
    /// Makes an instance and hands it its settings.
    pub(crate) fn start(
        engine: &Engine,
        linked: &Linked,
        granted: &Arc<Granted>,
        settings: &str,
    ) -> Result<(Instance, PluginInfo), LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Start(Fault::of(&error).to_string());
        let guest =
            Guest::new(Arc::clone(granted), engine.settings().memory_bytes_max, engine.pulse());
        let mut store = Store::new(engine.wasm(), guest);
        store.limiter(|guest| &mut guest.watch);
        store.epoch_deadline_callback(|mut context| {
            Ok(context.data_mut().watch.look(thread_cpu_time()))
        });
        store.set_hostcall_fuel(POLICY_ANSWER_BYTES_MAX);
        arm(&mut store, Pace::Background, &engine.settings());
        let exports = instantiate(linked, &mut store).map_err(failed)?;
        let init = match &exports {
            Exports::Routing(exports) => exports.call_init(&mut store, settings),
            Exports::Caching(exports) => exports.call_init(&mut store, settings),
            Exports::Limiting(exports) => exports.call_init(&mut store, settings),
            Exports::Advising(exports) => exports.call_init(&mut store, settings),
        };
        let info = init.map_err(failed)?.map_err(LoadError::Refused)?;
        Ok((Instance { store, exports, told: 0, settings: engine.settings() }, info))
    }

    /// Gives the next call its time.
    #[inline]
    pub(crate) fn arm(&mut self, pace: Pace) {
        arm(&mut self.store, pace, &self.settings);
    }
}

#[inline]
pub(crate) fn arm(store: &mut Store<Guest>, pace: Pace, settings: &Settings) {
    let ticks = ticks(pace.time(settings));
    store.set_epoch_deadline(ticks);
    store.data_mut().watch.arm(pace.cpu(), ticks);
}

fn instantiate(linked: &Linked, store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
    Ok(match linked {
        Linked::Routing(pre) => Exports::Routing(pre.instantiate(store)?),
        Linked::Caching(pre) => Exports::Caching(pre.instantiate(store)?),
        Linked::Limiting(pre) => Exports::Limiting(pre.instantiate(store)?),
        Linked::Advising(pre) => Exports::Advising(pre.instantiate(store)?),
    })
}
