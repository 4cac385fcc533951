//! The check of a connection by a [`ConnectionManager`](crate::ConnectionManager), which sees only the one that the pool
//! hands out: if its answer is late, a spare connects in parallel. If the spare is first, the late connection is closed, and
//! the pool's next connect takes the spare. A loaded server is late too, but a new connection to it is later still. If a
//! sibling was found dead or late, the spare connects at once, or one that waits already is used after half of that time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::shared::Shared;
use crate::connect::{ConnectSlot, Establish};
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::pool::setup::Setup;
use crate::util::clock::Moment;

impl<C: Establish> Shared<C> {
    /// Validates a connection that is about to be handed out.
    pub(super) async fn validate(
        self: &Arc<Self>,
        entry: &mut PoolEntry<C>,
    ) -> Result<(), EvictReason> {
        let state = &self.state;
        let now = Moment::now();
        let quiet = entry.session().status.silent_for(&now);
        let mut result = state.inspect(entry, &now);
        if result.is_ok() {
            if state.must_ask(entry, quiet, &now) {
                // Boxed, since a check is rare and large, and the future of every checkout would hold it.
                result = Box::pin(self.check(entry, state.doubt.covers(quiet, &now))).await;
                state.stats.checked(result.is_ok());
            } else {
                state.stats.check_skipped();
            }
        }
        if let Err(reason) = &result {
            state.record_unfit(entry, reason);
            entry.set_evicted(reason);
        }
        result
    }

    /// Returns whether a connection that came back may be handed out again.
    pub(super) fn keep(&self, entry: &mut PoolEntry<C>) -> bool {
        let mut verdict = self.state.inspect_returned(entry);
        if verdict.is_ok() && entry.session().status.is_busy() {
            if entry.is_abandoned() {
                verdict = Err(EvictReason::Abandoned);
            } else {
                entry.session().abandon();
            }
        }
        if let Err(reason) = &verdict {
            entry.set_evicted(reason);
        }
        verdict.is_ok()
    }

    /// Asks the server, and prefers a spare if the answer is late.
    async fn check(
        self: &Arc<Self>,
        entry: &mut PoolEntry<C>,
        is_in_doubt: bool,
    ) -> Result<(), EvictReason> {
        let state = &self.state;
        let generation = entry.generation();
        let was_busy = entry.session().status.is_busy();
        let late = match is_in_doubt {
            true => Duration::ZERO,
            false => state.late(),
        };
        let began = Instant::now();
        // Stays set if this future is dropped.
        entry.set_validating(true);
        let outcome = race(
            state.ping(entry),
            state.generation.until_ended(generation),
            sleep(late),
            self.until_replaced(generation),
            was_busy,
        )
        .await;
        match outcome {
            Outcome::Answered => {
                state.health.record_check_passed();
                entry.set_validating(false);
                state.inspect(entry, &Moment::now())
            }
            Outcome::Replaced => {
                state.health.record_check_passed();
                Err(EvictReason::NoAnswer {
                    bound: began.elapsed(),
                })
            }
            Outcome::Failed(reason) => {
                // A connection that was busy tells nothing: a long statement may hold up its answer.
                if !was_busy {
                    state.doubt_siblings();
                }
                state.record_failed_check(entry, &reason);
                Err(reason)
            }
            Outcome::GenerationEnded => Err(EvictReason::Generation),
        }
    }

    /// Waits for a spare that may take the place of a connection. Returns `None` if there will be none.
    async fn until_replaced(self: &Arc<Self>, generation: u64) -> Option<()> {
        let state = &self.state;
        let is_new = |waited| waited < state.late();
        if self.spare_waits_for().is_some_and(is_new) {
            // The pool takes the spare only once it has no idle connection left. Each of those in doubt has time for two
            // round trips at least: one that is alive stays.
            sleep(state.late() / 2).await;
            if self.spare_waits_for().is_some() {
                return Some(());
            }
        }
        let connected = state
            .connect_in(generation, ConnectSlot::Spare, &Setup::default())
            .await;
        let mut spare = connected.ok()?;
        // Before the spare is heard from, so that it is not in doubt itself.
        state.doubt_siblings();
        // A pooler logs clients in even if all of its servers are taken.
        state.ping(&mut spare).await.ok()?;
        self.keep_spare(spare);
        Some(())
    }
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Failed(EvictReason),
    /// `invalidate_all` was called meanwhile.
    GenerationEnded,
    /// A spare is ready.
    Replaced,
}

/// Waits for the first of three: the answer to `ping`, the end of the generation, and a spare, which `connect` makes once
/// `late` is over.
///
/// A connection that was busy is not replaced: it may be slow without being dead. If `connect` fails, the answer
/// decides.
async fn race(
    ping: impl Future<Output = Result<(), EvictReason>>,
    generation_ended: impl Future<Output = ()>,
    late: impl Future<Output = ()>,
    connect: impl Future<Output = Option<()>>,
    was_busy: bool,
) -> Outcome {
    let replacement = async {
        late.await;
        match connect.await {
            Some(()) => {}
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
        () = replacement, if !was_busy => Outcome::Replaced,
    }
}

#[cfg(test)]
mod tests;
