//! WASI without authority: small components that import it, alone with the linker of plugins.

use super::{Notes, engine};
use crate::granted::Granted;
use crate::guest::Guest;
use crate::instance::{Pace, arm};
use crate::{fault::Fault, wasi};
use std::sync::Arc;
use tidegate_core::limits::POLICY_HANDLES_MAX;
use tidegate_core::policy::Slot;
use tidegate_core::policy::faults::FaultKind;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, Lower};

/// A component from text, instantiated.
struct Small {
    store: Store<Guest>,
    instance: Instance,
}

impl Small {
    fn new(text: &str) -> Small {
        let granted = Arc::new(Granted::new(Slot::Routing, 7, Arc::<Notes>::default()));
        let component = Component::new(engine().wasm(), wat::parse_str(text).unwrap()).unwrap();
        let linker = wasi::linker(&engine().linker, &component).unwrap();
        let mut store = Store::new(engine().wasm(), Guest::new(granted, 1 << 20, engine().pulse()));
        arm(&mut store, Pace::Background, &engine().settings());
        let instance = linker.instantiate(&mut store, &component).unwrap();
        Small { store, instance }
    }

    fn call<P, R>(&mut self, parameters: P) -> Result<R, Fault>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        arm(&mut self.store, Pace::Background, &engine().settings());
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, "run").unwrap();
        function.call(&mut self.store, parameters).map_err(|error| Fault::of(&error))
    }
}

/// Exports one function of one interface again: its type is the world's to check.
fn passing(interface: &str, name: &str, function: &str) -> String {
    passing_at("0.2.9", interface, name, function)
}

fn passing_at(version: &str, interface: &str, name: &str, function: &str) -> String {
    format!(
        r#"(component
            (import "wasi:{interface}@{version}" (instance $i (export "{name}" (func {function}))))
            (core module $m
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 1024))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    global.get $next
                    (global.set $next (i32.and (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 15)) (i32.const -8)))))
            (core instance $memory (instantiate $m))
            (alias export $i "{name}" (func $f))
            (core func $lowered (canon lower (func $f)
                (memory (core memory $memory "memory"))
                (realloc (core func $memory "realloc"))))
            (core module $n
                (import "host" "f" (func $f (param i32)))
                (import "memory" "memory" (memory 1))
                (func (export "run") (result i32) (call $f (i32.const 16)) (i32.const 16)))
            (core instance $n (instantiate $n
                (with "host" (instance (export "f" (func $lowered))))
                (with "memory" (instance $memory))))
            (func (export "run") {function} (canon lift (core func $n "run")
                (memory (core memory $memory "memory")))))"#
    )
}

#[test]
fn there_is_no_environment_no_argument_and_no_folder() {
    let pairs = r#"(result (list (tuple string string)))"#;
    for version in ["0.2.0", "0.2.12"] {
        let text = passing_at(version, "cli/environment", "get-environment", pairs);
        let (seen,): (Vec<(String, String)>,) = Small::new(&text).call(()).unwrap();
        assert!(seen.is_empty() && std::env::vars().next().is_some());
    }
    let text = passing("cli/environment", "get-arguments", "(result (list string))");
    let (seen,): (Vec<String>,) = Small::new(&text).call(()).unwrap();
    assert!(seen.is_empty());
    let text = passing("cli/environment", "initial-cwd", "(result (option string))");
    let (seen,): (Option<String>,) = Small::new(&text).call(()).unwrap();
    assert_eq!(seen, None);
}

#[test]
fn the_clock_and_the_random_numbers_are_those_of_all_plugins() {
    let text = passing("random/insecure-seed", "insecure-seed", "(result (tuple u64 u64))");
    let seed = || Small::new(&text).call::<(), ((u64, u64),)>(()).unwrap();
    assert_eq!(seed(), seed(), "seeded by the host");
    let wrong = passing("clocks/wall-clock", "now", "(result (tuple u64 u64))");
    let component = Component::new(engine().wasm(), wat::parse_str(wrong).unwrap()).unwrap();
    let linker = wasi::linker(&engine().linker, &component).unwrap();
    assert!(linker.instantiate_pre(&component).is_err(), "another type is no link");
}

/// Takes the error stream and does something with the handle, so many times.
fn with_stderr(then: &str) -> Small {
    Small::new(&format!(
        r#"(component
            (import "wasi:io/streams@0.2.3" (instance $s (export "output-stream" (type (sub resource)))))
            (alias export $s "output-stream" (type $out))
            (import "wasi:cli/stderr@0.2.3" (instance $e
                (alias outer 1 $out (type $o))
                (export "output-stream" (type $t (eq $o)))
                (export "get-stderr" (func (result (own $t))))))
            (import "wasi:sockets/instance-network@0.2.3" (instance $x
                (export "instance-network" (func))))
            (alias export $e "get-stderr" (func $get))
            (alias export $x "instance-network" (func $network))
            (core func $get-core (canon lower (func $get)))
            (core func $network-core (canon lower (func $network)))
            (core func $drop-core (canon resource.drop $out))
            (core module $m
                (import "h" "get" (func $get (result i32)))
                (import "h" "drop" (func $drop (param i32)))
                (import "h" "network" (func $network))
                (func (export "run") (param $times i32)
                    (loop $again
                        {then}
                        (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                        (br_if $again (local.get $times)))))
            (core instance $i (instantiate $m (with "h" (instance
                (export "get" (func $get-core))
                (export "drop" (func $drop-core))
                (export "network" (func $network-core))))))
            (func (export "run") (param "times" u32) (canon lift (core func $i "run"))))"#
    ))
}

#[test]
fn handles_that_are_kept_run_out() {
    let mut tidy = with_stderr("(call $drop (call $get))");
    let times = POLICY_HANDLES_MAX * 2;
    assert_eq!(tidy.call::<(u32,), ()>((times,)), Ok(()));
    let mut hoarder = with_stderr("(drop (call $get))");
    assert_eq!(hoarder.call::<(u32,), ()>((POLICY_HANDLES_MAX,)), Ok(()));
    let fault = hoarder.call::<(u32,), ()>((1,)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::HostCalls, "{fault}");
    assert!(fault.detail.contains("more handles than allowed"), "{fault}");
}

#[test]
fn what_is_not_granted_is_a_trap_that_names_it() {
    let fault = with_stderr("(call $network)").call::<(u32,), ()>((1,)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    let words = "wasi:sockets/instance-network#instance-network is not granted to plugins";
    assert!(fault.detail.contains(words), "{fault}");
}
