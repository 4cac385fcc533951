//! Notifications, which a pooler does not deliver.

use diesel::QueryResult;
use diesel::pg::PgNotification;
use futures_util::Stream;

use super::Connection;
use crate::url::Endpoint;

impl Connection {
    /// The notifications of the channels that this session listens to, from the first on; it ends when
    /// the connection does. Of those that nobody reads, the last 8192 are kept.
    ///
    /// # Errors
    ///
    /// [`ListenUnsupported`]: through a pooler none arrives.
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

    /// Where it would succeed, and no notification ever arrive.
    pub(super) fn refuse_listen(&self, sql: &str) -> QueryResult<()> {
        let listens = sql.trim_start().get(..6).is_some_and(|word| {
            word.eq_ignore_ascii_case("LISTEN")
                && !sql.trim_start()[6..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        match (listens, self.endpoint()) {
            (true, Endpoint::Pooled) => Err(diesel::result::Error::QueryBuilderError(Box::new(
                ListenUnsupported(()),
            ))),
            _ => Ok(()),
        }
    }
}

/// Notifications need a session of their own, which a pooler does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "through a pooler no notification arrives: LISTEN on the direct endpoint (DatabaseUrl::direct)"
)]
pub struct ListenUnsupported(());
