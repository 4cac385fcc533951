//! The validation of a connection on checkout, cheapest step first, and on return.
//!
//! 1. [`Known`]: what the pool knows without asking the server. No I/O.
//! 2. [`must_ask`]: a connection that was heard from within `validation_bypass` is handed out unasked.
//! 3. [`race`]: the server is asked, within `validation_timeout`. If its answer is [`LATE`], a replacement connects in
//!    parallel, and the first to answer is handed out: a loaded server is late too, but a new connection to it is
//!    later still.
//! 4. [`Outcome::evicts_siblings`]: a connection that fails, or is replaced, takes its generation with it.

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use diesel_async::{SimpleAsyncConnection, TransactionManager};
use tokio::time::{sleep, timeout};

use super::state::PoolState;
use crate::connect::{ConnectError, ConnectSlot, Establish, is_in_test_transaction};
use crate::connection::sqlstate;
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::pool::stats::ClosedFor;
use crate::session::SessionStatus;
use crate::util::clock::Moment;

impl PoolState {
    /// Validates a connection that is about to be handed out, or puts a replacement in its place.
    pub(super) async fn validate<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
    ) -> Result<(), EvictReason> {
        let now = Moment::now();
        let mut result = self.inspect_for_checkout(entry, &now);
        if result.is_ok() {
            let status = &entry.session().status;
            let (quiet, bypass) = (status.silent_for(&now), self.policy.validation_bypass());
            if must_ask(
                self.health.died_after_login(),
                status.is_busy(),
                quiet,
                bypass,
            ) {
                // Boxed, since a check is rare and large, and the future of every checkout would hold it.
                let mut check = Box::pin(self.check(entry));
                result = poll_fn(|cx| {
                    CHECK_POLLED.set(true);
                    check.as_mut().poll(cx)
                })
                .await;
                drop(check);
                self.stats.checked(result.is_ok());
            } else {
                self.stats.check_skipped();
            }
        }
        if let Err(reason) = &result {
            if reason.instead_of_answer().is_some() {
                self.health.record_check_failed(reason);
            }
            if let Some(error) = final_refusal(reason, is_unproven(entry)) {
                self.failed_connects.record(Some(&error));
            }
            evict(entry, reason);
        }
        result
    }

    /// Returns whether a connection that came back may be handed out again.
    pub(super) fn take_back<C: Establish>(&self, entry: &mut PoolEntry<C>) -> bool {
        entry.release();
        match self.known(entry, false).verdict() {
            Ok(()) => {
                if entry.session().status.is_busy() {
                    entry.session().abandon();
                }
                true
            }
            Err(reason) => {
                if matches!(reason, EvictReason::Ended { .. }) && is_unproven(entry) {
                    self.health.record_died_after_login();
                }
                evict(entry, &reason);
                false
            }
        }
    }

    fn inspect_for_checkout<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
        now: &Moment,
    ) -> Result<(), EvictReason> {
        entry.hold();
        let is_past_deadline = entry.is_past_deadline(now);
        self.known(entry, is_past_deadline).verdict()?;
        entry.set_inspected(now);
        Ok(())
    }

    fn known<C: Establish>(&self, entry: &mut PoolEntry<C>, past_deadline: bool) -> Known {
        let is_broken = C::TransactionManager::is_broken_transaction_manager(&mut **entry);
        let in_transaction = entry.session().status.in_transaction();
        let is_busy = entry.session().status.is_busy();
        Known {
            pool_closed: self.generation.is_closed(),
            ended: ended(&entry.session().status),
            check_cancelled: entry.is_validating(),
            abandoned: entry.session().is_cancelled() || (is_busy && entry.is_abandoned()),
            in_transaction: is_broken || (in_transaction && !is_in_test_transaction(&mut **entry)),
            generation_ended: entry.generation() != self.generation.current(),
            past_deadline,
        }
    }

    /// Asks the server, and replaces the connection if the answer is late.
    async fn check<C: Establish>(&self, entry: &mut PoolEntry<C>) -> Result<(), EvictReason> {
        let generation = entry.generation();
        let was_busy = entry.session().status.is_busy();
        // Stays set if this future is dropped.
        entry.set_validating(true);
        let outcome = race(
            self.ping(entry),
            self.generation.until_ended(generation),
            sleep(LATE),
            self.replacement::<C>(generation),
            was_busy,
        )
        .await;
        if matches!(outcome, Outcome::Failed(_)) && is_unproven(entry) {
            self.health.record_died_after_login();
        }
        if outcome.evicts_siblings(was_busy) {
            self.generation.end(generation);
        }
        match outcome {
            Outcome::Answered => {
                self.health.record_check_passed();
                entry.set_validating(false);
                self.inspect_for_checkout(entry, &Moment::now())
            }
            Outcome::Replaced(mut replacement) => {
                self.health.record_check_passed();
                // Not the current one: that may be younger, and the replacement connected before it began.
                replacement.set_generation(self.generation.end(generation));
                entry.close_for(ClosedFor::FailedCheck);
                *entry = replacement;
                Ok(())
            }
            Outcome::Failed(reason) => Err(reason),
            Outcome::GenerationEnded => Err(EvictReason::Generation),
        }
    }

    async fn replacement<C: Establish>(&self, generation: u64) -> Option<PoolEntry<C>> {
        match self.connect_in(generation, ConnectSlot::Spare).await {
            // A pooler logs clients in even if all of its servers are taken.
            Ok(mut replacement) => self
                .ping(&mut replacement)
                .await
                .is_ok()
                .then_some(replacement),
            Err(error) => {
                self.failed_connects.record(Some(&error));
                None
            }
        }
    }

    async fn ping<C: Establish>(&self, entry: &mut PoolEntry<C>) -> Result<(), EvictReason> {
        let bound = self.policy.validation_timeout();
        // An empty query: one round trip, nothing to parse or plan, and no statement is prepared.
        let ping = SimpleAsyncConnection::batch_execute(&mut **entry, "");
        match timeout(bound, ping).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(EvictReason::CheckFailed {
                sqlstate: sqlstate(&error).map(str::to_owned),
                message: error.to_string(),
            }),
            Err(_) => Err(EvictReason::NoAnswer { bound }),
        }
    }
}

/// What the pool knows of a connection without asking the server.
#[derive(Clone, Debug, Default)]
struct Known {
    pool_closed: bool,
    ended: Option<EvictReason>,
    check_cancelled: bool,
    abandoned: bool,
    in_transaction: bool,
    generation_ended: bool,
    past_deadline: bool,
}

impl Known {
    /// Returns why the connection is evicted, if it is: the first reason in the order of the fields.
    fn verdict(self) -> Result<(), EvictReason> {
        Err(if self.pool_closed {
            EvictReason::PoolClosed
        } else if let Some(ended) = self.ended {
            ended
        } else if self.check_cancelled {
            EvictReason::CheckCancelled
        } else if self.abandoned {
            EvictReason::Abandoned
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
/// It is if other connections have died after their login, if it still owes a response, or if it was quiet for as
/// long as `bypass`.
fn must_ask(died_after_login: u32, is_busy: bool, quiet: Duration, bypass: Duration) -> bool {
    died_after_login > 0 || is_busy || quiet >= bypass
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<R> {
    Answered,
    Failed(EvictReason),
    /// A sibling was found dead meanwhile, or the pool was closed.
    GenerationEnded,
    Replaced(R),
}

impl<R> Outcome<R> {
    /// Returns whether the connection's generation ends with it: what has killed one connection has killed its
    /// siblings, and one discovery is enough.
    ///
    /// A connection that was busy tells nothing: a long statement may hold up its answer.
    fn evicts_siblings(&self, was_busy: bool) -> bool {
        match self {
            Self::Answered | Self::GenerationEnded => false,
            Self::Failed(_) => !was_busy,
            Self::Replaced(_) => true,
        }
    }
}

/// Waits for the first of three: the answer to `ping`, the end of the generation, and a replacement, which `connect`
/// makes once `late` is over.
///
/// A connection that was busy is not replaced: it may be slow without being dead. If `connect` fails, the answer
/// decides.
async fn race<R>(
    ping: impl Future<Output = Result<(), EvictReason>>,
    generation_ended: impl Future<Output = ()>,
    late: impl Future<Output = ()>,
    connect: impl Future<Output = Option<R>>,
    was_busy: bool,
) -> Outcome<R> {
    let replacement = async {
        late.await;
        match connect.await {
            Some(replacement) => replacement,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = ping => match answer {
            Ok(()) => Outcome::Answered,
            Err(reason) => Outcome::Failed(reason),
        },
        () = generation_ended => Outcome::GenerationEnded,
        replacement = replacement, if !was_busy => Outcome::Replaced(replacement),
    }
}

/// An answer that takes longer is late: far above a round trip within a region, and half of what people notice.
const LATE: Duration = Duration::from_millis(250);

/// Returns the error that callers are told at once if nothing but the login was ever answered, and what came instead
/// of the next answer is final. Behind a pooler, only this tells of a database that is gone.
fn final_refusal(reason: &EvictReason, is_unproven: bool) -> Option<ConnectError> {
    let (message, sqlstate) = reason.instead_of_answer().filter(|_| is_unproven)?;
    let error = ConnectError::of_server_error(message, sqlstate, reason.clone());
    (!error.is_transient()).then_some(error)
}

/// Returns whether nothing but the login has been answered on the connection.
fn is_unproven<C>(entry: &PoolEntry<C>) -> bool {
    entry.session().status.responses() <= 1
}

fn ended(status: &SessionStatus) -> Option<EvictReason> {
    status.has_ended().then(|| match status.fatal_error() {
        Some(error) => EvictReason::Ended {
            sqlstate: Some(error.code),
            message: error.message,
        },
        None => EvictReason::Ended {
            sqlstate: None,
            message: "the connection was closed".to_owned(),
        },
    })
}

fn evict<C>(entry: &mut PoolEntry<C>, reason: &EvictReason) {
    tracing::debug!(reason = %reason, age = ?entry.age(), "a connection is evicted");
    entry.close_for(reason.into());
}

/// Runs `poll`, and returns whether it has polled a check as well.
///
/// bb8, which is polled in between, does not say what its caller waits for.
pub(crate) fn polls_check<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    CHECK_POLLED.set(false);
    let polled = poll();
    (polled, CHECK_POLLED.get())
}

thread_local! {
    static CHECK_POLLED: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
mod tests;
