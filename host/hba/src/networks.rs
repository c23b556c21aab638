//! Addresses, masks and prefixes.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Its set bits count.
    mask: u128,
}

/// Why an address and a mask are no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    PrefixTooLong,
    /// An IPv4 address with an IPv6 mask, or the other way.
    FamiliesDiffer,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrefixTooLong => "the prefix is longer than the address",
            Self::FamiliesDiffer => "address and mask are not of one family",
        })
    }
}

impl Network {
    /// Where the first `bits` bits count.
    pub fn with_prefix(address: IpAddr, bits: u8) -> Result<Self, NetworkError> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits > width {
            return Err(NetworkError::PrefixTooLong);
        }
        let ones = u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or(0);
        let mask = if address.is_ipv4() { ones & u128::from(u32::MAX) } else { ones };
        Ok(Self { address, mask })
    }

    /// Where the bits that are set in `mask` count.
    pub fn with_mask(address: IpAddr, mask: IpAddr) -> Result<Self, NetworkError> {
        if address.is_ipv4() != mask.is_ipv4() {
            return Err(NetworkError::FamiliesDiffer);
        }
        Ok(Self { address, mask: bits(mask) })
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, mask: u128::MAX }
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// An IPv4 address is in no IPv6 network, even if it came by an IPv6 socket: give the canonical one.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (bits(self.address) ^ bits(address)) & self.mask == 0
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(Ipv4Addr::to_bits(address)),
        IpAddr::V6(address) => Ipv6Addr::to_bits(address),
    }
}
