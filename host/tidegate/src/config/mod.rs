//! Configuration: as written, as checked, and what is wrong with it.
//!
//! `tidegate.toml` and flags become a [`raw::Raw`], which remembers where each value was written;
//! [`check::check`] makes a [`Config`] of it, or every error at once. Only the [`Config`] leaves
//! this folder.

mod alerts; // who is told of trouble: types and checks
mod auth; // who may log in: checks
mod cache; // answers that are kept: types and checks
mod check; // from written to checked
pub mod checked; // what the rest of the program sees
pub mod diff; // what a reload changes
pub mod docs; // pages generated from tables
mod error; // what is wrong, where, and what was meant
mod failover; // failover: types and checks
mod http; // the HTTP query endpoint: types and checks
pub mod init; // the commented tidegate.toml
mod keys; // every key, documented
mod log; // what is logged: types and defaults
mod managers; // etcd and Patroni: types and checks
mod peers; // other Tidegates: types and checks
mod plugins; // plugins: types and checks
mod quotas; // quotas: types and checks
mod rates; // rates: types and checks
pub mod raw; // what was written, and where
mod read; // tidegate.toml to raw
pub mod redact; // the configuration without its secrets
mod routing; // which reads replicas serve
mod servers; // what is known of single servers: types and checks
mod sharing; // answers in Redis: types and checks
mod source; // a file and flags that can be read again
mod url; // postgres:// URLs
pub mod users; // the users file
mod value; // text to values, ${VAR}
mod version; // of the protocol

#[cfg(test)]
mod tests;

pub use alerts::{AlertChannel, AlertKind, AlertReceiver, MailServer, MailTls, WebUrl};
pub use cache::{Admission, CacheSettings, FollowSettings, Keeping, WarmSettings, statements_of};
pub use checked::*;
pub use error::{ConfigError, Origin, Problem};
pub use failover::{FailoverMode, FailoverSettings, FencingWord};
pub use http::{HttpConfig, Origins, PlainHttp};
pub use log::{LogConfig, LogFormat};
pub(crate) use managers::patroni_beside;
pub use managers::{ApiTls, EtcdSettings, PatroniSettings};
pub use peers::{Peer, PeerAddress};
pub use plugins::{FileHash, Pin, PluginsConfig, PublicKey, Signature, Signatures};
pub use quotas::{Quota, Quotas, Whose};
pub use rates::{RateRedis, Rates};
pub use routing::{Causality, Reads, RoutingSettings};
pub use servers::ExporterUrl;
pub use sharing::{RedisAddress, RedisNode, RedisSettings, RedisUrl};
pub(crate) use source::flag_value;
pub use source::{ConfigSource, DEFAULT_FILE};
pub(crate) use url::decode as decode_percent;
pub use url::parse_server_url;
pub use users::{UserSecret, Users};
pub(crate) use value::FromText;
pub use version::ProtocolVersion;
