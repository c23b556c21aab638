//! What policies answer, as plain data, and what the host makes of it: checks, the built-in answers, faults, canaries.
//!
//! A plugin can choose, never act, and it cannot choose against correctness. Everything here is pure; the sandbox
//! that runs plugins is `tidegate-policy`.
//!
//! An answer passes two gates. *Sense*: `check` of each type refuses what no honest plugin says; such an answer is a
//! counted fault and the built-in answer stands in. *Right*: what is left is bound by what the host knows, such as
//! [`RoutePlan::bind`], which sends whatever may write to the primary.

pub mod builtin; // the answers without a plugin
pub mod cache; // CachePlan
pub mod canary; // shares of sessions, and when to give a candidate up
pub mod faults; // kinds of faults, and when they are too many
pub mod index; // Suggestion
pub mod limit; // LimitPlan
pub mod log; // how much a policy may log
pub mod plans; // answers kept by shape and generation
pub mod route; // RoutePlan, weights, decisions
pub mod seat; // the active version, the previous one, and a candidate
pub mod state; // values that a policy keeps at the host
pub mod template; // texts with `{user}` or `{1}` in them

pub use cache::{CachePlan, CacheRule, KeyPart, Tier};
pub use index::Suggestion;
pub use limit::{Bucket, LimitPlan, OverLimit, Scope};
pub use route::{ReplicaMetrics, ReplicaRule, RoutePlan, RouteTarget, Safety, Weight};
pub use template::Template;

/// A kind of policy: one WIT world, and one place in the host where such a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    Routing,
    Caching,
    Limiting,
    Advising,
}

impl Slot {
    pub const ALL: [Slot; 4] = [Slot::Routing, Slot::Caching, Slot::Limiting, Slot::Advising];

    /// The world's name in WIT, the metric label, and the word in addresses of the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Routing => "routing",
            Slot::Caching => "caching",
            Slot::Limiting => "limiting",
            Slot::Advising => "advising",
        }
    }

    /// The interface that a policy of this kind exports besides `lifecycle`.
    pub fn interface(self) -> &'static str {
        match self {
            Slot::Routing => "route",
            Slot::Caching => "cache",
            Slot::Limiting => "limit",
            Slot::Advising => "index",
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }

    /// The slot that [`Slot::name`] calls so.
    pub fn named(name: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.name() == name)
    }
}

/// The number a plan gives so that `decide` knows what it is asked about.
pub type AskId = u32;

/// An answer that no honest plugin gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// More entries than the host takes.
    TooMany { what: &'static str, most: usize },
    /// A text that is empty, longer than the host takes, or holds control characters.
    BadText { what: &'static str },
    /// A number outside its range, or none at all.
    OutOfRange { what: &'static str },
    /// A replica that does not exist.
    UnknownReplica(Box<str>),
    /// The same name twice.
    Twice { what: &'static str },
    /// A placeholder that means nothing here.
    BadTemplate(template::Problem),
    /// A number that stands for nothing.
    UnknownDecision(i64),
}

impl std::fmt::Display for Nonsense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Nonsense::TooMany { what, most } => write!(f, "more than {most} {what}"),
            Nonsense::BadText { what } => {
                write!(f, "{what} is empty, too long, or holds control characters")
            }
            Nonsense::OutOfRange { what } => write!(f, "{what} is out of range"),
            Nonsense::UnknownReplica(name) => write!(f, "there is no replica {name:?}"),
            Nonsense::Twice { what } => write!(f, "the same {what} twice"),
            Nonsense::BadTemplate(problem) => write!(f, "{problem}"),
            Nonsense::UnknownDecision(number) => write!(f, "decision {number} means nothing"),
        }
    }
}

/// Refuses lists that are too long.
fn at_most(count: usize, most: usize, what: &'static str) -> Result<(), Nonsense> {
    if count > most { Err(Nonsense::TooMany { what, most }) } else { Ok(()) }
}

/// Refuses texts that would not fit into a log line, a metric label or an error.
fn is_text(text: &str, bytes_max: usize, what: &'static str) -> Result<(), Nonsense> {
    let good = !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Nonsense::BadText { what }) }
}
