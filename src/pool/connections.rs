//! [`Connections`]: bb8's pool, and another one in its place once a runtime has ended.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::manager::{ConnectionManager, ManagerError};
use crate::connect::Establish;

pub(crate) type Bb8Pool<C> = bb8::Pool<ConnectionManager<C>>;

/// Where the connections are.
///
/// bb8 makes them in tasks on the runtime of whoever asks. Those that end with their runtime it takes to be under way
/// for ever: it would make no others in their place, nor look for idle ones to close any more.
pub(crate) struct Connections<C: Establish> {
    manager: ConnectionManager<C>,
    /// With how many runtimes had ended when it was built.
    current: RwLock<(u64, Bb8Pool<C>)>,
}

impl<C: Establish> Connections<C> {
    /// Must be called inside of a runtime.
    pub(crate) fn new(manager: ConnectionManager<C>) -> Self {
        let current = RwLock::new((manager.runtimes_ended(), build(&manager)));
        Self { manager, current }
    }

    /// Returns where connections are asked for; must be called inside of a runtime.
    pub(crate) fn connections(&self) -> Bb8Pool<C> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.0 == self.manager.runtimes_ended() {
            return current.1.clone();
        }
        drop(current);
        self.renew()
    }

    #[cold]
    fn renew(&self) -> Bb8Pool<C> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let ended = self.manager.runtimes_ended();
        if current.0 == ended {
            return current.1.clone();
        }
        tracing::debug!("a runtime on which connections were made has ended: the pool begins anew");
        let new = build(&self.manager);
        let old = std::mem::replace(&mut *current, (ended, new.clone()));
        drop(current);
        // Its idle connections close; what is in use has record of it.
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
    manager.watch_runtime();
    if let Some(limit) = policy.leak_detection_threshold() {
        manager.leak_detector().watch(limit);
    }
    bb8::Pool::builder()
        .max_size(policy.max_size())
        .min_idle(Some(policy.min_idle()).filter(|n| *n > 0))
        .max_lifetime(Some(policy.max_lifetime()))
        .idle_timeout(Some(policy.idle_timeout()))
        .reaper_rate(policy.reaper_rate())
        // Lets a pool that has grown shrink again.
        .queue_strategy(bb8::QueueStrategy::Lifo)
        // The manager knows what is worth another try, and the caller's own deadline comes first.
        .retry_connection(false)
        .error_sink(Box::new(GivenUpSink(manager.clone())))
        .connection_timeout(
            policy
                .checkout_timeout()
                .saturating_add(Duration::from_secs(1)),
        )
        .build_unchecked(manager.clone())
}

/// Hears from bb8 that a connect has failed; its slot is free by then, so that who asks again is served.
struct GivenUpSink<C: Establish>(ConnectionManager<C>);

impl<C: Establish> bb8::ErrorSink<ManagerError> for GivenUpSink<C> {
    fn sink(&self, error: ManagerError) {
        if let ManagerError::Connect(error) = error {
            self.0.give_up(Some(&error));
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<ManagerError>> {
        Box::new(Self(self.0.clone()))
    }
}

impl<C: Establish> fmt::Debug for GivenUpSink<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GivenUpSink").field(&self.0).finish()
    }
}
