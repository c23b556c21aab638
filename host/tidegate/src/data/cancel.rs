//! Cancel keys: what a client was told at login, and whom it leads to, here or at another Tidegate.
//!
//! The process id of a key says which Tidegate it is of:
//!
//! ```text
//! bit 31     bits 30 to 23              bit 22     bits 21 to 0
//! forwarded  `peer_id`, 0 without one   1          random
//! ```
//! So it is above every process id that Linux gives out: a client that takes it for its server's process and asks for the
//! end of that (`pg_terminate_backend`) hits nobody else's. A client with a server of its own is told that server's.
//!
//! A request for another Tidegate is forwarded to it with bit 31 set, and one that has it set goes no further.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use subtle::ConstantTimeEq as _;
use tidegate_core::ids::ClientId;

use crate::upstream::{BackendKey, Target};

/// Bytes of the secret of a key: protocol 3.0 has room for no more, 3.2 for up to 256.
const SECRET_BYTES: usize = 4;
const SECRET_BYTES_LONG: usize = 32;

const NUMBER_BITS: u32 = 23;
/// Linux's process ids are below this (`PID_MAX_LIMIT`).
const NUMBER_MIN: i32 = 1 << 22;
const FORWARDED: i32 = i32::MIN;

/// Where a cancel request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub worker: usize,
    pub client: ClientId,
}

/// The keys of all connected clients, shared by the workers. Touched at connect, disconnect and cancel only.
#[derive(Debug, Default)]
pub struct CancelKeys {
    /// Which of several Tidegates this is; 0 where that is not configured.
    own: u8,
    keys: Mutex<HashMap<i32, Known>>,
}

#[derive(Debug)]
struct Known {
    secret: Vec<u8>,
    holder: Holder,
    user: Arc<str>,
}

/// Whom a cancel request concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    Client(Holder),
    /// Another Tidegate, to which this key is sent.
    Peer(u8, BackendKey),
    Nobody,
}

/// The other Tidegates, by `peer_id`.
pub type Peers = HashMap<u8, Arc<Target>>;

/// Draws of a process id before we give up: with a million clients one draw in four collides.
const DRAWS_MAX: usize = 32;

impl CancelKeys {
    pub fn new(own: u8) -> Self {
        Self { own, keys: Mutex::default() }
    }

    /// Draws a fresh key for a client of this user that speaks this minor version of protocol 3. `None` when the system has
    /// no random numbers.
    pub fn issue(&self, holder: Holder, minor: u16, user: &Arc<str>) -> Option<(i32, Vec<u8>)> {
        let bytes = if minor >= 2 { SECRET_BYTES_LONG } else { SECRET_BYTES };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DRAWS_MAX {
            let mut random = [0_u8; 4 + SECRET_BYTES_LONG];
            getrandom::fill(&mut random).ok()?;
            let (number, secret) = random.split_first_chunk::<4>()?;
            let number = i32::from_be_bytes(*number) & (NUMBER_MIN - 1) | NUMBER_MIN;
            // Positive like a process id: some drivers print it, some parse it.
            let pid = i32::from(self.own) << NUMBER_BITS | number;
            let secret = secret.get(..bytes)?.to_vec();
            if let Entry::Vacant(free) = keys.entry(pid) {
                free.insert(Known { secret: secret.clone(), holder, user: user.clone() });
                return Some((pid, secret));
            }
        }
        None
    }

    /// The same for a client that has this server to itself: with the server's own process id, as `pg_stat_replication`
    /// shows it, where no other client has that. With `peer_id` the number has to say whose it is.
    pub fn issue_for(
        &self,
        holder: Holder,
        minor: u16,
        user: &Arc<str>,
        server: Option<&BackendKey>,
    ) -> Option<(i32, Vec<u8>)> {
        let (drawn, secret) = self.issue(holder, minor, user)?;
        let process = server.map(|key| key.pid).filter(|pid| (1..NUMBER_MIN).contains(pid));
        let Some(pid) = process.filter(|_| self.own == 0) else { return Some((drawn, secret)) };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Vacant(free) = keys.entry(pid) else { return Some((drawn, secret)) };
        free.insert(Known { secret: secret.clone(), holder, user: user.clone() });
        keys.remove(&drawn);
        Some((pid, secret))
    }

    pub fn revoke(&self, pid: i32) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// Whom a request with this key concerns.
    pub fn judge(&self, pid: i32, secret: &[u8]) -> Concerned {
        if let Some(holder) = self.find(pid, secret) {
            return Concerned::Client(holder);
        }
        match u8::try_from((pid & !FORWARDED) >> NUMBER_BITS) {
            Ok(peer) if pid >= 0 && peer != 0 && peer != self.own => {
                Concerned::Peer(peer, BackendKey { pid: pid | FORWARDED, secret: secret.to_vec() })
            }
            _ => Concerned::Nobody,
        }
    }

    /// The client that was told this key, whether or not a peer has forwarded it. The secret is compared in constant time.
    pub fn find(&self, pid: i32, secret: &[u8]) -> Option<Holder> {
        let pid = pid & !FORWARDED;
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&pid)?;
        bool::from(known.secret.as_slice().ct_eq(secret)).then_some(known.holder)
    }

    /// The client that takes this for its process, and its user. Who may do what to it is for the caller to say; for
    /// the number of a server's process, for the server.
    pub fn holder_of(&self, pid: i32) -> Option<(Holder, Arc<str>)> {
        if pid < NUMBER_MIN {
            return None;
        }
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&pid).map(|known| (known.holder, known.user.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: Holder = Holder { worker: 1, client: ClientId(7) };

    fn user() -> Arc<str> {
        "alice".into()
    }

    #[test]
    fn trap_10_a_key_leads_to_its_holder_until_it_is_revoked() {
        let keys = CancelKeys::default();
        for (minor, bytes) in [(0, 4), (2, 32)] {
            let (pid, secret) = keys.issue(HOLDER, minor, &user()).unwrap();
            assert_eq!(secret.len(), bytes);
            assert_eq!(keys.judge(pid, &secret), Concerned::Client(HOLDER));
            assert_eq!(keys.judge(pid, &secret[..3]), Concerned::Nobody);
            let mut wrong = secret.clone();
            wrong[0] = !wrong[0];
            assert_eq!(keys.judge(pid, &wrong), Concerned::Nobody);
            assert_eq!(keys.judge(pid ^ 1, &secret), Concerned::Nobody);
            assert_eq!(keys.holder_of(pid), Some((HOLDER, user())));
            keys.revoke(pid);
            assert_eq!(keys.holder_of(pid), None);
            assert_eq!(keys.judge(pid, &secret), Concerned::Nobody);
        }
    }

    #[test]
    fn no_key_has_the_number_of_a_process() {
        for own in [0, 1, 255] {
            let keys = CancelKeys::new(own);
            for _ in 0..1000 {
                let (pid, _) = keys.issue(HOLDER, 0, &user()).unwrap();
                assert!(pid >= 1 << 22, "{pid}");
                assert_eq!(pid >> NUMBER_BITS, i32::from(own));
            }
        }
    }

    #[test]
    fn a_client_with_a_server_of_its_own_has_its_number() {
        let server = |pid| BackendKey { pid, secret: vec![1, 2, 3, 4] };
        let keys = CancelKeys::default();
        let (pid, secret) = keys.issue_for(HOLDER, 0, &user(), Some(&server(4711))).unwrap();
        assert_eq!((pid, secret.len()), (4711, 4));
        assert_eq!(keys.judge(pid, &secret), Concerned::Client(HOLDER));
        assert_eq!(keys.judge(pid, &[1, 2, 3, 4]), Concerned::Nobody);
        // The server says who may signal its process.
        assert_eq!(keys.holder_of(pid), None);
        // Another server's process may have the same; a pooler's numbers are no processes.
        for server in [Some(server(4711)), Some(server(0)), Some(server(NUMBER_MIN)), None] {
            let (other, secret) = keys.issue_for(HOLDER, 2, &user(), server.as_ref()).unwrap();
            assert!(other >= NUMBER_MIN, "{other}");
            assert_eq!(keys.judge(other, &secret), Concerned::Client(HOLDER));
            keys.revoke(other);
        }
        keys.revoke(pid);
        assert_eq!(keys.keys.lock().unwrap().len(), 0);
        let one_of_many = CancelKeys::new(3);
        let (pid, _) = one_of_many.issue_for(HOLDER, 0, &user(), Some(&server(4711))).unwrap();
        assert_eq!(pid >> NUMBER_BITS, 3);
    }

    #[test]
    fn trap_75_a_key_of_another_tidegate_is_forwarded_once() {
        let (one, two, three) = (CancelKeys::new(1), CancelKeys::new(2), CancelKeys::new(255));
        for keys in [&one, &two, &three] {
            let (pid, secret) = keys.issue(HOLDER, 0, &user()).unwrap();
            assert!(pid > 0);
            assert_eq!(keys.judge(pid, &secret), Concerned::Client(HOLDER));
        }
        let (pid, secret) = two.issue(HOLDER, 2, &user()).unwrap();
        let Concerned::Peer(2, key) = one.judge(pid, &secret) else { panic!("not two's") };
        assert_eq!(key.secret, secret);
        assert_eq!(two.judge(key.pid, &key.secret), Concerned::Client(HOLDER));
        // Whoever else it reaches sends it no further.
        assert_eq!(three.judge(key.pid, &key.secret), Concerned::Nobody);
        assert_eq!(one.judge(key.pid, &key.secret), Concerned::Nobody);
        assert_eq!(CancelKeys::default().judge(7, &secret), Concerned::Nobody);
    }
}
