//! [`Report`]: a statement that instrumentation was told the start of, and will be told the end of.

use std::ops::Deref;

use diesel::result::Error;

use super::Connection;
use crate::query::dropped;

/// A statement that is under way for instrumentation. If it is dropped before its end, so was the future of the statement,
/// and instrumentation is told that.
pub(super) struct Report<'a, S: AsRef<str>> {
    connection: &'a Connection,
    /// `Some` until the end.
    sql: Option<S>,
}

impl<'a, S: AsRef<str>> Report<'a, S> {
    /// Takes a statement over whose start instrumentation was told.
    pub(super) fn of_started(connection: &'a Connection, sql: S) -> Self {
        Self {
            connection,
            sql: Some(sql),
        }
    }

    /// Tells instrumentation how the statement has ended.
    pub(super) fn finish(mut self, error: Option<&Error>) {
        if let Some(sql) = self.sql.take() {
            self.connection.record_finish(sql.as_ref(), error);
        }
    }

    /// Hands the statement on: whoever has it tells its end.
    #[expect(clippy::expect_used, reason = "only its end takes it")]
    pub(super) fn hand_on(mut self) -> S {
        self.sql.take().expect("it has not ended")
    }
}

impl<S: AsRef<str>> Deref for Report<'_, S> {
    type Target = S;

    #[expect(clippy::expect_used, reason = "only its end takes it")]
    fn deref(&self) -> &S {
        self.sql.as_ref().expect("it has not ended")
    }
}

impl<S: AsRef<str>> Drop for Report<'_, S> {
    fn drop(&mut self) {
        if let Some(sql) = self.sql.take() {
            self.connection
                .record_finish(sql.as_ref(), Some(&dropped()));
        }
    }
}
