//! Notifications, which a pooler does not deliver.

use diesel::QueryResult;
use diesel::pg::PgNotification;
use futures_util::Stream;

use super::Connection;
use crate::url::Endpoint;
use crate::util::statements::{statements, words};

impl Connection {
    /// Streams the notifications of the channels that this session listens to. The stream begins with those that have
    /// arrived before, and ends with the connection. The last 8192 unread notifications are kept.
    ///
    /// # Errors
    ///
    /// [`ListenUnsupported`] through a pooler, which delivers no notification.
    pub fn notifications_stream(
        &mut self,
    ) -> Result<impl Stream<Item = QueryResult<PgNotification>> + Send + '_, ListenUnsupported>
    {
        if self.endpoint() == Endpoint::Pooled {
            return Err(ListenUnsupported(()));
        }
        let session = Some(&*self.session);
        Ok(futures_util::stream::unfold(session, async |session| {
            let session = session?;
            Some(match session.notification().await {
                Ok(notification) => (Ok(notification), Some(session)),
                Err(lost) => (Err(lost.into()), None),
            })
        }))
    }

    /// Refuses LISTEN through a pooler: it would succeed, and no notification would ever arrive.
    pub(super) fn refuse_listen(&self, sql: &str) -> QueryResult<()> {
        match self.endpoint() == Endpoint::Pooled && listens(sql) {
            true => Err(diesel::result::Error::QueryBuilderError(Box::new(
                ListenUnsupported(()),
            ))),
            false => Ok(()),
        }
    }
}

/// Returns whether one of the statements of `sql` is a LISTEN.
fn listens(sql: &str) -> bool {
    let is_listen = |statement: &str| {
        let first = words(statement).next();
        first.is_some_and(|word| word.eq_ignore_ascii_case("listen"))
    };
    is_listen(sql)
        || sql.contains(';')
            && statements(sql)
                .into_iter()
                .any(|range| is_listen(&sql[range]))
}

/// A LISTEN, or a stream of notifications, through a pooler: notifications need a session of their own, which a pooler does
/// not give.
#[derive(Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "through a pooler no notification arrives: LISTEN on the direct endpoint (DatabaseUrl::direct)"
)]
pub struct ListenUnsupported(());

crate::util::debug_is_chain!(ListenUnsupported);

#[cfg(test)]
mod tests {
    use super::listens;

    #[test]
    fn a_listen_is_found_wherever_it_stands() {
        for sql in [
            "LISTEN a",
            "\n listen\"a\"",
            "/* a */ LISTEN a",
            "-- a\nLISTEN a",
            "; /* /* a */ */ -- b\n ;Listen a",
            "SELECT 1; LISTEN a",
            "SELECT ';' ; -- a;\n LISTEN a; SELECT 1",
            "DO $$ BEGIN END; $$; /* ; */ LISTEN a",
        ] {
            assert!(listens(sql), "{sql}");
        }
        for sql in [
            "",
            "SELECT 1",
            "LISTENERS",
            "listen_to()",
            "UNLISTEN a",
            "-- LISTEN a",
            "/* ; LISTEN a */ SELECT 1",
            "SELECT '; LISTEN a'; SELECT \"; LISTEN\" FROM t",
            "SELECT 1 AS listen; SELECT $$; LISTEN a$$",
            "é",
        ] {
            assert!(!listens(sql), "{sql}");
        }
    }
}
