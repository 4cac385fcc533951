//! [`Hooks`]: what an application has done before a connection is handed out and after it comes back.
//! [`ConnectionMetadata`]: what it is told of the connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryResult;
use futures_util::future::BoxFuture;

/// What a pool tells a hook of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionMetadata {
    /// How long ago the connection was made; zero in `after_connect`.
    pub age: Duration,
    /// For how long nobody has held the connection; zero in `after_connect` and `after_release`.
    pub idle_for: Duration,
    /// How many callers have held the connection, the one included that has just given it back; zero in
    /// `after_connect`.
    pub uses: u64,
}

impl fmt::Display for ConnectionMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            age,
            idle_for,
            uses,
        } = self;
        write!(
            f,
            "{age:.1?} old, idle for {idle_for:.1?}, held by {uses} callers"
        )
    }
}

impl ConnectionMetadata {
    /// Returns what `after_release` is told: nobody has waited.
    pub(super) fn of_release(self) -> Self {
        Self {
            idle_for: Duration::ZERO,
            ..self
        }
    }
}

/// A hook that is called with a connection.
pub(crate) type Hook<C, T> = Arc<
    dyn for<'c> Fn(&'c mut C, ConnectionMetadata) -> BoxFuture<'c, QueryResult<T>> + Send + Sync,
>;

/// The hooks of a pool for each checkout.
pub(crate) struct Hooks<C> {
    /// Returns whether the connection may be handed out.
    pub(super) before_acquire: Option<Hook<C, bool>>,
    /// Returns whether the connection may be kept.
    pub(super) after_release: Option<Hook<C, bool>>,
}

impl<C> Default for Hooks<C> {
    fn default() -> Self {
        Self {
            before_acquire: None,
            after_release: None,
        }
    }
}

impl<C> Clone for Hooks<C> {
    fn clone(&self) -> Self {
        Self {
            before_acquire: self.before_acquire.clone(),
            after_release: self.after_release.clone(),
        }
    }
}

impl<C> fmt::Debug for Hooks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("before_acquire", &self.before_acquire.is_some())
            .field("after_release", &self.after_release.is_some())
            .finish()
    }
}
