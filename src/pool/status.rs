//! [`Status`]: what a pool tells about itself.

use std::fmt;
use std::time::Duration;

use super::evict::EvictReason;
use super::stats::{Checks, Closed, Connects};
use crate::connect::ConnectError;
use crate::url::TransportMode;

/// The state of a [`Pool`](crate::Pool) at one moment, and its counters since it was built.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The maximum number of connections.
    pub max_size: u32,
    /// The number of connections.
    pub size: u32,
    /// The number of connections that idle.
    pub idle: u32,
    /// The number of connections that are handed out.
    pub in_use: u32,
    /// The number of connections whose check is under way, or whose last statement is about to finish.
    pub checking: u32,
    /// The number of connections whose check is late, that are asked because another was found dead or late, or that a
    /// caller holds though they are dead.
    pub suspect: u32,
    /// The number of connections that came back with a statement that is not finished in time.
    pub settling: u32,
    /// The number of connections that are being made.
    pub connecting: u32,
    /// The number of callers that wait.
    pub waiting: usize,
    /// How long the longest-held connection has been out.
    pub longest_held: Option<Duration>,
    /// Grows with every [`invalidate_all`](crate::Pool::invalidate_all).
    pub generation: u64,
    /// Checks of connections on checkout.
    pub checks: Checks,
    /// Closed connections, by the reason.
    pub closed: Closed,
    /// Connections made, and attempts that failed.
    pub connects: Connects,
    /// Why the last attempt to connect failed; `None` once one has succeeded and no other connect goes on failing.
    pub last_failure: Option<ConnectError>,
    /// How long ago that attempt failed.
    pub last_failed: Option<Duration>,
    /// Why the last check of a connection failed; `None` after one that was passed. Behind a pooler that is up, only
    /// this tells that the server is gone: logins still succeed.
    pub check_failure: Option<EvictReason>,
    /// How long ago that check failed.
    pub check_failed: Option<Duration>,
    /// How long ago a caller got no connection; `None` once one has got one.
    pub last_refused: Option<Duration>,
    /// How bytes reach the server; with `transport=auto` the way that connected last, or `Auto` before the first connect.
    pub transport: TransportMode,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} connections, {} in use, {} waiting",
            self.size, self.max_size, self.in_use, self.waiting
        )?;
        for (number, what) in [
            (self.connecting, "being made"),
            (self.checking, "checked"),
            (self.suspect, "suspect"),
            (self.settling, "settling"),
        ] {
            if number > 0 {
                write!(f, ", {number} {what}")?;
            }
        }
        if let Some(held) = self.longest_held {
            write!(f, ", one held for {held:.1?}")?;
        }
        if let (Some(error), Some(ago)) = (&self.last_failure, self.last_failed) {
            write!(f, ", connecting last failed {ago:.1?} ago: {error:?}")?;
        }
        if let (Some(reason), Some(ago)) = (&self.check_failure, self.check_failed) {
            write!(f, ", a connection was found dead {ago:.1?} ago: {reason}")?;
        }
        Ok(())
    }
}
