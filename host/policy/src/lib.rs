//! Policies as WebAssembly plugins: loads them, asks them within bounds, swaps them, and does without them.
//!
//! What an answer may say and what the host makes of it is `tidegate_core::policy`; here is the sandbox around it.
//! Nothing here waits for a socket or a disk, and every call ends within the time of its kind.

mod answer; // questions to a slot, with the built-in answer behind them
mod ask; // the questions
mod bench; // what a plugin costs
pub mod bindings; // WIT in Rust, one module a version
mod component; // bytes → checked and compiled
mod defaults; // the embedded plugins
mod engine; // wasmtime with a pool, and the ticker
mod error; // why a plugin is not taken
mod event; // what happens, for logs, metrics and alerts
mod fault; // what went wrong in a call
mod generation; // a plugin with settings: instances, counts
mod granted; // what a slot's plugins share at the host
mod guest; // the host's side of what plugins may call
mod instance; // one store
mod locks; // locking what threads share
mod plan; // what a plugin of any slot plans
mod pulse; // whether plugins run
mod registry; // slots: active, previous, candidate; swaps
mod rehearsal; // a new generation is asked before it answers for anybody
pub mod samples; // what plugins are tried with
pub mod toolchain; // which cargo makes WebAssembly
mod trial; // what is seen of a candidate
mod wasi; // WASI without authority
mod watch; // CPU time, memory, host calls and handles

pub use answer::{Answer, AnswerSource, Asker};
pub use ask::{Execution, Question};
pub use bench::{Bench, Measured, Timing, What, bench};
pub use bindings::questions::tags as tags_told;
pub use defaults::{EMBEDDED, Embedded, embedded};
pub use engine::{Compiler, Engine, Settings, encode, precompile};
pub use error::LoadError;
pub use event::{Event, Level, MetricKind, Silence, Sink};
pub use fault::Fault;
pub use generation::{Generation, PLAN_TIMES, Source};
pub use granted::Granted;
pub use plan::{Decision, Plan, Subject};
pub use registry::{Change, ChangeError, Reader, Registry, SlotView, View};
pub use rehearsal::Unfit;
pub use trial::{Difference, Outcome, Side, Trial};

#[cfg(test)]
mod tests;
