//! The check of a connection by a [`ConnectionManager`](crate::ConnectionManager), which sees only the one that bb8
//! hands out: if its answer is late, a replacement connects in parallel, and the first to answer is handed out. A
//! loaded server is late too, but a new connection to it is later still. If a sibling was found dead or late, the
//! replacement connects at once.

use std::time::Duration;

use tokio::time::sleep;

use crate::connect::{ConnectSlot, Establish};
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::pool::setup::Setup;
use crate::pool::state::PoolState;
use crate::pool::stats::ClosedFor;
use crate::util::clock::Moment;

impl PoolState {
    /// Validates a connection that is about to be handed out, or puts a replacement in its place.
    pub(super) async fn validate<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
    ) -> Result<(), EvictReason> {
        let now = Moment::now();
        let quiet = entry.session().status.silent_for(&now);
        let mut result = self.inspect(entry, &now);
        if result.is_ok() {
            if self.must_ask(entry, quiet, &now) {
                // Boxed, since a check is rare and large, and the future of every checkout would hold it.
                result = Box::pin(self.check(entry, self.suspicion.covers(quiet, &now))).await;
                self.stats.checked(result.is_ok());
            } else {
                self.stats.check_skipped();
            }
        }
        if let Err(reason) = &result {
            self.record_unfit(entry, reason);
            entry.set_evicted(reason);
        }
        result
    }

    /// Returns whether a connection that came back may be handed out again.
    pub(super) fn keep<C: Establish>(&self, entry: &mut PoolEntry<C>) -> bool {
        let mut verdict = self.inspect_returned(entry);
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

    /// Asks the server, and replaces the connection if the answer is late.
    async fn check<C: Establish>(
        &self,
        entry: &mut PoolEntry<C>,
        is_suspect: bool,
    ) -> Result<(), EvictReason> {
        let generation = entry.generation();
        let was_busy = entry.session().status.is_busy();
        let late = match is_suspect {
            true => Duration::ZERO,
            false => self.late(),
        };
        // Stays set if this future is dropped.
        entry.set_validating(true);
        let outcome = race(
            self.ping(entry),
            self.generation.until_ended(generation),
            sleep(late),
            self.replacement::<C>(generation),
            was_busy,
        )
        .await;
        match outcome {
            Outcome::Answered => {
                self.health.record_check_passed();
                entry.set_validating(false);
                self.inspect(entry, &Moment::now())
            }
            Outcome::Replaced(replacement) => {
                self.health.record_check_passed();
                self.suspect_all();
                entry.close_for(ClosedFor::FailedCheck);
                *entry = replacement;
                Ok(())
            }
            Outcome::Failed(reason) => {
                // A connection that was busy tells nothing: a long statement may hold up its answer.
                if !was_busy {
                    self.suspect_all();
                }
                self.record_failed_check(entry, &reason);
                Err(reason)
            }
            Outcome::GenerationEnded => Err(EvictReason::Generation),
        }
    }

    async fn replacement<C: Establish>(&self, generation: u64) -> Option<PoolEntry<C>> {
        let connected = self
            .connect_in(generation, ConnectSlot::Spare, &Setup::default())
            .await;
        let mut replacement = connected.ok()?;
        // A pooler logs clients in even if all of its servers are taken.
        let answered = self.ping(&mut replacement).await;
        answered.is_ok().then_some(replacement)
    }
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome<R> {
    Answered,
    Failed(EvictReason),
    /// `invalidate_all` was called meanwhile.
    GenerationEnded,
    Replaced(R),
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

#[cfg(test)]
mod tests;
