//! What a pool does in the background, by the clock alone: it closes idle connections at their end, keeps `min_idle`, and
//! warns of leaks. It sends nothing, but while connections are in use it sees to it that silent ones are looked after.

use std::cell::Cell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::connections::Connections;
use super::evict::EvictReason;
use super::lifetime;
use super::maintenance::Running;
use super::queue::Place;
use crate::connect::Establish;
use crate::policy::Policy;
use crate::util::clock::{self, Moment};

impl<C: Establish> Connections<C> {
    /// Sweeps at intervals from now on, until the pool has no connection.
    pub(super) fn maintain(self: &Arc<Self>) {
        if !self.maintenance.is_running() {
            self.start_sweeping();
        }
    }

    /// As [`maintain`](Self::maintain), also if the runtime of the background task does not run.
    pub(super) fn maintain_here(self: &Arc<Self>) {
        if !self.maintenance.is_running() || self.maintenance.is_stalled() {
            self.start_sweeping();
        }
    }

    #[cold]
    fn start_sweeping(self: &Arc<Self>) {
        let connections = Arc::downgrade(self);
        let pause = interval(&self.state.policy);
        let tick = self.state.policy.silence_threshold();
        let tick = tick.map(|threshold| (threshold / 8).clamp(SHORTEST, LONGEST));
        let sweeping = |running| sweep_until_empty(connections, running, pause, tick);
        self.maintenance.start(sweeping);
    }

    /// Has the connections in use watched from now on.
    pub(super) fn keep_watch(self: &Arc<Self>) {
        if !self.maintenance.is_watching() {
            self.begin_watch();
        }
    }

    #[cold]
    fn begin_watch(self: &Arc<Self>) {
        self.maintain();
        self.maintenance.watch();
    }

    /// Watches the connections in use, if there are any.
    fn watch(self: &Arc<Self>, running: &Running) {
        let Some(threshold) = self.state.policy.silence_threshold() else {
            return;
        };
        self.look_after(threshold);
        if self.queue().at(Place::InUse) == 0 {
            running.doze();
            if self.queue().at(Place::InUse) > 0 {
                running.watch();
            }
        }
    }

    fn sweep(self: &Arc<Self>) {
        let (now, policy) = (Moment::now(), &self.state.policy);
        let mut queue = self.queue();
        let past = queue.reap(|entry| entry.is_past_deadline(&now));
        let spare = Cell::new(queue.idle().saturating_sub(policy.min_idle()));
        let idle = queue.reap(|entry| {
            let is_idle = entry.session().status.silent_for(&now) >= policy.idle_timeout();
            let is_reaped = is_idle && spare.get() > 0;
            spare.set(spare.get() - u32::from(is_reaped));
            is_reaped
        });
        drop(queue);
        for entry in past {
            entry.evict(&EvictReason::Lifetime);
        }
        for entry in idle {
            entry.evict(&EvictReason::Idle);
        }
        let due = self.queue().connect();
        self.make(due);
        if let Some(threshold) = policy.leak_detection_threshold() {
            self.state.leaks.warn(threshold);
        }
    }
}

async fn sweep_until_empty<C: Establish>(
    connections: Weak<Connections<C>>,
    running: Running,
    pause: Duration,
    tick: Option<Duration>,
) {
    let mut next = clock::after(Instant::now(), pause);
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let tick = tick.filter(|_| running.is_watching());
        let left = left.min(tick.unwrap_or(left));
        running.set_next(clock::after(Instant::now(), left));
        tokio::select! {
            () = sleep(left) => {}
            () = running.until_woken() => {}
        }
        let Some(connections) = connections.upgrade() else {
            return;
        };
        connections.watch(&running);
        if Instant::now() < next {
            continue;
        }
        next = clock::after(Instant::now(), pause);
        connections.sweep();
        if connections.queue().is_empty() {
            drop(running);
            // A connection may have been made just before the task was over.
            if !connections.queue().is_empty() {
                connections.maintain();
            }
            return;
        }
    }
}

fn interval(policy: &Policy) -> Duration {
    lifetime::sweep_interval(
        policy.idle_timeout(),
        policy.max_lifetime(),
        policy.leak_detection_threshold(),
    )
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(30);
