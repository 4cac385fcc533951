//! The validation of a connection on checkout and on return, cheapest step first. [`Pool`](crate::Pool) and
//! [`ConnectionManager`](crate::ConnectionManager) share it.
//!
//! 1. [`Known`]: what the pool knows without asking the server. No I/O.
//! 2. [`must_ask`]: a connection that was heard from within `validation_bypass` is handed out unasked.
//! 3. `PoolState::ping`: the server is asked, within `validation_timeout`.

use std::time::Duration;

use diesel_async::{SimpleAsyncConnection, TransactionManager};
use tokio::time::{Instant, timeout};

use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::state::PoolState;
use crate::connect::{ConnectError, Establish, is_in_test_transaction};
use crate::query::DatabaseErrorExt;
use crate::session::SessionStatus;
use crate::util::clock::Moment;

impl PoolState {
    /// Returns why a connection cannot be handed out, as far as the pool knows.
    pub(super) fn inspect<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
        now: &Moment,
    ) -> Result<(), EvictReason> {
        entry.hold();
        let past_deadline = entry.is_past_deadline(now);
        let known = self.known(entry, past_deadline);
        known.verdict(|| end_of(&entry.session().status))?;
        entry.set_inspected(now);
        Ok(())
    }

    /// Returns why a connection that came back cannot be handed out again. It may be busy still.
    pub(super) fn inspect_returned<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
    ) -> Result<(), EvictReason> {
        entry.release();
        self.known(entry, false)
            .verdict(|| end_of(&entry.session().status))
            .inspect_err(|reason| self.record_ended(entry, reason))
    }

    fn known<C: Establish>(&self, entry: &mut PoolEntry<C>, past_deadline: bool) -> Known {
        let is_broken = C::TransactionManager::is_broken_transaction_manager(&mut **entry);
        let in_transaction = entry.session().status.in_transaction();
        Known {
            pool_closed: self.generation.is_closed(),
            abandoned: entry.session().status.is_given_up(),
            ended: entry.session().status.has_ended(),
            runtime_ended: entry.runtime().has_ended(),
            check_cancelled: entry.is_validating(),
            in_transaction: is_broken || (in_transaction && !is_in_test_transaction(&mut **entry)),
            generation_ended: entry.generation() != self.generation.current(),
            past_deadline,
        }
    }

    /// Returns whether the server is asked before a connection is handed out that nothing speaks against.
    ///
    /// The connection was `quiet` for so long before it was inspected.
    pub(super) fn must_ask<C>(&self, entry: &PoolEntry<C>, quiet: Duration, now: &Moment) -> bool {
        let status = &entry.session().status;
        must_ask(
            self.health.died_after_login(),
            // One whose login is under way is as good as one that is about to be made.
            status.is_busy() && !status.owes_login_alone(),
            self.doubt.covers(quiet, now),
            quiet,
            self.policy.validation_bypass(),
        )
    }

    /// Has every connection asked that was not heard from since: a sibling was found dead, or is late.
    pub(super) fn doubt_siblings(&self) {
        self.doubt.raise();
    }

    /// Returns how long the answer to a check may take before it is late.
    pub(super) fn late(&self) -> Duration {
        self.health
            .round_trip
            .late(self.policy.validation_timeout())
    }

    /// Asks the server, once its login has ended: that has a bound of its own, and may wake a compute.
    pub(super) async fn ping<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
    ) -> Result<(), EvictReason> {
        let bound = self.policy.validation_timeout();
        entry.session().status.until_logged_in().await;
        let (was_busy, began) = (entry.session().status.is_busy(), Instant::now());
        // An empty query: one round trip, nothing to parse or plan, and no statement is prepared.
        let ping = SimpleAsyncConnection::batch_execute(&mut **entry, "");
        match timeout(bound, ping).await {
            Ok(Ok(())) => {
                if !was_busy {
                    self.health.round_trip.record(began.elapsed());
                }
                Ok(())
            }
            Ok(Err(error)) => Err(EvictReason::CheckFailed {
                sqlstate: error.sqlstate().map(str::to_owned),
                message: error.to_string(),
            }),
            Err(_) => Err(EvictReason::NoAnswer { bound }),
        }
    }

    /// Records that the check of a connection has failed; see [`record_unfit`](Self::record_unfit).
    pub(super) fn record_failed_check<C>(
        &self,
        entry: &PoolEntry<C>,
        reason: &EvictReason,
    ) -> Option<ConnectError> {
        if is_unproven(entry) {
            self.health.record_died_after_login();
        }
        if matches!(reason, EvictReason::NoAnswer { .. }) {
            let status = &entry.session().status;
            self.health
                .record_silent_death(|now| status.silent_for(now));
        }
        self.record_unfit(entry, reason)
    }

    fn record_ended<C>(&self, entry: &PoolEntry<C>, reason: &EvictReason) {
        match reason {
            EvictReason::Ended { .. } | EvictReason::Silent { .. } => {
                if is_unproven(entry) {
                    self.health.record_died_after_login();
                }
                self.doubt_siblings();
            }
            // A caller's time was over, which says nothing for certain: the others are asked once.
            EvictReason::Abandoned => self.doubt_siblings(),
            _ => {}
        }
    }

    /// Records why a connection is not handed out. Returns the error that callers are told at once, if waiting does
    /// not mend it.
    pub(super) fn record_unfit<C>(
        &self,
        entry: &PoolEntry<C>,
        reason: &EvictReason,
    ) -> Option<ConnectError> {
        if reason.instead_of_answer().is_some() {
            self.health.record_check_failed(reason);
        }
        self.record_ended(entry, reason);
        final_refusal(reason, is_unproven(entry))
    }
}

/// What the pool knows of a connection without asking the server.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    pool_closed: bool,
    abandoned: bool,
    ended: bool,
    runtime_ended: bool,
    check_cancelled: bool,
    in_transaction: bool,
    generation_ended: bool,
    past_deadline: bool,
}

impl Known {
    /// Returns why the connection is evicted, if it is: the first reason in the order of the fields. `end` tells how it has
    /// ended.
    fn verdict(self, end: impl FnOnce() -> EvictReason) -> Result<(), EvictReason> {
        Err(if self.pool_closed {
            EvictReason::PoolClosed
        } else if self.abandoned {
            EvictReason::Abandoned
        } else if self.ended {
            end()
        } else if self.runtime_ended {
            EvictReason::RuntimeEnded
        } else if self.check_cancelled {
            EvictReason::CheckCancelled
        } else if self.in_transaction {
            EvictReason::InTransaction
        } else if self.generation_ended {
            EvictReason::Generation
        } else if self.past_deadline {
            EvictReason::Lifetime
        } else {
            return Ok(());
        })
    }
}

/// Returns whether the server is asked before a connection is handed out that nothing speaks against.
///
/// It is if other connections have died after their login, if it still owes a response, if a sibling was found dead or late
/// since it was heard from, or if it was quiet for as long as `bypass`.
fn must_ask(
    died_after_login: u32,
    is_busy: bool,
    is_in_doubt: bool,
    quiet: Duration,
    bypass: Duration,
) -> bool {
    died_after_login > 0 || is_busy || is_in_doubt || quiet >= bypass
}

/// Returns the error that callers are told at once if nothing but the login was ever answered, and what came instead
/// of the next answer is final. Behind a pooler, only this tells of a database that is gone.
fn final_refusal(reason: &EvictReason, is_unproven: bool) -> Option<ConnectError> {
    let (message, sqlstate) = reason.instead_of_answer().filter(|_| is_unproven)?;
    let error = ConnectError::of_server_error(message, sqlstate);
    (!error.is_transient()).then_some(error)
}

/// Returns whether nothing but the login has been answered on the connection.
fn is_unproven<C>(entry: &PoolEntry<C>) -> bool {
    entry.session().status.responses() <= 1
}

/// Returns how a session has ended.
fn end_of(status: &SessionStatus) -> EvictReason {
    match status.fatal_error() {
        Some(error) if error.is_lost_in_silence() => EvictReason::Silent {
            message: error.message,
        },
        Some(error) => EvictReason::Ended {
            sqlstate: Some(error.code),
            message: error.message,
        },
        None => EvictReason::Ended {
            sqlstate: None,
            message: "the connection was closed".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests;
