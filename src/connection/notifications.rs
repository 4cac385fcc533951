//! Notifications, which a pooler does not deliver.

use diesel::QueryResult;
use diesel::pg::PgNotification;
use futures_util::Stream;

use super::Connection;
use crate::url::Endpoint;

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
        let is_listen = sql.trim_start().get(..6).is_some_and(|word| {
            word.eq_ignore_ascii_case("LISTEN")
                && !sql.trim_start()[6..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        match (is_listen, self.endpoint()) {
            (true, Endpoint::Pooled) => Err(diesel::result::Error::QueryBuilderError(Box::new(
                ListenUnsupported(()),
            ))),
            _ => Ok(()),
        }
    }
}

/// A LISTEN, or a stream of notifications, through a pooler: notifications need a session of their own, which a pooler does
/// not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "through a pooler no notification arrives: LISTEN on the direct endpoint (DatabaseUrl::direct)"
)]
pub struct ListenUnsupported(());
