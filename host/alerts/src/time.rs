//! Moments as RFC 3339 and RFC 5322 write them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Date {
    year: u64,
    /// From 1.
    month: usize,
    day: u64,
    weekday: &'static str,
    hour: u64,
    minute: u64,
    second: u64,
}

/// The civil date of days since 1970-01-01, by Howard Hinnant's `civil_from_days`.
fn date(at: SystemTime) -> Date {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // From the first of March of the year 0.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    Date {
        year: era * 400 + year_of_era + u64::from(month <= 2),
        month: usize::try_from(month).unwrap_or(1),
        day,
        weekday: DAYS.get(usize::try_from(days % 7).unwrap_or_default()).copied().unwrap_or("Thu"),
        hour: of_day / 3_600,
        minute: of_day / 60 % 60,
        second: of_day % 60,
    }
}

/// `2026-11-30T07:16:57Z`.
pub(crate) fn rfc_3339(at: SystemTime) -> String {
    let Date { year, month, day, hour, minute, second, .. } = date(at);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `Mon, 30 Nov 2026 07:16:57 +0000`.
pub(crate) fn rfc_5322(at: SystemTime) -> String {
    let Date { year, month, day, weekday, hour, minute, second } = date(at);
    let month = MONTHS.get(month - 1).copied().unwrap_or("Jan");
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
}
