//! [`Diagnosis`]: a line of the table of failed connects.

use super::super::kind::ConnectErrorKind;

/// What a connection that did not come about means, and what to do.
///
/// Neon's proxy sends every error of this phase as `XX000`, Postgres's own included, and PgBouncer
/// most of its as `08P01`: the words decide, then the SQLSTATE.
#[derive(Debug)]
pub struct Diagnosis {
    pub(super) code: &'static str,
    pub(super) kind: ConnectErrorKind,
    pub(super) meaning: &'static str,
    pub(super) hint: &'static str,
    /// Of which the message contains one, in any case, without what stands between double quotes.
    pub(super) texts: &'static [&'static str],
    /// Which stand for this where the words are not known: translated ones, for example.
    pub(super) sqlstates: &'static [&'static str],
}

impl Diagnosis {
    /// Returns a short name that does not change: `credentials`, `endpoint-disabled`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the class of the failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// Returns what has happened, for people.
    pub fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// Returns what to do.
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// Returns whether it is about one of a host's addresses, and says nothing of the others.
    pub(in super::super) fn is_of_one_address(&self) -> bool {
        self.code == "sslmode-weak"
    }
}
