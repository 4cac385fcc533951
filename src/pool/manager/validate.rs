//! The check of a connection on checkout, and what its outcome says of others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use tokio::time::{Instant, sleep, timeout};

use super::ConnectionManager;
use crate::connect::{ConnectError, ConnectSlot, Establish};
use crate::connection::sqlstate;
use crate::pool::entry::PoolEntry;
use crate::pool::evict::EvictReason;
use crate::pool::stats::ClosedFor;
use crate::util::clock::Moment;

impl<C: Establish> ConnectionManager<C> {
    /// Asks the server, and starts to replace the connection where the answer is late.
    ///
    /// A loaded server is late too, but then a new connection is later still: whichever comes first
    /// tells the two apart.
    pub(super) async fn check(&self, entry: &mut PoolEntry<C>) -> Result<(), EvictReason> {
        let born_in = entry.generation();
        // What is still at work on an answer may be slow without being dead.
        let was_busy = entry.session().status.is_busy();
        // Stays set where this future is dropped.
        entry.set_validating(true);
        let verdict = {
            let replacement = async {
                sleep(LATE).await;
                match self.make_in(born_in, ConnectSlot::Spare).await {
                    Ok(mut replacement) => {
                        // A pooler logs clients in when its servers are all taken.
                        if self.ping(&mut replacement).await.is_ok() {
                            return replacement;
                        }
                    }
                    Err(error) => self.give_up(Some(&error)),
                }
                std::future::pending().await
            };
            tokio::select! {
                biased;
                answer = self.ping(entry) => Verdict::Answered(answer),
                () = self.is_retired(born_in) => Verdict::Answered(Err(EvictReason::Generation)),
                replacement = replacement, if !was_busy => Verdict::Replaced(replacement),
            }
        };
        let retired = match verdict {
            Verdict::Answered(Ok(())) => {
                self.trust();
                entry.set_validating(false);
                return self.inspect_at(entry, &Moment::now());
            }
            Verdict::Answered(Err(retired)) => retired,
            Verdict::Replaced(mut replacement) => {
                self.retire(born_in);
                replacement.adopt(self.generation());
                entry.close_for(ClosedFor::FailedCheck);
                *entry = replacement;
                self.trust();
                return Ok(());
            }
        };
        if retired != EvictReason::Generation {
            self.note_died_after_login(entry);
        }
        if !was_busy {
            self.retire(born_in);
        }
        Err(retired)
    }

    /// A connection has answered: what failed before is over.
    fn trust(&self) {
        self.shared.died_after_login.store(0, Ordering::Relaxed);
        if self.shared.check_failure.borrow().is_some() {
            self.shared.check_failure.send_replace(None);
        }
    }

    /// Whether connections were lost right behind their login, so that the login of others proves nothing.
    pub(super) fn is_suspicious(&self) -> bool {
        self.shared.died_after_login.load(Ordering::Relaxed) > 0
    }

    pub(super) fn note_died_after_login(&self, entry: &PoolEntry<C>) {
        if is_unproven(entry) {
            self.shared.died_after_login.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps what the server said instead of an answer, for those who wait. Behind a pooler that is all that is
    /// ever heard of a server that is gone, or of a database that it has no more.
    pub(super) fn note_failed_check(&self, entry: &PoolEntry<C>, retired: &EvictReason) {
        let Some((message, sqlstate)) = retired.words() else {
            return;
        };
        self.shared.check_failure.send_if_modified(|last| {
            // Silence says less than words do.
            let is_news = last.is_none() || !matches!(retired, EvictReason::NoAnswer { .. });
            if is_news {
                *last = Some((retired.clone(), Instant::now()));
            }
            is_news
        });
        if !is_unproven(entry) {
            return;
        }
        let error = ConnectError::told(message, sqlstate, retired.clone());
        if !error.is_transient() {
            self.give_up(Some(&error));
        }
    }

    async fn ping(&self, entry: &mut PoolEntry<C>) -> Result<(), EvictReason> {
        let bound = self.shared.policy.validation_timeout();
        // An empty query: one round trip, nothing to parse or plan, and no statement is prepared.
        match timeout(
            bound,
            SimpleAsyncConnection::batch_execute(&mut **entry, ""),
        )
        .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(EvictReason::CheckFailed {
                sqlstate: sqlstate(&error).map(str::to_owned),
                message: error.to_string(),
            }),
            Err(_) => Err(EvictReason::NoAnswer { bound }),
        }
    }

    /// What killed one has killed its siblings: one discovery, not ten. Comparing first keeps a crowd
    /// of discoverers from retiring the connections made since.
    fn retire(&self, generation: u64) {
        let (now, next) = (generation, generation + 1);
        let order = Ordering::AcqRel;
        let retired = self
            .shared
            .generation
            .compare_exchange(now, next, order, Ordering::Acquire);
        if retired.is_ok() {
            self.shared.retired.notify_waiters();
        }
    }
}

enum Verdict<C> {
    Answered(Result<(), EvictReason>),
    Replaced(PoolEntry<C>),
}

/// A check that takes longer than this is late: far above a round trip within a region, and half of
/// what people notice.
const LATE: Duration = Duration::from_millis(250);

/// Whether nothing but the startup has been answered on it.
fn is_unproven<C>(entry: &PoolEntry<C>) -> bool {
    entry.session().status.answers() <= 1
}
