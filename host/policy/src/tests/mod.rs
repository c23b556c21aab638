//! Plugins in the real sandbox.

mod defaults; // the embedded policies
mod hostile; // plugins that misbehave, each in its own way
mod refused; // files that are no plugins
mod swaps; // the registry while it is asked
mod tools; // what a plugin costs, and plans of any slot
mod wasi; // what of WASI there is

use crate::{
    Asker, Engine, Event, Generation, Granted, LoadError, Question, Registry, Settings, Sink,
    Source, View,
};
use std::sync::{Arc, Mutex, OnceLock};
use tidegate_core::policy::Slot;
use tidegate_core::policy::route::ReplicaMetrics;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, Family, Fingerprint, Shape, ShapeKind, TableUse,
};

/// One engine for all tests: it has room for many generations.
fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        Arc::new(Engine::new(Settings { instances: 16, ..Settings::default() }).unwrap())
    })
}

macro_rules! hostile {
    ($name:literal) => {
        include_bytes!(concat!(env!("TIDEGATE_PLUGINS_BUILT"), "/hostile_", $name, ".wasm"))
    };
}

const HOSTILE_ROUTING: &[u8] = hostile!("routing");
const HOSTILE_CACHING: &[u8] = hostile!("caching");

/// Keeps every event as text.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Sink for Notes {
    fn handle(&self, slot: Slot, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{} {event:?}", slot.name()));
    }
}

impl Notes {
    fn with(&self, word: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|note| note.contains(word)).cloned().collect()
    }
}

fn load_with(sink: Arc<Notes>, source: Source<'_>) -> Result<Generation, LoadError> {
    let granted = Arc::new(Granted::new(source.slot, 1, sink));
    Generation::load(engine(), &granted, source)
}

fn load(slot: Slot, bytes: &[u8], settings: &str) -> Result<Generation, LoadError> {
    load_with(Arc::default(), Source { slot, bytes, settings })
}

fn registry() -> (Registry, Arc<Notes>) {
    let notes = Arc::<Notes>::default();
    let sink: Arc<dyn Sink> = notes.clone();
    (Registry::new(Arc::clone(engine()), 1, &sink), notes)
}

fn asker(view: &View) -> Asker<'_> {
    Asker { view, session: 1 }
}

fn question(shape: &Shape) -> Question<'_> {
    Question { shape, tags: &[] }
}

fn replica(name: &str, cpu: f64, ms: f64) -> ReplicaMetrics {
    ReplicaMetrics {
        name: name.into(),
        healthy: true,
        cpu_percent: Some(cpu),
        response_ms: Some(ms),
        lag: None,
        active: 0,
        base_weight: 100.0,
    }
}

fn shape(kind: ShapeKind, access: Access, tables: Vec<TableUse>) -> Shape {
    Shape {
        fingerprint: Fingerprint(0x1234_5678_9abc_def0_0fed_cba9_8765_4321),
        family: Family(1),
        normalized: format!("{kind:?}").into(),
        kind,
        access,
        locks: false,
        tables,
        columns: Vec::new(),
        functions: Vec::new(),
        parameters: 1,
        literal_dependent: false,
        incomplete: None,
    }
}

fn table(name: &str, access: Access) -> TableUse {
    TableUse { schema: None, name: name.into(), access, columns: vec![by("id", Comparison::Equal)] }
}

fn by(column: &str, comparison: Comparison) -> ColumnUse {
    ColumnUse { column: column.into(), comparison, by: By::Parameter(1), always: true }
}

fn select(name: &str) -> Shape {
    shape(ShapeKind::Select, Access::Reads, vec![table(name, Access::Reads)])
}

fn update(name: &str) -> Shape {
    shape(ShapeKind::Update, Access::Writes, vec![table(name, Access::Writes)])
}
