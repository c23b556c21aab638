//! A new generation is asked about a few statements before it answers for anybody.

use crate::ask::Question;
use crate::bindings::since_v0_1::index::Batch;
use crate::bindings::since_v0_1::types::Identity;
use crate::fault::Fault;
use crate::generation::Generation;
use tidegate_core::policy::{ReplicaMetrics, Slot};
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, Effects, Family, Fingerprint, Shape, ShapeKind, TableUse,
};

const REPLICAS: [&str; 2] = ["replica-1", "replica-2"];

impl Generation {
    /// Asks what the host will ask: a read, a write and something unknown, and about two replicas.
    ///
    /// # Errors
    /// The first call that gave no usable answer.
    pub fn rehearse(&self) -> Result<(), Fault> {
        let read = sample(ShapeKind::Select, Access::Reads, "SELECT a FROM t WHERE id = $1");
        let write = sample(ShapeKind::Update, Access::Writes, "UPDATE t SET a = $1 WHERE id = $2");
        let unknown = sample(ShapeKind::Unknown, Access::Unknown, "");
        for shape in [&read, &write, &unknown] {
            let question = Question { shape, tags: &[] };
            match self.slot() {
                Slot::Routing => drop(self.plan_route(question, &REPLICAS)?),
                Slot::Caching => {
                    self.plan_cache(question)?;
                    self.plan_invalidate(question)?;
                }
                Slot::Limiting => drop(self.plan_limit(question, &somebody())?),
                Slot::Advising => {}
            }
        }
        match self.slot() {
            Slot::Routing => drop(self.weigh(&REPLICAS.map(replica))?),
            Slot::Advising => drop(self.advise(&nothing_slow())?),
            Slot::Caching | Slot::Limiting => {}
        }
        Ok(())
    }
}

fn sample(kind: ShapeKind, access: Access, normalized: &str) -> Shape {
    let id = ColumnUse {
        column: "id".into(),
        comparison: Comparison::Equal,
        by: By::Parameter(1),
        always: true,
    };
    let table = TableUse { schema: None, name: "t".into(), access, columns: vec![id] };
    let is_known = kind != ShapeKind::Unknown;
    Shape {
        fingerprint: Fingerprint(kind as u128 + 1),
        family: Family(kind as u128 + 1),
        normalized: normalized.into(),
        kind,
        access,
        locks: false,
        effects: Effects::default(),
        tables: if is_known { vec![table] } else { Vec::new() },
        columns: Vec::new(),
        functions: Vec::new(),
        parameters: if is_known { 2 } else { 0 },
        literal_dependent: false,
        incomplete: None,
    }
}

fn replica(name: &str) -> ReplicaMetrics {
    ReplicaMetrics {
        name: name.into(),
        healthy: true,
        cpu_percent: Some(50.0),
        response_ms: Some(1.0),
        lag: None,
        active: 1,
        base_weight: 100.0,
    }
}

fn somebody() -> Identity {
    Identity {
        user: "user".to_owned(),
        database: "database".to_owned(),
        application: String::new(),
        end_user: None,
        roles: Vec::new(),
        tags: Vec::new(),
    }
}

fn nothing_slow() -> Batch {
    Batch { shapes: Vec::new(), tables: Vec::new() }
}
