//! The session against a pretended PostgreSQL: directed traps, random orders of messages, and faults at every point.

mod again; // reads whose replica dies
mod fake; // a PostgreSQL backend for a tiny language
mod faults;
mod limited; // statements that limits refuse
mod listening; // LISTEN that is handed over
mod lost; // transactions whose server is lost
mod names;
mod program; // what a client sends
mod random;
mod reads; // on replicas
mod recalled; // reads that are answered without a server
mod replay; // transactions that are run again
mod resets; // settings that go back
mod router; // what the session asks about texts
mod traps;
mod watched; // what whoever watches is told
mod world; // clients, servers and the shell between them
