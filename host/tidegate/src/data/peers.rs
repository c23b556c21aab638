//! Where a client comes from, who is at the other end of a Unix socket, and which networks are this machine's own: what
//! rules on who may connect ask.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tidegate_core::session::login::{Encryption, PeerKind};
use tidegate_hba::Network;
use tokio::net::UnixStream;

use super::clients::Encrypted;
use crate::stream::Stream;

/// A user's entry in the system's list is no longer than this.
const ENTRY_BYTES_MAX: usize = 16 << 10;

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
    /// Over HTTP from there. The stream is a pair of sockets within this process; how the request came is what counts.
    Http(SocketAddr, Encrypted),
}

impl Peer {
    pub fn kind(self) -> PeerKind {
        match self {
            Self::Unix => PeerKind::Unix,
            Self::Tcp(at) | Self::Http(at, _) if at.ip().to_canonical().is_loopback() => {
                PeerKind::Loopback
            }
            Self::Tcp(_) | Self::Http(..) => PeerKind::Remote,
        }
    }

    /// How its stream is protected before anything is said on it.
    pub(super) fn encryption(self) -> Encryption {
        match self {
            // There is nothing to bind SCRAM to: its two ends are in this process.
            Self::Http(_, Encrypted::Yes) => {
                Encryption::Tls { certificate_name: None, end_point: None }
            }
            Self::Http(_, Encrypted::No) | Self::Tcp(_) | Self::Unix => Encryption::None,
        }
    }

    /// Whether what is said on the stream comes and goes encrypted.
    pub(super) fn encrypted(self, stream: &Stream) -> Encrypted {
        match self {
            Self::Http(_, encrypted) => encrypted,
            Self::Tcp(_) | Self::Unix if stream.is_encrypted() => Encrypted::Yes,
            Self::Tcp(_) | Self::Unix => Encrypted::No,
        }
    }

    /// Whose failed logins count together: a Unix socket's are this machine's.
    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::Tcp(address) | Self::Http(address, _) => address.ip(),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Http(address, _) => write!(f, "http {address}"),
        }
    }
}

/// The name of the user who opened the other end.
pub(super) fn user_of(socket: &UnixStream) -> Option<String> {
    let uid = socket.peer_cred().ok()?.uid();
    let mut buffer = vec![0; ENTRY_BYTES_MAX];
    // SAFETY: all fields of passwd are integers and pointers, for which zero is a value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: the pointers are to values that live through the call, and the length is the buffer's.
    let failed = unsafe {
        libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr().cast(), buffer.len(), &mut found)
    };
    if failed != 0 || found.is_null() || entry.pw_name.is_null() {
        return None;
    }
    // SAFETY: the name was found, so that it points to a terminated string in the buffer, which is still there.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    name.to_str().ok().map(str::to_owned)
}

/// The networks that this machine's interfaces are in; none when the system does not say.
pub(super) fn own_networks() -> Arc<[Network]> {
    let mut first = std::ptr::null_mut();
    // SAFETY: on success, it stores a list that is ours until freeifaddrs.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Arc::default();
    }
    let mut networks = Vec::new();
    let mut next = first;
    // SAFETY: each element of the list is valid until freeifaddrs, and so are the addresses it points to.
    while let Some(interface) = unsafe { next.as_ref() } {
        // SAFETY: as above.
        let (address, mask) =
            unsafe { (read_address(interface.ifa_addr), read_address(interface.ifa_netmask)) };
        if let (Some(address), Some(mask)) = (address, mask) {
            networks.extend(Network::with_mask(address, mask));
        }
        next = interface.ifa_next;
    }
    // SAFETY: the list came from getifaddrs, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(first) };
    networks.into()
}

/// # Safety
/// `address` is null, or points to an address as long as its family says.
unsafe fn read_address(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that it is one of these; it may be anywhere in memory.
            let found = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(found.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let found = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(found.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_in_a_network_of_its_own() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(own_networks().iter().any(|network| network.contains(loopback)));
        assert!(
            !own_networks()
                .iter()
                .any(|network| network.contains("2001:db8:ffff::1".parse().unwrap()))
        );
    }

    #[tokio::test]
    async fn the_other_end_of_a_socket_has_a_name() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = std::process::Command::new("id").arg("-un").output().unwrap();
        assert_eq!(user_of(&one).unwrap(), String::from_utf8(own.stdout).unwrap().trim());
    }
}
