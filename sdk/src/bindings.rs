//! What WIT becomes in Rust, one module a world. The types that worlds share are those of `routing`.

/// The world of routing policies.
#[allow(clippy::all, clippy::unwrap_used, clippy::panic)]
pub mod routing {
    wit_bindgen::generate!({
        path: "../wit/since-v0.1.0",
        world: "routing",
        pub_export_macro: true,
        export_macro_name: "export_routing",
        default_bindings_module: "tidegate_sdk::bindings::routing",
        generate_all,
        additional_derives: [PartialEq],
    });
}

macro_rules! world {
    ($module:ident, $world:literal, $macro:literal, $path:literal) => {
        #[doc = concat!("The world of ", $world, " policies.")]
        #[allow(clippy::all, clippy::unwrap_used, clippy::panic)]
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit/since-v0.1.0",
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                default_bindings_module: $path,
                additional_derives: [PartialEq],
                with: {
                    "tidegate:policy/types@0.1.0": crate::bindings::routing::tidegate::policy::types,
                    "tidegate:policy/log@0.1.0": crate::bindings::routing::tidegate::policy::log,
                    "tidegate:policy/clock@0.1.0": crate::bindings::routing::tidegate::policy::clock,
                    "tidegate:policy/random@0.1.0": crate::bindings::routing::tidegate::policy::random,
                    "tidegate:policy/state@0.1.0": crate::bindings::routing::tidegate::policy::state,
                    "tidegate:policy/metrics@0.1.0": crate::bindings::routing::tidegate::policy::metrics,
                },
            });
        }
    };
}

world!(caching, "caching", "export_caching", "tidegate_sdk::bindings::caching");
world!(limiting, "limiting", "export_limiting", "tidegate_sdk::bindings::limiting");
world!(advising, "advising", "export_advising", "tidegate_sdk::bindings::advising");
