//! Which server a read uses: replicas that are fresh enough for *this* client, in turn by weight, else the primary.
//!
//! Freshness is told without comparing clocks of machines and without a false lag on an idle primary: the watcher asks the
//! primary where its log ends, and each replica how far it has replayed. A replica that has replayed what the primary had
//! written when it was asked at `t` shows every commit that was acknowledged before `t`: it is *fresh as of `t`*
//! ([`freshness`]). So read-your-writes needs no extra round trip: a read may use a replica that is fresh as of the
//! session's last write.

mod choice; // replica or primary, for one read
pub mod freshness; // as of when a replica shows everything
mod read; // is a statement nothing but a read?
mod rotation; // smooth weighted round-robin
mod shares; // weights of a policy, as a rotation takes them

pub use choice::{Choice, Place, ReadFacts, ReplicaView, WhyPrimary, choose, is_shown};
pub use freshness::{Freshness, LagGate, Lsn};
pub use read::{NotARead, judge_read};
pub use rotation::{Rotation, WEIGHT_MAX};
pub use shares::shares;
