//! Where a failed login belongs among the checks.

use diesel_neon::{ConnectErrorKind, Diagnosis};

use super::report::Finding;

/// The part of a login that a failure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Endpoint,
    Authentication,
    /// Behind the authentication, or beside it.
    Start,
}

/// Returns what the pool would say of it; `message` is the server's.
pub(crate) fn of_login(message: &str, diagnosis: &Diagnosis) -> (Part, Finding) {
    let part = match diagnosis.kind() {
        ConnectErrorKind::Endpoint => Part::Endpoint,
        ConnectErrorKind::Authentication => Part::Authentication,
        _ => Part::Start,
    };
    let finding = Finding::new(diagnosis.code(), diagnosis.meaning(), diagnosis.hint());
    (part, finding.with_error(message))
}
