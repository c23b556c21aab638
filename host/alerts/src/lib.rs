//! What is told to people about a cluster in trouble: once, again while it lasts, and when it is over. Decisions and words alone.
//!
//! What is wrong now ([`Finding`]) goes to a [`Ledger`], which says what is to be told; an [`Outbox`] keeps that for one receiver
//! until it has been taken, or is too old; a [`Letter`] is it in the words of each kind of receiver. The shell sends.

mod finding; // what is wrong
mod ledger; // told once, again, and when it is over
mod letter; // in the words of each kind of receiver
mod mail; // as an e-mail
mod outbox; // what waits for one receiver
mod time; // as dates are written

#[cfg(test)]
mod tests;

pub use finding::{Condition, Finding, Severity};
pub use ledger::{ALERTS_MAX, CLEAR_AFTER, Ledger, Occasion, Told};
pub use letter::Letter;
pub use mail::Mail;
pub use outbox::{Failure, LETTER_TIME_MAX, LETTERS_MAX, Outbox};
