//! Who may import whom: a module imports only modules of lower layers.

use crate::rust;
use crate::tree::File;

/// The layers of a crate, highest first. Modules of one layer do not import each other, except in the last,
/// whose modules are plain data and tools.
pub struct Layers {
    /// The crate's source folder.
    pub source: &'static str,
    pub layers: &'static [&'static [&'static str]],
}

pub const CRATES: &[Layers] = &[
    Layers {
        source: "host/tidegate/src/",
        layers: &[
            &["main"],
            &["cli"],
            &["demo"],
            &["serve"],
            &["settle"],
            &["http"],
            &["admin", "control", "data"],
            &["explain"],
            &["handover", "hidden", "plugins", "statistics", "view"],
            &["results"],
            &["alerts", "rates", "sharing", "upstream"],
            &["redis_connection", "stream", "web"],
            &["config", "exit", "observe", "open_files", "tls", "trace", "uring"],
        ],
    },
    Layers {
        source: "host/grammar/src/",
        layers: &[
            &["statement"],
            &["expression", "query"],
            &["from", "side"],
            &["walker"],
            &["found"],
            &["names"],
        ],
    },
    Layers {
        source: "host/policy/src/",
        layers: &[
            &["tests"],
            &["answer", "bench", "rehearsal"],
            &["plan", "samples"],
            &["ask", "registry"],
            &["generation"],
            &["instance"],
            &["component"],
            &["engine", "wasi"],
            &["guest"],
            &["granted"],
            &[
                "bindings",
                "defaults",
                "error",
                "event",
                "fault",
                "locks",
                "pulse",
                "toolchain",
                "trial",
                "watch",
            ],
        ],
    },
    Layers {
        source: "host/core/src/",
        layers: &[
            &["session"],
            &["plan"],
            &["route"],
            &["policy"],
            &["catalogue", "headcount", "channels", "roles", "settings", "statement"],
            &["ids", "limits", "refusal"],
        ],
    },
];

impl Layers {
    fn of(&self, module: &str) -> Option<usize> {
        self.layers.iter().position(|layer| layer.contains(&module))
    }
}

pub fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for layers in CRATES {
        for file in files {
            if let Some(inner) = file.path.strip_prefix(layers.source) {
                check_file(layers, file, inner, &mut complaints);
            }
        }
    }
    complaints
}

fn check_file(layers: &Layers, file: &File, inner: &str, complaints: &mut Vec<String>) {
    let stem = inner.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    let module: Vec<&str> = stem.split('/').collect();
    let top = module[0];
    if top == "lib" || file.program.trim().is_empty() {
        return;
    }
    let Some(own) = layers.of(top) else {
        complaints.push(format!(
            "{}: module `{top}` has no layer: place it in `CRATES` of tests/tidy/src/arrows.rs",
            file.path
        ));
        return;
    };
    for (name, line) in rust::imports(&file.program, &module) {
        let Some(other) = layers.of(&name).filter(|_| name != top) else { continue };
        let last = layers.layers.len() - 1;
        if other < own || other == own && own != last {
            complaints.push(format!(
                "{}:{line}: `{top}` imports `{name}`, which is not below it: pass plain data or a channel \
                 from above, or move what both need to a lower module (see docs/architecture.md)",
                file.path
            ));
        }
    }
}
