//! Why a plugin is not taken: each check by its name, with words for whoever uploads it.

use crate::bindings::since_v0_1::VERSION;
use std::fmt;
use tidegate_core::policy::Slot;

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The engine itself could not be made.
    Engine(String),
    /// Larger than allowed; both in bytes.
    Size { bytes: usize, most: usize },
    /// Nothing, or less than the head that every such file has; in bytes.
    Short { bytes: usize, least: usize },
    /// Not WebAssembly, or broken.
    Parse(String),
    /// A core module that does not say what world it is for.
    Types(String),
    /// It exports no policy, or more than one.
    NoWorld,
    /// It is a policy of another kind.
    World { wanted: Slot, found: Slot },
    /// It was made for another version of the interface.
    Version { theirs: String },
    /// It wants what no plugin is granted.
    Import(String),
    /// It does not compile, or its functions are of other types.
    Compile(String),
    /// Its settings are too long.
    Settings { bytes: usize, most: usize },
    /// It trapped or ran too long when it began.
    Start(String),
    /// It refused its settings, with these words.
    Refused(String),
}

impl LoadError {
    pub(crate) fn engine(error: impl fmt::Display) -> LoadError {
        LoadError::Engine(error.to_string())
    }

    /// The check that failed, as a label.
    pub fn check(&self) -> &'static str {
        match self {
            LoadError::Engine(_) => "engine",
            LoadError::Size { .. } | LoadError::Short { .. } => "size",
            LoadError::Parse(_) => "parse",
            LoadError::Types(_) => "types",
            LoadError::NoWorld | LoadError::World { .. } => "world",
            LoadError::Version { .. } => "version",
            LoadError::Import(_) => "imports",
            LoadError::Compile(_) => "compile",
            LoadError::Settings { .. } | LoadError::Refused(_) => "settings",
            LoadError::Start(_) => "start",
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Engine(error) => write!(f, "the engine could not be made: {error}"),
            LoadError::Size { bytes, most } => {
                write!(f, "the plugin has {bytes} bytes, more than {most}")
            }
            LoadError::Short { bytes: 0, .. } => {
                f.write_str("nothing was sent: the plugin's file is empty")
            }
            LoadError::Short { bytes, least } => {
                write!(f, "the plugin has {bytes} bytes; no WebAssembly has fewer than {least}")
            }
            LoadError::Parse(error) => write!(f, "the plugin is not WebAssembly: {error}"),
            LoadError::Types(error) => write!(
                f,
                "the plugin is a core module without a world: {error}; build it with the SDK, or send a component"
            ),
            LoadError::NoWorld => write!(
                f,
                "the plugin exports no policy: it needs `init` and one of tidegate:policy/{{route,cache,limit,index}}"
            ),
            LoadError::World { wanted, found } => {
                write!(f, "the plugin is a {} policy, not a {} one", found.name(), wanted.name())
            }
            LoadError::Version { theirs } => write!(
                f,
                "the plugin was made for tidegate:policy@{theirs}, this host speaks {VERSION}"
            ),
            LoadError::Import(name) => {
                write!(f, "the plugin imports {name}, which is not granted to plugins")
            }
            LoadError::Compile(error) => write!(f, "the plugin does not compile: {error}"),
            LoadError::Settings { bytes, most } => {
                write!(f, "the settings have {bytes} bytes, more than {most}")
            }
            LoadError::Start(error) => write!(f, "the plugin failed when it began: {error}"),
            LoadError::Refused(error) => write!(f, "the plugin refused its settings: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}
