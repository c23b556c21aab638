//! What may happen in a search, and which rule is left out.

/// A rule that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mutant {
    #[default]
    None,
    /// What could not be told is not waited for.
    WaitsForNobody,
    /// Answers are served whoever is silent.
    ServesAlone,
    /// A process that comes back leaves what was kept.
    LeavesAnswers,
    /// Nor marks what it has under way.
    ForgetsFlights,
    /// No marks at all.
    NoMarks,
    /// A commit is told before it is sent.
    EndsFirst,
    /// Its client hears before the others do; nor are there marks, which would still hold everything back.
    AcknowledgesFirst,
    /// Versions are taken when the answer is there.
    VersionsAfterTheRead,
    /// Versions are counted, from one again after everything is lost.
    VersionsRepeat,
    /// A beat tells the number that it draws itself.
    TellsItsOwnNumber,
    /// Numbers begin anew, and what members have told of the old ones stays.
    KeepsMembers,
    /// What others rely on is changed at once.
    WaitsForNoReliance,
    /// Whoever comes back commits at once.
    ComesBackAtOnce,
    /// What is shared is used in another place as soon as it is found there.
    MovesAtOnce,
    /// What is not there, or was put there anew, nobody relies on.
    TrustsWhatIsNew,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Setup {
    pub(super) mutant: Mutant,
    pub(super) writes: u8,
    pub(super) reads: u8,
    /// How often each process may lose its connection.
    pub(super) losses: [u8; 2],
    /// Redis may forget everything; but for the answer, which is in the reader's memory, too.
    pub(super) wipes: u8,
    /// Redis may go back to what it was at the beginning.
    pub(super) restores: u8,
    /// A replica of Redis may be promoted while the primary goes on.
    pub(super) splits: u8,
    /// In ticks: how long the reader relies on versions that it was told.
    pub(super) reliance: u64,
}
