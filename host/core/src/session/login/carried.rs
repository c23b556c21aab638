//! Logins over a stream within this process, for a client that came another way: over HTTP.

use super::{Asked, Encryption, Login, Negotiated, State};

impl Login {
    /// The stream is carried by another that is encrypted, or not, before its first byte. TLS within it is not offered.
    pub fn handle_carried(&mut self, encryption: Encryption) {
        if let State::Startup(negotiated) = &self.state
            && encryption != Encryption::None
        {
            let ssl = Asked::Already;
            self.state = State::Startup(Negotiated { ssl, encryption, ..negotiated.clone() });
        }
    }
}
