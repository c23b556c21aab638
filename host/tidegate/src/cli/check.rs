//! `tidegate check`: a summary of what a configuration asks for.

use crate::config::redact::warnings;
use crate::config::{Config, ConfigSource};

/// A few lines for a person.
pub(super) fn summary(config: &Config, source: &ConfigSource) -> String {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let name = source.file().map_or("flags".to_owned(), |file| file.display().to_string());
    let mut lines = vec![format!("{name}: ok")];
    lines.push(format!("  listen    {} ({} workers)", listen.join(", "), config.workers));
    lines.push(format!("  primary   {}", config.cluster.primary));
    for replica in &config.cluster.replicas {
        lines.push(format!("  replica   {replica}"));
    }
    let pool = &config.pool;
    lines.push(format!(
        "  pools     {} to {} connections each, {} mode, {} overrides",
        pool.size_min,
        pool.size_max,
        pool.mode.as_str(),
        config.pools.len()
    ));
    lines.push(format!(
        "  clients   at most {}, {} authentication, TLS {}",
        config.limits.clients_max,
        config.auth.method.as_str(),
        config.tls.mode.as_str()
    ));
    lines.push(match &config.admin {
        Some(admin) => format!("  admin     http://{}", admin.address),
        None => "  admin     off".to_owned(),
    });
    lines.extend(warnings(config).into_iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n") + "\n"
}
