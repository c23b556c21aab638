//! A worker's knowledge of where statements may run: the newest view, whose turn it is, what texts are.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::plan::Router;
use tidegate_core::route::{Choice, ReadFacts, Rotation, choose, judge_read};
use tidegate_core::statement::{ShapeCache, StringSyntax, TextEncoding, TextSettings};
use tidegate_grammar::PostgresGrammar;
use tokio::sync::watch;

use crate::view::{View, Views};

/// One worker's.
pub struct Routing {
    views: watch::Receiver<Arc<View>>,
    view: Arc<View>,
    rotation: Rotation,
    weights: Vec<u32>,
    shapes: ShapeCache<PostgresGrammar>,
}

impl Routing {
    /// `seed` is the process's, for fingerprints.
    pub fn new(views: &Views, seed: u128) -> Self {
        let views = views.subscribe();
        let view = views.borrow().clone();
        Self {
            views,
            view,
            rotation: Rotation::default(),
            weights: Vec::new(),
            shapes: ShapeCache::new(PostgresGrammar, seed, SHAPE_CACHE_BYTES_MAX),
        }
    }

    /// Which replica a read of this session may use.
    pub fn choose(&mut self, facts: &ReadFacts) -> Choice {
        self.refresh();
        choose(&self.view.replicas, facts, &mut self.rotation, &mut self.weights)
    }

    /// The router for a client's texts. `schema` counts the changes of schemas that have passed.
    pub fn of<'a>(&'a mut self, database: &'a str, schema: u64) -> DatabaseRouter<'a> {
        self.refresh();
        DatabaseRouter { routing: self, database, schema }
    }

    fn refresh(&mut self) {
        // An atomic read, unless there is something new.
        if self.views.has_changed().unwrap_or(false) {
            self.view = self.views.borrow_and_update().clone();
        }
    }
}

/// A worker's knowledge, about one database.
pub struct DatabaseRouter<'a> {
    routing: &'a mut Routing,
    database: &'a str,
    schema: u64,
}

impl Router for DatabaseRouter<'_> {
    fn splits(&self) -> bool {
        !self.routing.view.replicas.is_empty()
    }

    fn reads(&mut self, sql: &[u8], strings: StringSyntax) -> bool {
        let routing = &mut *self.routing;
        let Some(known) = routing.view.catalogues.get(self.database) else { return false };
        if known.schema != self.schema {
            // A change has passed that this catalogue does not show yet.
            return false;
        }
        // The session asks about texts of other encodings only where these make no difference.
        let settings = TextSettings { strings, encoding: TextEncoding::Utf8 };
        let text = routing.shapes.shape_of(sql, settings, Instant::now());
        judge_read(&text.shape, &known.catalogue).is_ok()
    }
}
