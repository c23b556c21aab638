//! Server connections: where the servers are, how to connect and log in, and what is known of their
//! users.

mod asker; // questions of our own
mod authenticate; // a server's questions after the StartupMessage
pub mod credentials; // with what we act for a user
pub mod directory; // the users a server knows, for pass-through
pub mod error; // why a connection did not come about
mod known; // keys of passwords that were right
mod log_stream; // what is committed in a database, as a server tells it
pub mod login; // connect, TLS, authentication, first ReadyForQuery; cancel
mod messages; // reading a server's messages outside the data path
mod passwords; // checking and making them, off the threads that serve clients
pub mod pool; // one worker's pools: leases, waiting, opening, closing
mod socket; // addresses, TLS as an sslmode wants it

pub use asker::Asker;
pub use credentials::{Credentials, Secret};
pub use directory::{AuthQuery, UserDirectory};
pub use error::{ConnectError, ServerError};
pub use known::KnownKeys;
pub use log_stream::{LogBytes, LogStream};
pub use login::{
    BackendKey, NewServer, Target, bound_query, cancel, connect, log_in_over, say_goodbye,
    simple_query,
};
pub use messages::Messages;
pub use passwords::{check_stored, make_verifier, nonce};
