//! Errors of our own making, as a client sees them: what happened, why, and what to do.

use std::borrow::Cow;

/// How much of the client's connection an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the connection goes on.
    Error,
    /// The connection ends with this message.
    Fatal,
}

/// An error Tidegate itself answers with. PostgreSQL's own errors pass through unchanged and are never this type.
///
/// Style follows PostgreSQL: a lower-case primary message without a full stop, a detail and a hint in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub severity: Severity,
    /// Five characters, see PostgreSQL's Appendix A.
    pub sqlstate: &'static str,
    pub message: Cow<'static, str>,
    pub detail: Option<Cow<'static, str>>,
    pub hint: Option<Cow<'static, str>>,
}

impl Refusal {
    pub fn error(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity: Severity::Error,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub fn fatal(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Fatal, ..Self::error(sqlstate, message) }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Refusal {
    /// Appends this refusal as an ErrorResponse.
    pub fn write(&self, out: &mut Vec<u8>) {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        tidegate_wire::error_fields::error_response(
            out,
            tidegate_wire::error_fields::Fields {
                severity,
                sqlstate: self.sqlstate,
                message: &self.message,
                detail: self.detail.as_deref().unwrap_or_default(),
                hint: self.hint.as_deref().unwrap_or_default(),
            },
        );
    }
}
