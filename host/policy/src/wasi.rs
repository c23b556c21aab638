//! WASI 0.2 without any authority, for languages whose runtime does not start without one.
//!
//! No environment, arguments, files or sockets; the clocks and the random numbers that every plugin has; an input that is
//! at its end; outputs that go to the log, with its limits. Whatever else a plugin calls is a trap.

use crate::bindings::since_v0_1::{clock, random};
use crate::event::Level;
use crate::guest::Guest;
use tidegate_core::limits::{POLICY_LOG_BYTES_MAX, POLICY_RANDOM_BYTES_MAX};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType,
};
use wasmtime::{StoreContextMut, bail, format_err};

const PACKAGE: &str = "wasi:";
const VERSION: &str = "0.2.";

/// Whatever a plugin gets a handle of: one of the three streams, by its number.
struct Lent;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// `wasi:io/streams.stream-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    _LastOperationFailed(Resource<Lent>),
    #[component(name = "closed")]
    Closed,
}

/// `wasi:clocks/wall-clock.datetime`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// An interface of WASI in the version that is given, without authority?
pub(crate) fn is_offered(import: &str) -> bool {
    interface(import).is_some()
}

fn interface(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
    version.starts_with(VERSION).then_some(interface)
}

/// A linker with the functions of WASI that this component imports, if it imports any.
pub(crate) fn linker(
    own: &Linker<Guest>,
    component: &Component,
) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = own.clone();
    let engine = component.engine();
    for (import, item) in component.component_type().imports(engine) {
        let Some(interface) = interface(import) else { continue };
        let ComponentItem::ComponentInstance(item) = item.ty else { continue };
        let mut instance = linker.instance(import)?;
        for (name, item) in item.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    let give_back = |mut context: StoreContextMut<'_, Guest>, _number| {
                        context.data_mut().watch.give_back();
                        Ok(())
                    };
                    instance.resource(name, ResourceType::host::<Lent>(), give_back)?;
                }
                ComponentItem::ComponentFunc(_) => define(&mut instance, interface, name)?,
                _ => {}
            }
        }
    }
    Ok(linker)
}

/// The function of that name, if it is one that gives nothing away; else a trap.
fn define(
    linker: &mut LinkerInstance<'_, Guest>,
    interface: &str,
    name: &str,
) -> wasmtime::Result<()> {
    let (package, rest) = interface.split_once('/').unwrap_or((interface, ""));
    let is_defined = match package {
        "cli" => cli(linker, rest, name)?,
        "clocks" => clocks(linker, rest, name)?,
        "random" => randoms(linker, name)?,
        "io" => streams(linker, name)?,
        "filesystem" if name == "get-directories" => {
            let none = |_: &mut Guest, ()| Ok((Vec::<(Resource<Lent>, String)>::new(),));
            add(linker, name, none)?
        }
        _ => false,
    };
    if is_defined {
        return Ok(());
    }
    let called = format!("{PACKAGE}{interface}#{name}");
    linker.func_new(name, move |_, _, _, _| bail!("{called} is not granted to plugins"))
}

fn cli(
    linker: &mut LinkerInstance<'_, Guest>,
    interface: &str,
    name: &str,
) -> wasmtime::Result<bool> {
    match (interface, name) {
        ("environment", "get-environment") => {
            add(linker, name, |_, ()| Ok((Vec::<(String, String)>::new(),)))
        }
        ("environment", "get-arguments") => add(linker, name, |_, ()| Ok((Vec::<String>::new(),))),
        ("environment", _) => add(linker, name, |_, ()| Ok((None::<String>,))),
        ("stdin", _) => add(linker, name, |guest, ()| lend(guest, STDIN)),
        ("stdout", _) => add(linker, name, |guest, ()| lend(guest, STDOUT)),
        ("stderr", _) => add(linker, name, |guest, ()| lend(guest, STDERR)),
        ("terminal-stdin" | "terminal-stdout" | "terminal-stderr", _) => {
            add(linker, name, |_, ()| Ok((None::<Resource<Lent>>,)))
        }
        _ => Ok(false),
    }
}

fn clocks(
    linker: &mut LinkerInstance<'_, Guest>,
    interface: &str,
    name: &str,
) -> wasmtime::Result<bool> {
    match (interface, name) {
        ("monotonic-clock", "now") => {
            add(linker, name, |guest, ()| Ok((clock::Host::monotonic_ns(guest)?,)))
        }
        ("monotonic-clock", "resolution") => add(linker, name, |_, ()| Ok((1_u64,))),
        ("wall-clock", "now") => {
            add(linker, name, |guest, ()| Ok((datetime(clock::Host::wall_ms(guest)?),)))
        }
        ("wall-clock", "resolution") => add(linker, name, |_, ()| Ok((datetime(1),))),
        _ => Ok(false),
    }
}

fn datetime(ms: u64) -> Datetime {
    let nanoseconds = u32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    Datetime { seconds: ms / 1_000, nanoseconds }
}

fn randoms(linker: &mut LinkerInstance<'_, Guest>, name: &str) -> wasmtime::Result<bool> {
    match name {
        "get-random-u64" | "get-insecure-random-u64" => {
            add(linker, name, |guest, ()| Ok((random::Host::next(guest)?,)))
        }
        "get-random-bytes" | "get-insecure-random-bytes" => {
            add(linker, name, |guest, (length,)| Ok((random_bytes(guest, length)?,)))
        }
        "insecure-seed" => add(linker, name, |guest, ()| {
            Ok(((random::Host::next(guest)?, random::Host::next(guest)?),))
        }),
        _ => Ok(false),
    }
}

fn random_bytes(guest: &mut Guest, length: u64) -> wasmtime::Result<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= POLICY_RANDOM_BYTES_MAX);
    let length = length.ok_or_else(|| {
        format_err!("a plugin gets at most {POLICY_RANDOM_BYTES_MAX} random bytes at once")
    })?;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(guest.next_random().to_le_bytes());
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn streams(linker: &mut LinkerInstance<'_, Guest>, name: &str) -> wasmtime::Result<bool> {
    type Stream = Resource<Lent>;
    let Some((resource, method)) = name.split_once('.') else { return Ok(false) };
    match (resource, method) {
        ("[method]input-stream", "read" | "blocking-read") => {
            add(linker, name, |_, (_, _): (Stream, u64)| {
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            })
        }
        ("[method]output-stream", "check-write") => {
            let room = POLICY_LOG_BYTES_MAX as u64;
            add(linker, name, move |_, (_,): (Stream,)| Ok((Ok::<_, StreamError>(room),)))
        }
        ("[method]output-stream", "write" | "blocking-write-and-flush") => {
            add(linker, name, |guest, (stream, bytes): (Stream, Vec<u8>)| {
                say(guest, stream.rep(), &bytes);
                Ok((Ok::<(), StreamError>(()),))
            })
        }
        ("[method]output-stream", "flush" | "blocking-flush") => {
            add(linker, name, |_, (_,): (Stream,)| Ok((Ok::<(), StreamError>(()),)))
        }
        _ => Ok(false),
    }
}

/// What a plugin prints: errors are worth a look.
fn say(guest: &Guest, stream: u32, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if !text.trim().is_empty() {
        let level = if stream == STDERR { Level::Warn } else { Level::Info };
        guest.say(level, text.trim_end());
    }
}

fn lend(guest: &mut Guest, number: u32) -> wasmtime::Result<(Resource<Lent>,)> {
    guest.watch.lend()?;
    Ok((Resource::new_own(number),))
}

/// Defines a function whose calls count as calls of the host.
fn add<P, R>(
    linker: &mut LinkerInstance<'_, Guest>,
    name: &str,
    function: impl Fn(&mut Guest, P) -> wasmtime::Result<R> + Send + Sync + 'static,
) -> wasmtime::Result<bool>
where
    P: wasmtime::component::ComponentNamedList + wasmtime::component::Lift + 'static,
    R: wasmtime::component::ComponentNamedList + Lower + 'static,
{
    linker.func_wrap(name, move |mut context: StoreContextMut<'_, Guest>, parameters: P| {
        let guest = context.data_mut();
        guest.watch.host_call()?;
        function(guest, parameters)
    })?;
    Ok(true)
}
