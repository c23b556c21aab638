//! The default policies, compiled and embedded.

use tidegate_core::policy::Slot;

macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!(env!("TIDEGATE_PLUGINS_BUILT"), "/", $name, ".wasm"))
    };
}

/// A policy that comes with the host.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    pub name: &'static str,
    pub slot: Slot,
    /// A core module with embedded types.
    pub bytes: &'static [u8],
}

/// One a slot.
pub const EMBEDDED: [Embedded; 4] = [
    Embedded { name: "route-balanced", slot: Slot::Routing, bytes: built!("route_balanced") },
    Embedded { name: "cache-tables", slot: Slot::Caching, bytes: built!("cache_tables") },
    Embedded {
        name: "limit-sliding-window",
        slot: Slot::Limiting,
        bytes: built!("limit_sliding_window"),
    },
    Embedded { name: "index-structural", slot: Slot::Advising, bytes: built!("index_structural") },
];

/// The default policy of a slot.
pub fn embedded(slot: Slot) -> Embedded {
    EMBEDDED[slot.index()]
}
