//! Every decision Tidegate makes, as pure functions and state machines.
//!
//! Nothing here knows sockets, clocks, tasks, threads or randomness: `now` is an argument, deadlines and
//! actions are results. The shell (`tidegate`) performs them.

pub mod catalogue; // what a database says about the names in a statement
pub mod channels; // what a session listens to
pub mod headcount; // clients of each database and user
pub mod ids; // newtypes that cross modules
pub mod limits; // every bound of the program, with why

pub mod plan; // statement + facts -> where it runs
pub mod policy; // what plugins answer, checked and bound; the built-in answers
pub mod refusal; // errors of our own making, as clients see them
pub mod roles; // which roles a user is a member of
pub mod route; // which server a read uses
pub mod session; // one client's protocol state machine
pub mod settings; // a session's SET values, compared and moved between servers
pub mod statement; // SQL text -> what it does to a session
