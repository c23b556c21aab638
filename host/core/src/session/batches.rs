//! Which batch is being sent, and which are over.

/// Counts batches: what ends with a ReadyForQuery. A batch that fails takes back what it named, so what an earlier batch
/// did to a name is uncertain for the next until its ReadyForQuery has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batches {
    /// The one that is being sent.
    pub(super) now: u32,
    /// The oldest that is not over.
    pub(super) over: u32,
}

impl Batches {
    pub(super) fn is_uncertain(self, batch: u32) -> bool {
        (1..=self.now.wrapping_sub(self.over)).contains(&self.now.wrapping_sub(batch))
    }

    /// A batch that is certainly over.
    pub(super) fn past(self) -> u32 {
        self.over.wrapping_sub(1)
    }

    /// Batches that are not over.
    pub(super) fn outstanding(self) -> u32 {
        self.now.wrapping_sub(self.over)
    }

    pub(super) fn sent(&mut self) {
        self.now = self.now.wrapping_add(1);
    }

    pub(super) fn ended(&mut self, count: u32) {
        self.over = self.over.wrapping_add(count);
    }
}
