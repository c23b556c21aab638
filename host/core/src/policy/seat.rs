//! Who answers in a slot: the active version, the one before it, and a candidate on trial.

use super::canary::Share;
use std::sync::Arc;

/// A version of a policy.
pub trait Version {
    /// Unique among all versions.
    fn number(&self) -> u64;
    /// Not in quarantine.
    fn is_good(&self) -> bool;
}

/// How a candidate is tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is asked beside the active version for a share of what is asked; its answers are only compared.
    Shadow(Share),
    /// Its answers count for a share of sessions.
    Canary(Share),
}

/// Why an order cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatError {
    NoCandidate,
    NoPrevious,
    /// The version to put in place is in quarantine.
    Quarantined,
}

impl std::fmt::Display for SeatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SeatError::NoCandidate => "there is no candidate",
            SeatError::NoPrevious => "there is no previous version",
            SeatError::Quarantined => "that version is in quarantine",
        })
    }
}

/// ```text
/// activate: active -> previous, new -> active          promote: the same with the candidate
/// roll_back: active <-> previous                        disable: active -> previous, the host answers itself
/// quarantine: of the active: previous -> active         of the candidate: it goes
/// ```
///
/// A version in quarantine never becomes active, and is not kept as the previous one.
///
/// getters: `active`, `previous`, `candidate`; commands: the rest.
#[derive(Debug)]
pub struct Seat<V> {
    active: Option<Arc<V>>,
    previous: Option<Arc<V>>,
    candidate: Option<(Arc<V>, Mode)>,
}

impl<V> Clone for Seat<V> {
    fn clone(&self) -> Self {
        let Seat { active, previous, candidate } = self;
        Seat { active: active.clone(), previous: previous.clone(), candidate: candidate.clone() }
    }
}

impl<V> Default for Seat<V> {
    fn default() -> Self {
        Seat { active: None, previous: None, candidate: None }
    }
}

impl<V: Version> Seat<V> {
    pub fn active(&self) -> Option<&Arc<V>> {
        self.active.as_ref()
    }

    pub fn previous(&self) -> Option<&Arc<V>> {
        self.previous.as_ref()
    }

    pub fn candidate(&self) -> Option<(&Arc<V>, Mode)> {
        self.candidate.as_ref().map(|(version, mode)| (version, *mode))
    }

    /// The version of this number, if it is still here.
    pub fn version(&self, number: u64) -> Option<&Arc<V>> {
        let candidate = self.candidate.as_ref().map(|(version, _)| version);
        let all = self.active.iter().chain(candidate).chain(&self.previous);
        all.into_iter().find(|version| version.number() == number)
    }

    /// Puts a version in place.
    pub fn activate(&mut self, version: Arc<V>) -> Result<(), SeatError> {
        if !version.is_good() {
            return Err(SeatError::Quarantined);
        }
        let old = self.active.replace(version);
        self.keep(old);
        Ok(())
    }

    /// Tries a version out, in place of the candidate there was.
    pub fn try_out(&mut self, version: Arc<V>, mode: Mode) -> Result<(), SeatError> {
        if !version.is_good() {
            return Err(SeatError::Quarantined);
        }
        self.candidate = Some((version, mode));
        Ok(())
    }

    /// Puts the candidate in place.
    pub fn promote(&mut self) -> Result<(), SeatError> {
        let (version, mode) = self.candidate.take().ok_or(SeatError::NoCandidate)?;
        let promoted = self.activate(Arc::clone(&version));
        if promoted.is_err() {
            self.candidate = Some((version, mode));
        }
        promoted
    }

    /// Ends the candidate's trial.
    pub fn withdraw(&mut self) -> Result<Arc<V>, SeatError> {
        self.candidate.take().map(|(version, _)| version).ok_or(SeatError::NoCandidate)
    }

    /// Puts the previous version in place again.
    pub fn roll_back(&mut self) -> Result<(), SeatError> {
        let previous = self.previous.as_ref().ok_or(SeatError::NoPrevious)?;
        if !previous.is_good() {
            return Err(SeatError::Quarantined);
        }
        let previous = self.previous.take();
        let old = std::mem::replace(&mut self.active, previous);
        self.keep(old);
        Ok(())
    }

    /// The host answers itself from now on.
    pub fn disable(&mut self) {
        let old = self.active.take();
        self.keep(old);
    }

    /// Takes a version out for good. Returns whether it answered until now.
    pub fn quarantine(&mut self, number: u64) -> bool {
        let is_it = |version: &Arc<V>| version.number() == number;
        if self.candidate.as_ref().is_some_and(|(version, _)| is_it(version)) {
            self.candidate = None;
        }
        if self.previous.as_ref().is_some_and(is_it) {
            self.previous = None;
        }
        let was_active = self.active.as_ref().is_some_and(is_it);
        if was_active {
            self.active = self.previous.take().filter(|version| version.is_good());
        }
        was_active
    }

    fn keep(&mut self, old: Option<Arc<V>>) {
        if let Some(old) = old.filter(|version| version.is_good()) {
            self.previous = Some(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug)]
    struct Fake {
        number: u64,
        is_good: AtomicBool,
    }

    impl Fake {
        fn new(number: u64) -> Arc<Fake> {
            Arc::new(Fake { number, is_good: AtomicBool::new(true) })
        }
    }

    impl Version for Fake {
        fn number(&self) -> u64 {
            self.number
        }
        fn is_good(&self) -> bool {
            self.is_good.load(Ordering::Relaxed)
        }
    }

    fn shadow() -> Mode {
        Mode::Shadow(Share::percent(10).unwrap())
    }

    fn numbers(seat: &Seat<Fake>) -> (Option<u64>, Option<u64>, Option<u64>) {
        let number = |version: Option<&Arc<Fake>>| version.map(|v| v.number);
        let candidate = seat.candidate().map(|(version, _)| version);
        (number(seat.active()), number(seat.previous()), number(candidate))
    }

    #[test]
    fn the_previous_good_version_comes_back() {
        let mut seat = Seat::default();
        let (one, two) = (Fake::new(1), Fake::new(2));
        seat.activate(one.clone()).unwrap();
        seat.activate(two.clone()).unwrap();
        assert_eq!(numbers(&seat), (Some(2), Some(1), None));
        two.is_good.store(false, Ordering::Relaxed);
        assert!(seat.quarantine(2));
        assert_eq!(numbers(&seat), (Some(1), None, None));
        one.is_good.store(false, Ordering::Relaxed);
        assert!(seat.quarantine(1) && !seat.quarantine(1));
        assert_eq!(numbers(&seat), (None, None, None));
        assert_eq!(seat.activate(two), Err(SeatError::Quarantined));
    }

    #[test]
    fn a_candidate_is_promoted_or_withdrawn() {
        let mut seat = Seat::default();
        seat.activate(Fake::new(1)).unwrap();
        seat.try_out(Fake::new(2), shadow()).unwrap();
        seat.promote().unwrap();
        assert_eq!(numbers(&seat), (Some(2), Some(1), None));
        assert_eq!(seat.promote(), Err(SeatError::NoCandidate));
        seat.roll_back().unwrap();
        assert_eq!(numbers(&seat), (Some(1), Some(2), None));
        seat.disable();
        assert_eq!(numbers(&seat), (None, Some(1), None));
        seat.roll_back().unwrap();
        assert_eq!(seat.roll_back(), Err(SeatError::NoPrevious));
        assert_eq!(numbers(&seat), (Some(1), None, None));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Activate,
        TryOut,
        Promote,
        Withdraw,
        RollBack,
        Disable,
        /// Of one of the versions made so far.
        Quarantine(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Activate),
            2 => Just(Step::TryOut),
            1 => Just(Step::Promote),
            1 => Just(Step::Withdraw),
            2 => Just(Step::RollBack),
            1 => Just(Step::Disable),
            2 => any::<usize>().prop_map(Step::Quarantine),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_version_in_quarantine_answers_nobody(steps in prop::collection::vec(step(), 1..60)) {
            let mut seat = Seat::default();
            let mut made: Vec<Arc<Fake>> = Vec::new();
            for step in steps {
                let next = Fake::new(made.len() as u64);
                // Orders that cannot be followed change nothing.
                let before = numbers(&seat);
                let result = match step {
                    Step::Activate => {
                        made.push(next.clone());
                        seat.activate(next)
                    }
                    Step::TryOut => {
                        made.push(next.clone());
                        seat.try_out(next, shadow())
                    }
                    Step::Promote => seat.promote(),
                    Step::Withdraw => seat.withdraw().map(drop),
                    Step::RollBack => seat.roll_back(),
                    Step::Disable => {
                        seat.disable();
                        Ok(())
                    }
                    Step::Quarantine(index) => {
                        if let Some(version) = made.get(index % made.len().max(1)) {
                            version.is_good.store(false, Ordering::Relaxed);
                            seat.quarantine(version.number);
                        }
                        Ok(())
                    }
                };
                prop_assert!(result.is_ok() || numbers(&seat) == before);
                let candidate = seat.candidate().map(|(version, _)| version);
                let all = [seat.active(), seat.previous(), candidate];
                let here: Vec<&Arc<Fake>> = all.into_iter().flatten().collect();
                prop_assert!(here.iter().all(|version| version.is_good()));
                let mut unique: Vec<u64> = here.iter().map(|version| version.number).collect();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), here.len());
            }
        }
    }
}
