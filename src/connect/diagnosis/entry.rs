//! [`Diagnosis`]: a line of the table of failed connects.

use super::super::kind::ConnectErrorKind;

/// The meaning of a failed connect, and what to do.
///
/// Neon's proxy sends every error of this phase as `XX000`, Postgres's own included, and PgBouncer most of its
/// errors as `08P01`: the words decide, then the SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Diagnosis {
    pub(super) code: &'static str,
    pub(super) kind: ConnectErrorKind,
    pub(super) meaning: &'static str,
    pub(super) hint: &'static str,
    /// Texts of which the message contains one, in any case, without the text between its double quotes.
    pub(super) texts: &'static [&'static str],
    /// The SQLSTATEs that decide if the words are not known, such as translated ones.
    pub(super) sqlstates: &'static [&'static str],
}

impl Diagnosis {
    /// Returns a short, stable name, such as `credentials` or `endpoint-disabled`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the class of the failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// Returns the meaning, in words for people.
    pub fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// Returns what to do.
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// Returns whether the failure concerns one of a host's addresses, and not the others.
    pub(in super::super) fn is_of_one_address(&self) -> bool {
        self.code == "sslmode-weak"
    }
}

/// Writes each diagnosis as its name, its code, its class, its meaning and its mend.
macro_rules! steps {
    ($($name:ident = $code:literal, $kind:ident, $meaning:expr, $hint:expr;)*) => {
        $(pub(in crate::connect) static $name: $crate::connect::Diagnosis = $crate::connect::Diagnosis {
            code: $code,
            kind: $crate::connect::ConnectErrorKind::$kind,
            meaning: $meaning,
            hint: $hint,
            texts: &[],
            sqlstates: &[],
        };)*

        /// All diagnoses of this file.
        #[cfg(test)]
        pub(super) const STEPS: &[&$crate::connect::Diagnosis] = &[$(&$name),*];
    };
}

pub(super) use steps;
