//! [`Status`]: what a pool tells of itself.

use std::fmt;
use std::time::Duration;

use super::evict::EvictReason;
use super::stats::{Checks, Closed, Connects};
use crate::connect::ConnectError;

/// How a [`Pool`](crate::Pool) is at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How many connections there may be.
    pub max_size: u32,
    /// How many there are.
    pub size: u32,
    /// How many of them lie unused.
    pub idle: u32,
    /// How many of them are handed out or being checked.
    pub in_use: u32,
    /// How many callers wait for a connection to come back.
    pub waiting: usize,
    /// How long the longest-held connection has been out.
    pub longest_held: Option<Duration>,
    /// Grows whenever all connections are retired at once.
    pub generation: u64,
    /// How often connections were checked on checkout, since the pool was built.
    pub checks: Checks,
    /// Why connections were closed, since the pool was built.
    pub closed: Closed,
    /// How connecting went, since the pool was built.
    pub connects: Connects,
    /// Why the last attempt to connect failed; gone once one has succeeded.
    pub last_failure: Option<ConnectError>,
    /// How long ago that was.
    pub last_failed: Option<Duration>,
    /// Why the last check of a connection failed; gone once one has been passed. Behind a pooler that is up,
    /// only this tells that the server is gone: logins go on succeeding.
    pub check_failure: Option<EvictReason>,
    /// How long ago that was.
    pub check_failed: Option<Duration>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} connections, {} in use, {} waiting",
            self.size, self.max_size, self.in_use, self.waiting
        )?;
        if let Some(held) = self.longest_held {
            write!(f, ", one held for {held:.1?}")?;
        }
        if let (Some(error), Some(ago)) = (&self.last_failure, self.last_failed) {
            write!(f, ", connecting last failed {ago:.1?} ago: {error}")?;
        }
        if let (Some(retired), Some(ago)) = (&self.check_failure, self.check_failed) {
            write!(f, ", a connection was found dead {ago:.1?} ago: {retired}")?;
        }
        Ok(())
    }
}
