//! The sandbox of a running Tidegate, for tools: one instance, nothing logged.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::policy::Slot;
use tidegate_core::statement::{Shape, ShapeCache, Tags, TextSettings};
use tidegate_grammar::PostgresGrammar;
use tidegate_policy::{Engine, Generation, Granted, Settings, Silence, Source};

/// An engine, with what it grants to the plugins of one slot.
pub(super) struct Sandbox {
    pub(super) engine: Arc<Engine>,
    pub(super) granted: Arc<Granted>,
}

impl Sandbox {
    /// # Errors
    /// The engine can't be made.
    pub(super) fn new(slot: Slot) -> Result<Self, String> {
        let engine = Engine::new(Settings { instances: 1, ..Settings::default() });
        Ok(Self {
            engine: Arc::new(engine.map_err(|error| error.to_string())?),
            granted: Arc::new(Granted::new(slot, 1, Arc::new(Silence))),
        })
    }

    /// Loads a plugin as an upload would.
    ///
    /// # Errors
    /// The check that failed, and why.
    pub(super) fn load(
        &self,
        slot: Slot,
        bytes: &[u8],
        settings: &str,
    ) -> Result<Generation, String> {
        let source = Source { slot, bytes, settings };
        Generation::load(&self.engine, &self.granted, source)
            .map_err(|error| format!("{}: {error}", error.check()))
    }
}

/// Reads texts as the data plane does.
pub(super) struct Reader(ShapeCache<PostgresGrammar>);

/// A statement as policies see it.
pub(super) struct Statement {
    pub(super) shape: Arc<Shape>,
    pub(super) tags: Vec<(String, String)>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self(ShapeCache::new(PostgresGrammar, 1, SHAPE_CACHE_BYTES_MAX))
    }

    pub(super) fn read(&mut self, sql: &str) -> Statement {
        let text = self.0.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now());
        let tags = Tags::read(sql.as_bytes(), text.begin, text.end);
        let told = tags.iter().filter(|(key, _)| crate::view::TAGS_TOLD.contains(key));
        let tags = told.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Statement { shape: text.shape, tags }
    }
}

impl Statement {
    /// The tags as a question has them.
    pub(super) fn told(&self) -> Vec<(&str, &str)> {
        self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

impl From<Shape> for Statement {
    fn from(shape: Shape) -> Self {
        Self { shape: Arc::new(shape), tags: Vec::new() }
    }
}
