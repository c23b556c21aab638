//! `tidegate:policy@0.1`, generated from the frozen files. The types that worlds share are those of `routing`.

/// What the host calls this version.
pub const VERSION: &str = "0.1.0";

/// The world of routing policies, and the types and imports of all worlds.
pub mod routing {
    wasmtime::component::bindgen!({
        path: "../../wit/since-v0.1.0",
        world: "routing",
        imports: { default: trappable },
        additional_derives: [Clone, PartialEq],
    });
}

macro_rules! world {
    ($module:ident, $world:literal) => {
        #[doc = concat!("The world of ", $world, " policies.")]
        pub mod $module {
            wasmtime::component::bindgen!({
                path: "../../wit/since-v0.1.0",
                world: $world,
                imports: { default: trappable },
                additional_derives: [Clone, PartialEq],
                with: {
                    "tidegate:policy/types": super::routing::tidegate::policy::types,
                    "tidegate:policy/log": super::routing::tidegate::policy::log,
                    "tidegate:policy/clock": super::routing::tidegate::policy::clock,
                    "tidegate:policy/random": super::routing::tidegate::policy::random,
                    "tidegate:policy/state": super::routing::tidegate::policy::state,
                    "tidegate:policy/metrics": super::routing::tidegate::policy::metrics,
                },
            });
        }
    };
}

world!(caching, "caching");
world!(limiting, "limiting");
world!(advising, "advising");

pub use advising::exports::tidegate::policy::index;
pub use caching::exports::tidegate::policy::cache;
pub use limiting::exports::tidegate::policy::limit;
pub use routing::exports::tidegate::policy::route;
pub use routing::tidegate::policy::{clock, log, metrics, random, state, types};
