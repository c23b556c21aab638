//! A warning when a pool is nearly used up, with hysteresis so that it does not flap (property 15).

use tidegate_core::limits::{POOL_UTILISATION_CLEAR_PERCENT, POOL_UTILISATION_WARN_PERCENT};

/// What there is to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    /// Utilisation rose above the warning threshold; the peak since, in percent.
    High { percent: u32 },
    /// It fell below the clearing threshold; the present value, in percent.
    Normal { percent: u32 },
}

/// `Normal -- above 80 % --> High -- below 70 % --> Normal`.
///
/// A peak between two polls is kept and reported, since a pool may fill and empty within a
/// millisecond.
#[derive(Clone, Debug, Default)]
pub struct Utilisation {
    percent: u32,
    /// The highest value since the warning threshold was crossed and not yet cleared by a report.
    peak: Option<u32>,
    reported: Level,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Level {
    #[default]
    Normal,
    High,
}

impl Utilisation {
    pub fn percent(&self) -> u32 {
        self.percent
    }

    /// `used` of `size` connections are in use now.
    #[inline]
    pub fn observe(&mut self, used: usize, size: usize) {
        self.percent = (used * 100 / size.max(1)).min(u32::MAX as usize) as u32;
        // The exact comparison, so that 80.5 % of 200 counts as above 80 %.
        if used * 100 > POOL_UTILISATION_WARN_PERCENT as usize * size {
            self.peak = Some(self.peak.map_or(self.percent, |peak| peak.max(self.percent)));
        }
    }

    pub fn poll(&mut self) -> Option<Crossing> {
        match (self.reported, self.peak) {
            (Level::Normal, Some(peak)) => {
                self.reported = Level::High;
                Some(Crossing::High { percent: peak })
            }
            (Level::High, _) if self.percent < POOL_UTILISATION_CLEAR_PERCENT => {
                self.reported = Level::Normal;
                self.peak = None;
                Some(Crossing::Normal { percent: self.percent })
            }
            _ => None,
        }
    }
}
