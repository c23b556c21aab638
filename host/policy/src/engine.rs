//! The sandbox: one wasmtime engine with a pool of memories, and the thread that looks after running plugins.

use crate::bindings::since_v0_1::{clock, log, metrics, random, state};
use crate::defaults::EMBEDDED;
use crate::error::LoadError;
use crate::guest::Guest;
use crate::pulse::Pulse;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate_core::limits::{
    POLICY_DECIDE_TIME_MAX, POLICY_GENERATIONS_MAX, POLICY_INSTANCES_MAX, POLICY_MEMORY_BYTES_MAX,
    POLICY_MEMORY_CONFIG_MAX, POLICY_PLAN_TIME_MAX, POLICY_STACK_BYTES_MAX,
    POLICY_TABLE_ENTRIES_MAX, POLICY_TICK,
};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Instances of one generation; as many as there are threads that ask.
    pub instances: usize,
    /// Memory of one instance, in bytes.
    pub memory_bytes_max: usize,
    /// Time on the clock after which a call for a plan, or for a decision, is looked at.
    pub plan_time_max: Duration,
    pub decide_time_max: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            instances: 2,
            memory_bytes_max: POLICY_MEMORY_BYTES_MAX,
            plan_time_max: POLICY_PLAN_TIME_MAX,
            decide_time_max: POLICY_DECIDE_TIME_MAX,
        }
    }
}

impl Settings {
    fn bounded(self) -> Settings {
        Settings {
            instances: self.instances.clamp(1, POLICY_INSTANCES_MAX),
            memory_bytes_max: self.memory_bytes_max.min(POLICY_MEMORY_CONFIG_MAX),
            ..self
        }
    }
}

/// Reads and compiles plugins in some other place, a process with bounds of its own: compiling takes tens of times a plugin's
/// size in memory, and holds locks that everything which allocates waits for; and what is made to break a reader of types or
/// a compiler ends that process and no other.
///
/// # Safety
/// What `compile` gives becomes machine code of this process. It must be what [`precompile`] wrote, of this very program or of
/// one with the same `engine`, a number that stands for the version of the engine and how it is configured.
pub unsafe trait Compiler: Send + Sync {
    /// What [`encode`] does.
    fn encode(&self, module: &[u8]) -> Result<Vec<u8>, LoadError>;

    fn compile(
        &self,
        settings: Settings,
        engine: u64,
        component: &[u8],
    ) -> Result<Vec<u8>, LoadError>;
}

/// Compiles plugins and holds their memories. Costs a few milliseconds and some megabytes: one a process.
pub struct Engine {
    wasm: wasmtime::Engine,
    pub(crate) linker: Linker<Guest>,
    settings: Settings,
    /// `None`: this process compiles.
    compiler: Option<Arc<dyn Compiler>>,
    pulse: Arc<Pulse>,
    ticker: Option<Ticker>,
}

impl Engine {
    /// An engine, with its thread.
    pub fn new(settings: Settings) -> Result<Engine, LoadError> {
        let settings = settings.bounded();
        let wasm = wasmtime::Engine::new(&config(settings)).map_err(LoadError::engine)?;
        let linker = linker(&wasm).map_err(LoadError::engine)?;
        let ticker = Ticker::start(&wasm).map_err(LoadError::engine)?;
        let pulse = ticker.pulse.clone();
        Ok(Engine { wasm, linker, settings, compiler: None, pulse, ticker: Some(ticker) })
    }

    /// An engine that has its plugins compiled elsewhere.
    pub fn with_compiler(
        settings: Settings,
        compiler: Arc<dyn Compiler>,
    ) -> Result<Engine, LoadError> {
        let mut engine = Engine::new(settings)?;
        engine.compiler = Some(compiler);
        Ok(engine)
    }

    /// The component that a core module with embedded types describes.
    pub(crate) fn encode(&self, module: &[u8]) -> Result<Vec<u8>, LoadError> {
        match &self.compiler {
            // Those that come with the host are no strangers.
            Some(compiler) if !EMBEDDED.iter().any(|own| own.bytes == module) => {
                compiler.encode(module)
            }
            _ => encode(module),
        }
    }

    /// Machine code of a component that was checked.
    pub(crate) fn compile(&self, component: &[u8]) -> Result<Component, LoadError> {
        let compiled = match &self.compiler {
            None => Component::from_binary(&self.wasm, component),
            Some(compiler) => {
                let code = compiler.compile(self.settings, self.compatibility(), component)?;
                // SAFETY: whoever implements `Compiler` warrants that `precompile` for this very engine wrote it. Code of
                // another version or configuration of the engine is an error.
                unsafe { Component::deserialize(&self.wasm, code) }
            }
        };
        compiled.map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    fn compatibility(&self) -> u64 {
        // The same in every process: it begins with fixed keys.
        let mut hasher = DefaultHasher::new();
        self.wasm.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// Whom calls tell that they run.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.stop();
        }
    }
}

/// The component that a valid core module with embedded types describes. Types that are made to may overflow the stack: see
/// [`Compiler`].
pub fn encode(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let encoder = wit_component::ComponentEncoder::default();
    let mut encoder =
        encoder.module(module).map_err(|error| LoadError::Types(format!("{error:#}")))?;
    encoder.encode().map_err(|error| LoadError::Types(format!("{error:#}")))
}

/// What a [`Compiler`] gives back: the machine code of a component, for an engine with these settings.
pub fn precompile(settings: Settings, component: &[u8]) -> Result<Vec<u8>, LoadError> {
    let wasm = wasmtime::Engine::new(&config(settings.bounded())).map_err(LoadError::engine)?;
    let code = wasm.precompile_component(component);
    code.map_err(|error| LoadError::Compile(format!("{error:#}")))
}

fn config(settings: Settings) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false) // saves a third of a microsecond a call
        .epoch_interruption(true)
        .consume_fuel(false)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(POLICY_STACK_BYTES_MAX)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    config
}

/// Room for every instance of every generation that may live, and for components of several core modules.
fn pool(settings: Settings) -> PoolingAllocationConfig {
    const CORE_INSTANCES: u32 = 32; // CPython has 14
    let instances = POLICY_GENERATIONS_MAX.saturating_mul(settings.instances);
    let instances = u32::try_from(instances).unwrap_or(u32::MAX / CORE_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .total_memories(instances)
        .max_memory_size(settings.memory_bytes_max)
        .max_tables_per_component(4)
        .max_tables_per_module(2)
        .total_tables(instances.saturating_mul(4))
        .table_elements(POLICY_TABLE_ENTRIES_MAX)
        .linear_memory_keep_resident(64 << 10);
    pool
}

fn linker(wasm: &wasmtime::Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(wasm);
    log::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    clock::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    random::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    state::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    metrics::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// Counts the engine's epoch while plugins run, so that a call is looked at when its time is over.
struct Ticker {
    pulse: Arc<Pulse>,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Ticker {
    fn start(wasm: &wasmtime::Engine) -> std::io::Result<Ticker> {
        let (waker, woken) = mpsc::sync_channel(1);
        let pulse = Arc::new(Pulse::new(waker));
        let stops = Arc::<AtomicBool>::default();
        let (heeded, stopping) = (pulse.clone(), stops.clone());
        // Weak, since an engine that lives as long as its ticker would live for ever.
        let wasm = wasm.weak();
        let thread = thread::Builder::new().name("policy-ticker".to_owned()).spawn(move || {
            heeded.keep_time(&woken, || match wasm.upgrade() {
                Some(wasm) if !stopping.load(Ordering::Relaxed) => {
                    wasm.increment_epoch();
                    true
                }
                _ => false,
            });
        })?;
        Ok(Ticker { pulse, stops, thread })
    }

    fn stop(self) {
        self.stops.store(true, Ordering::Relaxed);
        self.pulse.rouse();
        // It cannot have panicked, and if it had there would be nothing to do about it here.
        let _ = self.thread.join();
    }
}

/// Ticks after which so much time has surely passed.
pub(crate) fn ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos().div_ceil(POLICY_TICK.as_nanos().max(1));
    u64::try_from(ticks).unwrap_or(u64::MAX / 2).saturating_add(1)
}
