//! The macro that makes a type the policy of a plugin, and what it needs.

use crate::policies::Policy;

/// Reads the settings and lets the policy look at them. An empty text stands for `{}`.
pub fn configured<P: Policy>(config: &str) -> Result<P, String> {
    let config = if config.trim().is_empty() { "{}" } else { config };
    let mut policy: P = serde_json::from_str(config).map_err(|error| error.to_string())?;
    policy.check()?;
    Ok(policy)
}

macro_rules! checked {
    ($($world:ident: $policy:ident),*) => {$(
        /// Settings for a policy of this kind.
        #[cfg(not(target_arch = "wasm32"))]
        pub fn $world<P: crate::policies::$policy>(config: &str) -> Result<P, String> {
            configured(config)
        }
    )*};
}

checked!(routing: Routing, caching: Caching, limiting: Limiting, advising: Advising);

/// Sends the words of a panic to the host's log before the plugin is gone.
#[cfg(target_arch = "wasm32")]
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| crate::host::error(&panic.to_string())));
}

/// Makes a type the policy of this plugin: `register!(routing: MyPolicy)`, or `caching`, `limiting`, `advising`.
#[macro_export]
macro_rules! register {
    (routing: $policy:ty) => {
        $crate::register!(@world routing, export_routing, $policy, {
            impl $crate::bindings::routing::exports::tidegate::policy::route::Guest for Plugin {
                fn plan_route(shape: Shape) -> RoutePlan {
                    with(|policy| Routing::plan_route(policy, &shape))
                }
                fn weigh(replicas: Vec<ReplicaMetrics>) -> Vec<Weight> {
                    with(|policy| Routing::weigh(policy, &replicas))
                }
                fn cluster_changed(state: ClusterState) {
                    with(|policy| Routing::cluster_changed(policy, state));
                }
                fn decide(id: u32, session: SessionFlags, shape: u64, end_user: u64) -> i64 {
                    with(|policy| {
                        Routing::decide(policy, execution(id, session, shape, end_user)).number()
                    })
                }
            }
        });
    };
    (caching: $policy:ty) => {
        $crate::register!(@world caching, export_caching, $policy, {
            impl $crate::bindings::caching::exports::tidegate::policy::cache::Guest for Plugin {
                fn plan_cache(shape: Shape) -> CachePlan {
                    with(|policy| Caching::plan_cache(policy, &shape))
                }
                fn plan_invalidate(shape: Shape) -> Vec<String> {
                    with(|policy| Caching::plan_invalidate(policy, &shape))
                }
                fn decide(id: u32, session: SessionFlags, shape: u64, end_user: u64) -> i64 {
                    with(|policy| {
                        Caching::decide(policy, execution(id, session, shape, end_user))
                            .map_or(-1, i64::from)
                    })
                }
            }
        });
    };
    (limiting: $policy:ty) => {
        $crate::register!(@world limiting, export_limiting, $policy, {
            impl $crate::bindings::limiting::exports::tidegate::policy::limit::Guest for Plugin {
                fn plan_limit(shape: Shape, identity: Identity) -> LimitPlan {
                    with(|policy| Limiting::plan_limit(policy, &shape, &identity))
                }
                fn decide(id: u32, session: SessionFlags, shape: u64, end_user: u64) -> i64 {
                    with(|policy| {
                        Limiting::decide(policy, execution(id, session, shape, end_user)).number()
                    })
                }
            }
        });
    };
    (advising: $policy:ty) => {
        $crate::register!(@world advising, export_advising, $policy, {
            impl $crate::bindings::advising::exports::tidegate::policy::index::Guest for Plugin {
                fn advise(batch: Batch) -> Vec<Suggestion> {
                    with(|policy| Advising::advise(policy, &batch))
                }
            }
        });
    };
    (@world $world:ident, $export:ident, $policy:ty, { $guest:item }) => {
        // Native builds are for tests, which call the policy itself: here it is only checked to be one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&str) -> Result<$policy, String> = $crate::internal::$world::<$policy>;
        #[cfg(target_arch = "wasm32")]
        mod tidegate_plugin {
            use super::*;
            #[allow(unused_imports)]
            use $crate::{policies::*, types::*};

            struct Plugin;

            ::std::thread_local! {
                // An instance is asked by one thread at a time, and `init` is the first call.
                static POLICY: ::std::cell::OnceCell<$policy> =
                    const { ::std::cell::OnceCell::new() };
            }

            fn with<T>(call: impl FnOnce(&$policy) -> T) -> T {
                POLICY.with(|policy| call(policy.get_or_init(<$policy>::default)))
            }

            #[allow(dead_code)]
            fn execution(
                id: u32,
                session: SessionFlags,
                fingerprint_low: u64,
                end_user_hash: u64,
            ) -> Execution {
                Execution { id, session, fingerprint_low, end_user_hash }
            }

            impl $crate::bindings::$world::Guest for Plugin {
                fn init(config: String) -> Result<PluginInfo, String> {
                    $crate::internal::report_panics();
                    let configured = $crate::internal::configured::<$policy>(&config)?;
                    POLICY.with(|policy| policy.set(configured))
                        .map_err(|_| "init was called twice".to_owned())?;
                    Ok(PluginInfo {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
                    })
                }
            }

            $guest

            $crate::bindings::$world::$export!(Plugin with_types_in $crate::bindings::$world);
        }
    };
}
