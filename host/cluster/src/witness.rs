//! Do the replicas miss the primary, too? Their own connections to it are a witness that our network cannot fake.

use super::observation::{Observation, Receiver, Role};

/// What the replicas that answer say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Testimony {
    /// At least half of those that were there before, and at least one, have lost it, and none receives from it.
    Gone,
    /// Some still receive from it: it is only we who cannot reach it.
    Streaming,
    /// Too few answer.
    TooFew,
    /// What they receive may not be seen.
    Hidden,
}

impl Testimony {
    pub fn label(self) -> &'static str {
        match self {
            Self::Gone => "the replicas have lost it, too",
            Self::Streaming => "replicas still receive from it, so only Tidegate cannot reach it",
            Self::TooFew => "too few replicas answer to confirm it",
            Self::Hidden => {
                "the replicas do not show whether they receive from it: GRANT pg_monitor to Tidegate's user"
            }
        }
    }
}

/// Judges from what was heard since the primary is suspected, of replicas that were well before: `None` for each that has not
/// answered since.
pub fn testimony<'a>(
    known: impl IntoIterator<Item = Option<&'a Observation>>,
    timeline: u32,
) -> Testimony {
    let (mut all, mut gone, mut hidden) = (0_usize, 0_usize, 0_usize);
    for answer in known {
        all += 1;
        match answer.map(|seen| (&seen.role, seen.timeline)) {
            Some((Role::Replica { receiver: Receiver::Streaming, .. }, of)) if of >= timeline => {
                return Testimony::Streaming;
            }
            Some((Role::Replica { receiver: Receiver::Hidden, .. }, _)) => hidden += 1,
            Some(_) => gone += 1,
            None => {}
        }
    }
    match (gone, hidden) {
        (1.., _) if gone * 2 >= all => Testimony::Gone,
        (_, 1..) => Testimony::Hidden,
        _ => Testimony::TooFew,
    }
}
