//! DATA PLANE: from an accepted socket to rows. Waits for nothing in the control plane, and never imports it.

pub mod buffers; // read buffers, lent while bytes wait in them
pub mod caching; // answers that are kept: whether, and until when
pub mod cancel; // cancel keys
pub mod clients; // what others may know of a client, and ask of it
pub mod connection; // moves one client's bytes between its socket, the session machine and a server
pub mod greeting; // start-up settings, ParameterStatus, the cancel key, the first ReadyForQuery
pub mod limiting; // whom a statement counts for, and whether there is room
pub mod listener; // sockets that listen, and which worker takes a client
pub mod listening; // connections that listen for clients
pub mod login; // one client from its first byte to AuthenticationOk
mod peers; // who is at the other end of a Unix socket, and which networks are this machine's
pub mod recording; // what runs, while somebody records
pub mod relay; // bytes as they come, for replication
mod routing; // where statements may run
pub mod users; // who may log in: a file, or the server's own users
mod way; // one direction of a client's traffic
pub mod worker; // one thread: its clients, its pools, its messages
mod writers; // who has written over HTTP
