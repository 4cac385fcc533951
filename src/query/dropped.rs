//! What instrumentation is told of a statement whose future was dropped.

use diesel::result::Error;

/// Returns the error of a statement whose future was dropped before its end.
pub(crate) fn dropped() -> Error {
    Error::QueryBuilderError(Box::new(Dropped))
}

/// Returns whether the error is what instrumentation is told of a statement whose future was dropped.
pub(crate) fn is_dropped(error: &Error) -> bool {
    matches!(error, Error::QueryBuilderError(error) if error.is::<Dropped>())
}

/// The future of a statement was dropped before its end.
#[derive(Debug, thiserror::Error)]
#[error("the statement's future was dropped before its end")]
struct Dropped;
