//! Configuration: as written, as checked, and what is wrong with it.

pub mod checked; // what the rest of the program sees
pub mod docs; // pages generated from tables
pub mod users; // the users file

pub use checked::*;
pub use users::{UserSecret, Users};
