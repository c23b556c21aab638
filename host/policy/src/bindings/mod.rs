//! WIT in Rust: one module for each released minor version, and the way from there to core's plain data.

mod answers; // what a plugin answered → core's plans
pub(crate) mod questions; // core's plain data → what a plugin is asked
pub mod since_v0_1;
