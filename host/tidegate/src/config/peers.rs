//! `peer_id` and `[[peers]]`: the other Tidegates that clients may send a cancel request to.

use super::check::Checker;
use super::checked::ServerAddress;
use super::error::Problem;
use super::raw::{At, RawPeer};
use super::value::{Context, FromText};

/// What a key has room for.
const PEER_ID_MAX: usize = 255;

/// Another Tidegate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: u8,
    pub address: PeerAddress,
}

/// Where another Tidegate's clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub ServerAddress);

impl FromText for PeerAddress {
    const EXPECTED: &'static str = "an address such as \"10.0.0.2:6432\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let malformed = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?;
        let fits = !host.is_empty() && !host.contains(char::is_whitespace);
        if fits && (bare.is_some() || !host.contains(':')) {
            Ok(Self(ServerAddress::Tcp { host, port }))
        } else {
            Err(malformed())
        }
    }
}

impl Checker {
    /// The number of this one, 0 for none, and the others.
    pub(super) fn peers(
        &mut self,
        own: Option<At<usize>>,
        written: Vec<RawPeer>,
    ) -> (u8, Vec<Peer>) {
        let is_numbered = own.is_some();
        let own = self.bounded("peer_id", own, 1..=PEER_ID_MAX, 0);
        let mut peers: Vec<Peer> = Vec::new();
        for RawPeer { origin, id, address } in written {
            let (Some(id), Some(address)) = (id, address) else {
                let message = "needs id and address".to_owned();
                self.fail(Some(&origin), "peers", Problem::Missing(message));
                continue;
            };
            let number = self.bounded("peers.id", Some(id.clone()), 1..=PEER_ID_MAX, 0);
            let number = u8::try_from(number).unwrap_or_default();
            if !is_numbered {
                let message = "there is no peer_id, the number of this one";
                self.contradiction(&id.origin, "peers.id", message);
            }
            if usize::from(number) == own || peers.iter().any(|peer| peer.id == number) {
                self.contradiction(&id.origin, "peers.id", format!("{number} is there twice"));
            }
            peers.push(Peer { id: number, address: address.value });
        }
        (u8::try_from(own).unwrap_or_default(), peers)
    }
}
