//! How the process ends: the exit codes that scripts and supervisors may rely on.

use std::process::ExitCode;

/// A reason to end. `docs/operations.md` and `tidegate --help` list the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or drained in time.
    Ok,
    /// Something failed while running; standard error says what.
    Failure,
    /// The command line or the configuration is wrong.
    Usage,
    /// An address can't be listened on.
    CannotListen,
    /// Clients were cut off at the end of `limits.shutdown_grace`.
    NotDrained,
}

impl Exit {
    pub const ALL: [Self; 5] =
        [Self::Ok, Self::Failure, Self::Usage, Self::CannotListen, Self::NotDrained];

    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::CannotListen => 3,
            Self::NotDrained => 4,
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done, or drained in time",
            Self::Failure => "something failed while running",
            Self::Usage => "the command line or the configuration is wrong",
            Self::CannotListen => "an address can't be listened on",
            Self::NotDrained => "clients were cut off at the end of limits.shutdown_grace",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
