//! Is a statement nothing but a read, on any server?

use crate::catalogue::{Catalogue, Unsafe};
use crate::statement::{FunctionForm, Shape};

/// Why a statement needs the primary. The names are metric labels and parts of explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotARead {
    /// It writes, locks, or is no SELECT; or its text was not understood.
    ByItsText,
    /// It touches the session: settings, temporary objects, locks, cursors.
    TouchesSession,
    /// A literal says what is read.
    LiteralDependent,
    /// What the catalogue has against a name.
    Catalogue(Unsafe),
}

impl NotARead {
    pub fn label(self) -> &'static str {
        match self {
            Self::ByItsText => "text",
            Self::TouchesSession => "session",
            Self::LiteralDependent => "literal",
            Self::Catalogue(fault) => fault.label(),
        }
    }
}

/// Proves that a statement reads and nothing else, as far as the catalogue is true.
///
/// # Errors
/// What stands against it.
pub fn judge_read(shape: &Shape, catalogue: &Catalogue) -> Result<(), NotARead> {
    if !shape.is_plain_read() {
        return Err(NotARead::ByItsText);
    }
    if shape.literal_dependent {
        return Err(NotARead::LiteralDependent);
    }
    // A function that is no built-in may do anything to a session: that the catalogue knows.
    if shape.touches_session() {
        return Err(NotARead::TouchesSession);
    }
    let judge = || {
        catalogue.hidden()?;
        for table in &shape.tables {
            catalogue.relation(table.schema.as_deref(), &table.name)?;
        }
        for function in shape.functions.iter().filter(|used| used.form == FunctionForm::Call) {
            catalogue.function(function.schema.as_deref(), &function.name)?;
        }
        Ok(())
    };
    judge().map_err(NotARead::Catalogue)
}
