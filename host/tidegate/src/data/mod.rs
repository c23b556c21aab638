//! DATA PLANE: listener, login, connection, cancel.

pub mod login; // one client from its first byte to AuthenticationOk
pub mod users; // who may log in: a file, or the server's own users
