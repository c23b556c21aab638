//! One client's protocol state machine.

pub mod login; // from the first byte to AuthenticationOk
