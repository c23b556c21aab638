//! Cancel keys: what a client was told at login, and whom it leads to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use subtle::ConstantTimeEq as _;
use tidegate_core::ids::ClientId;

/// Bytes of a cancel secret (protocol 3.0 has room for no more).
pub const SECRET_BYTES: usize = 4;

/// Where a cancel request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub worker: usize,
    pub client: ClientId,
}

/// The keys of all connected clients, shared by the workers. Touched at connect, disconnect and cancel only.
#[derive(Debug, Default)]
pub struct CancelKeys {
    keys: Mutex<HashMap<i32, ([u8; SECRET_BYTES], Holder)>>,
}

/// Draws of a process id before we give up: with a million clients one draw in two thousand collides.
const DRAWS_MAX: usize = 16;

impl CancelKeys {
    /// Draws a fresh key for the client. `None` when the system has no random numbers.
    pub fn issue(&self, holder: Holder) -> Option<(i32, [u8; SECRET_BYTES])> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DRAWS_MAX {
            let mut random = [0_u8; 4 + SECRET_BYTES];
            getrandom::fill(&mut random).ok()?;
            let (pid, secret) = random.split_first_chunk::<4>()?;
            // Positive like a process id: some drivers print it, some parse it.
            let pid = i32::from_be_bytes(*pid) & i32::MAX;
            let secret: [u8; SECRET_BYTES] = secret.try_into().ok()?;
            if pid != 0 && !keys.contains_key(&pid) {
                keys.insert(pid, (secret, holder));
                return Some((pid, secret));
            }
        }
        None
    }

    pub fn revoke(&self, pid: i32) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// The client that was told this key. The secret is compared in constant time.
    pub fn find(&self, pid: i32, secret: &[u8]) -> Option<Holder> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, holder) = keys.get(&pid)?;
        bool::from(known.as_slice().ct_eq(secret)).then_some(*holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_holder_until_it_is_revoked() {
        let keys = CancelKeys::default();
        let holder = Holder { worker: 1, client: ClientId(7) };
        let (pid, secret) = keys.issue(holder).unwrap();
        assert_eq!(keys.find(pid, &secret), Some(holder));
        assert_eq!(keys.find(pid, &secret[..3]), None);
        assert_eq!(keys.find(pid, &[!secret[0], secret[1], secret[2], secret[3]]), None);
        assert_eq!(keys.find(pid.wrapping_add(1), &secret), None);
        keys.revoke(pid);
        assert_eq!(keys.find(pid, &secret), None);
    }
}
