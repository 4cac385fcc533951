//! [`Connections`]: bb8's pool, and how it is set up; a new one takes its place when a runtime ends.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::manager::{ConnectionManager, ManagerError};
use crate::connect::Establish;

pub(crate) type Bb8Pool<C> = bb8::Pool<ConnectionManager<C>>;

/// The connections of a pool, kept by bb8.
///
/// bb8 connects, and closes idle connections, in tasks on the runtime of its caller. It takes tasks that have ended with
/// their runtime to be under way for ever, and makes nothing in their place: then a new bb8 pool does.
pub(crate) struct Connections<C: Establish> {
    manager: ConnectionManager<C>,
    /// bb8's pool, with the number of runtimes that had ended when it was built.
    current: RwLock<(u64, Bb8Pool<C>)>,
}

impl<C: Establish> Connections<C> {
    /// Builds the pool; must be called inside of a runtime.
    pub(crate) fn new(manager: ConnectionManager<C>) -> Self {
        let current = RwLock::new((manager.state().runtimes.ended(), build(&manager)));
        Self { manager, current }
    }

    /// Returns the pool to ask for connections; must be called inside of a runtime.
    pub(crate) fn connections(&self) -> Bb8Pool<C> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.0 == self.manager.state().runtimes.ended() {
            return current.1.clone();
        }
        drop(current);
        self.renew()
    }

    #[cold]
    fn renew(&self) -> Bb8Pool<C> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let ended = self.manager.state().runtimes.ended();
        if current.0 == ended {
            return current.1.clone();
        }
        tracing::debug!("a runtime on which connections were made has ended: the pool begins anew");
        let new = build(&self.manager);
        let old = std::mem::replace(&mut *current, (ended, new.clone()));
        drop(current);
        // Closes the idle connections of the old pool. Those in use keep it until they come back.
        drop(old);
        new
    }

    pub(crate) fn state(&self) -> bb8::State {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .state()
    }
}

fn build<C: Establish>(manager: &ConnectionManager<C>) -> Bb8Pool<C> {
    let policy = manager.policy();
    manager.state().watch_runtime();
    if let Some(limit) = policy.leak_detection_threshold() {
        manager.state().leaks.watch(limit);
    }
    bb8::Pool::builder()
        .max_size(policy.max_size())
        .min_idle(Some(policy.min_idle()).filter(|n| *n > 0))
        .max_lifetime(Some(policy.max_lifetime()))
        .idle_timeout(Some(policy.idle_timeout()))
        .reaper_rate(policy.reaper_rate())
        // The least recently used connections idle, so that a pool that has grown shrinks again.
        .queue_strategy(bb8::QueueStrategy::Lifo)
        // The connector retries what is worth it.
        .retry_connection(false)
        .error_sink(Box::new(FailureSink(manager.clone())))
        // A caller's own deadline comes first.
        .connection_timeout(
            policy
                .checkout_timeout()
                .saturating_add(Duration::from_secs(1)),
        )
        .build_unchecked(manager.clone())
}

/// Tells waiting callers of a failed connect. bb8 has freed its slot by then, so that they are served if they ask anew.
struct FailureSink<C: Establish>(ConnectionManager<C>);

impl<C: Establish> bb8::ErrorSink<ManagerError> for FailureSink<C> {
    fn sink(&self, error: ManagerError) {
        if let ManagerError::Connect(error) = error {
            self.0.state().failed_connects.record(Some(&error));
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ManagerError>> {
        Box::new(Self(self.0.clone()))
    }
}

impl<C: Establish> fmt::Debug for FailureSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FailureSink").field(&self.0).finish()
    }
}
