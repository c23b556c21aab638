//! Which server of a cluster is its primary, and what is done when it dies: decisions alone.
//!
//! Each server is asked again and again what it is ([`Observation`]), or why it cannot be asked ([`Fault`]). From that the
//! [`Machine`] decides whether statements for the primary are held, whether another server has become primary meanwhile, whether
//! a replica is to be promoted, and which ([`elect`]). The shell performs the [`Action`]s and says how they ended.
//!
//! ```text
//!            a fault that may be its end            replicas miss it, too            promoted
//!  Steady ───────────────────────────────▶ Suspect ────────────────────▶ Fencing ─▶ Promoting ─▶ Adopt
//!    ▲ ◀───────────── it answers ──────────── │                                                   ▲
//!    │                                        └── another server is the primary, on a newer timeline ─┘
//! Unknown (at the start)
//! ```
//!
//! After `Adopt` the shell puts the servers in their new order and begins anew with the [`Memory`].

mod conninfo; // primary_conninfo for another primary
mod elect; // whom to promote
mod external; // Patroni promotes
mod forced; // an operator wants another primary, whatever is lost
mod grants; // what our user must be allowed to do
mod keeper; // a lease in etcd, kept
mod lease; // which of several Tidegates may promote
mod load; // how busy a server's machine is
mod losses; // which acknowledged commits a new primary does not have
mod machine; // what is done
mod member; // what is known of one server
mod observation; // what a server says of itself
mod outliers; // replicas that are slow, or fail
mod policy; // what is configured, and what is kept from one order of servers to the next
mod resync; // replicas that do not follow
mod rising; // another primary
mod slow_start; // replicas that begin to serve reads
mod suspicion; // a primary that may be gone
mod switchover; // an operator wants another primary
mod witness; // do the replicas miss the primary, too?
mod words; // what goes in and out

#[cfg(test)]
mod gates; // several Tidegates with one etcd, many seeds
#[cfg(test)]
mod simulation; // whole clusters with faults, many seeds
#[cfg(test)]
mod tests;

pub use conninfo::{ConninfoError, point_to};
pub use elect::{Elected, Elector, NotEligible, elect};
pub use external::{Leader, Managed, PatroniRole, Request, Word, leader_of};
pub use grants::{Asking, Right, WHO_SQL, grants, missing, quoted, rights_sql};
pub use keeper::{Ask, Keeper, Look, Looked};
pub use lease::{Claim, Lease, LeaseView, Record};
pub use load::{CpuTime, Load, LoadMeter, LoadReading, read_exporter, read_proc};
pub use losses::{Fate, LOG_SAMPLES_MAX, Losses, WrittenLog};
pub use machine::Machine;
pub use observation::{Fault, Observation, Receiver, Role};
pub use outliers::{Change, Ejection, OutlierPolicy, Outliers, Reads, Standings, log_of};
pub use policy::{Fencing, Memory, Mode, Policy};
pub use resync::{Follower, Remedy, ResyncPolicy};
pub use slow_start::SlowStart;
pub use witness::{Testimony, testimony};
pub use words::{Action, Notice, Order, Outsider, Status};
