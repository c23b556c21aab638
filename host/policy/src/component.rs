//! From bytes to a plugin that may be instantiated: every check by its name, the cheap ones first.

use crate::bindings::since_v0_1::VERSION;
use crate::bindings::since_v0_1::{advising, caching, limiting, routing};
use crate::engine::Engine;
use crate::error::LoadError;
use crate::guest::Guest;
use crate::wasi;
use tidegate_core::limits::POLICY_COMPONENT_BYTES_MAX;
use tidegate_core::policy::Slot;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, Validator};
use wasmtime::component::Component;

const PACKAGE: &str = "tidegate:policy/";
/// The interfaces that a plugin may import.
const GRANTED: [&str; 6] = ["types", "log", "clock", "random", "state", "metrics"];
/// The function that each plugin exports besides its interface.
const INIT: &str = "init";

/// A plugin that passed all checks but its own.
pub(crate) struct Checked {
    pub(crate) linked: Linked,
    /// As it was uploaded, in bytes.
    pub(crate) bytes: usize,
}

/// Compiled, with every import found, by its world.
#[derive(Clone)]
pub(crate) enum Linked {
    Routing(routing::RoutingPre<Guest>),
    Caching(caching::CachingPre<Guest>),
    Limiting(limiting::LimitingPre<Guest>),
    Advising(advising::AdvisingPre<Guest>),
}

/// What every file of WebAssembly begins with: four bytes that say so, and a version.
const HEAD_BYTES: usize = 8;

/// Checks and compiles. Takes tens of milliseconds and more: not for a thread that serves statements.
pub(crate) fn check(engine: &Engine, slot: Slot, bytes: &[u8]) -> Result<Checked, LoadError> {
    let length = bytes.len();
    if length < HEAD_BYTES {
        return Err(LoadError::Short { bytes: length, least: HEAD_BYTES });
    }
    if length > POLICY_COMPONENT_BYTES_MAX {
        return Err(LoadError::Size { bytes: length, most: POLICY_COMPONENT_BYTES_MAX });
    }
    let component = as_component(engine, bytes)?;
    let names = Names::read(&component)?;
    names.check(slot)?;
    let compiled = engine.compile(&component)?;
    let linked =
        link(engine, slot, &compiled).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
    Ok(Checked { linked, bytes: bytes.len() })
}

/// A component as it is, or the one that a core module with embedded types describes.
fn as_component(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let parse = |error: wasmparser::BinaryReaderError| LoadError::Parse(error.to_string());
    Validator::new().validate_all(bytes).map_err(parse)?;
    if Parser::is_component(bytes) { Ok(bytes.to_vec()) } else { engine.encode(bytes) }
}

/// What a component imports and exports, by name.
#[derive(Debug, Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

impl Names {
    fn read(component: &[u8]) -> Result<Names, LoadError> {
        let mut names = Names::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(component) {
            let parse = |error: wasmparser::BinaryReaderError| LoadError::Parse(error.to_string());
            match payload.map_err(parse)? {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => {
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let import = import.map_err(parse)?;
                        // A type is a name for a shape of data: it lends nothing.
                        if !matches!(import.ty, ComponentTypeRef::Type(_)) {
                            names.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        names.exports.push(export.map_err(parse)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Is it a policy of this kind, for a version that we speak, that wants only what is granted?
    fn check(&self, wanted: Slot) -> Result<(), LoadError> {
        let mut found = Vec::new();
        for name in &self.exports {
            if let Some((interface, version)) = versioned(name)
                && let Some(slot) = Slot::ALL.into_iter().find(|s| s.interface() == interface)
            {
                is_spoken(version)?;
                found.push(slot);
            }
        }
        match found[..] {
            [slot] if slot == wanted => {}
            [slot] => return Err(LoadError::World { wanted, found: slot }),
            _ => return Err(LoadError::NoWorld),
        }
        if !self.exports.iter().any(|name| name == INIT) {
            return Err(LoadError::NoWorld);
        }
        for name in &self.imports {
            if wasi::is_offered(name) {
                continue;
            }
            match versioned(name) {
                Some((interface, version)) if GRANTED.contains(&interface) => is_spoken(version)?,
                _ => return Err(LoadError::Import(name.chars().take(100).collect())),
            }
        }
        Ok(())
    }
}

/// The interface and the version of a name in our package.
fn versioned(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

/// Patches of one minor version understand each other.
fn is_spoken(theirs: &str) -> Result<(), LoadError> {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _patch)| minor.to_owned());
    if minor(theirs) == minor(VERSION) {
        Ok(())
    } else {
        Err(LoadError::Version { theirs: theirs.chars().take(20).collect() })
    }
}

fn link(engine: &Engine, slot: Slot, component: &Component) -> wasmtime::Result<Linked> {
    let pre = wasi::linker(&engine.linker, component)?.instantiate_pre(component)?;
    Ok(match slot {
        Slot::Routing => Linked::Routing(routing::RoutingPre::new(pre)?),
        Slot::Caching => Linked::Caching(caching::CachingPre::new(pre)?),
        Slot::Limiting => Linked::Limiting(limiting::LimitingPre::new(pre)?),
        Slot::Advising => Linked::Advising(advising::AdvisingPre::new(pre)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(imports: &[&str], exports: &[&str]) -> Names {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { imports: own(imports), exports: own(exports) }
    }

    const ROUTE: &str = "tidegate:policy/route@0.1.0";

    #[test]
    fn a_policy_is_known_by_what_it_exports() {
        let check = |exports: &[&str]| names(&[], exports).check(Slot::Routing);
        assert_eq!(check(&[INIT, ROUTE]), Ok(()));
        assert_eq!(check(&[INIT, "tidegate:policy/route@0.1.7"]), Ok(()));
        assert_eq!(check(&[ROUTE]), Err(LoadError::NoWorld));
        assert_eq!(check(&[INIT]), Err(LoadError::NoWorld));
        assert_eq!(check(&[INIT, ROUTE, "tidegate:policy/cache@0.1.0"]), Err(LoadError::NoWorld));
        let found = Slot::Caching;
        assert_eq!(
            check(&[INIT, "tidegate:policy/cache@0.1.0"]),
            Err(LoadError::World { wanted: Slot::Routing, found })
        );
        for theirs in ["0.2.0", "1.0.0", "0.10.0", "x"] {
            let theirs = theirs.to_owned();
            let name = format!("tidegate:policy/route@{theirs}");
            assert_eq!(check(&[INIT, &name]), Err(LoadError::Version { theirs }));
        }
    }

    #[test]
    fn only_what_is_granted_may_be_imported() {
        let check = |imports: &[&str]| names(imports, &[INIT, ROUTE]).check(Slot::Routing);
        assert_eq!(check(&["tidegate:policy/state@0.1.0", "tidegate:policy/types@0.1.0"]), Ok(()));
        // What of it is called without authority to do so is a trap.
        assert_eq!(check(&["wasi:sockets/tcp@0.2.0", "wasi:cli/environment@0.2.12"]), Ok(()));
        for name in [
            "wasi:sockets/tcp@0.3.0",
            "wasi:cli/environment",
            "wasi:io/poll@0.20.0",
            "env",
            "tidegate:policy/route@0.1.0",
        ] {
            assert_eq!(check(&[name]), Err(LoadError::Import(name.to_owned())));
        }
        let theirs = "0.2.0".to_owned();
        assert_eq!(check(&["tidegate:policy/log@0.2.0"]), Err(LoadError::Version { theirs }));
    }
}
