//! Scale to zero: when the compute is suspended, how its sessions end then, and how it wakes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::event::{Event, Suspension};
use super::faults::Faults;
use crate::servers::cluster::Cluster;
use crate::sync::locked;

/// How long a suspension waits for clients that do not read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for backends to end, which takes milliseconds unless the machine is busy.
const BACKENDS: Duration = Duration::from_secs(30);

/// A suspension's order to end a session; dropping the order says that it has been carried out.
#[derive(Debug)]
pub(crate) struct EndOrder {
    pub(crate) suspension: Suspension,
    _done: mpsc::Sender<()>,
}

/// The compute behind both endpoints.
#[derive(Debug)]
pub(crate) struct Compute {
    window: Option<Duration>,
    cluster: Arc<Cluster>,
    /// The one database that the compute has, on servers of several; nothing if the servers are its own.
    database: Option<String>,
    events: broadcast::Sender<Event>,
    state: Mutex<State>,
    /// Held while the compute is being suspended or woken.
    transition: Arc<tokio::sync::Mutex<()>>,
    awake: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    cold_start: Duration,
    last_activity: Instant,
    busy: usize,
    sessions: HashMap<u64, oneshot::Sender<EndOrder>>,
    next_session: u64,
    wakes: u64,
    suspensions: u64,
    slept: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Awake,
    Asleep {
        since: Instant,
    },
    /// It will be awake after a cold start.
    Waking {
        slept: Duration,
    },
}

impl Phase {
    fn is_awake(self) -> bool {
        matches!(self, Self::Awake)
    }

    fn slept(self) -> Duration {
        match self {
            Self::Awake => Duration::ZERO,
            Self::Asleep { since } => since.elapsed(),
            Self::Waking { slept } => slept,
        }
    }
}

impl Compute {
    pub(crate) fn new(
        window: Option<Duration>,
        cold_start: Duration,
        cluster: Arc<Cluster>,
        database: Option<String>,
        events: broadcast::Sender<Event>,
    ) -> Arc<Self> {
        Arc::new(Self {
            window,
            cluster,
            database,
            events,
            state: Mutex::new(State {
                phase: Phase::Awake,
                cold_start,
                last_activity: Instant::now(),
                busy: 0,
                sessions: HashMap::new(),
                next_session: 0,
                wakes: 0,
                suspensions: 0,
                slept: Duration::ZERO,
            }),
            transition: Arc::default(),
            awake: Notify::new(),
        })
    }

    /// Returns whether the compute has this database.
    pub(crate) fn may_have(&self, database: &str) -> bool {
        self.database.as_deref().is_none_or(|own| own == database)
    }

    /// Returns whether the compute is suspended or still waking.
    pub(crate) fn is_suspended(&self) -> bool {
        !locked(&self.state).phase.is_awake()
    }

    /// Returns what the compute is: awake, asleep or waking.
    pub(crate) fn state(&self) -> &'static str {
        match locked(&self.state).phase {
            Phase::Awake => "awake",
            Phase::Asleep { .. } => "asleep",
            Phase::Waking { .. } => "waking",
        }
    }

    /// Returns how long the next wake-up will take.
    pub(crate) fn cold_start(&self) -> Duration {
        locked(&self.state).cold_start
    }

    /// Sets how long wake-ups take that begin from now on.
    pub(crate) fn set_cold_start(&self, cold_start: Duration) {
        locked(&self.state).cold_start = cold_start;
    }

    /// Returns how often the compute has woken and been suspended, and for how long.
    pub(crate) fn history(&self) -> (u64, u64, Duration) {
        let state = locked(&self.state);
        let slept = state.slept + state.phase.slept();
        (state.wakes, state.suspensions, slept)
    }

    /// Suspends the compute whenever it has been idle for the length of the window.
    pub(crate) async fn watch(&self) {
        let Some(window) = self.window else { return };
        loop {
            let due = {
                let state = locked(&self.state);
                match (state.phase, state.busy) {
                    (Phase::Awake, 0) => Some(window.saturating_sub(state.last_activity.elapsed())),
                    // A whole window follows when it becomes idle.
                    (Phase::Awake, _) => Some(window),
                    _ => None,
                }
            };
            match due {
                None => self.awake.notified().await,
                Some(Duration::ZERO) => self.suspend_if(Suspension::Normal, true).await,
                Some(due) => sleep(due).await,
            }
        }
    }

    /// Suspends the compute now, whatever it is doing.
    pub(crate) async fn suspend(&self, suspension: Suspension) {
        self.suspend_if(suspension, false).await;
    }

    async fn suspend_if(&self, suspension: Suspension, only_idle: bool) {
        let _transition = self.transition.lock().await;
        let sessions = {
            let mut state = locked(&self.state);
            let idle = state.busy == 0
                && self
                    .window
                    .is_some_and(|window| state.last_activity.elapsed() >= window);
            if !state.phase.is_awake() || (only_idle && !idle) {
                return;
            }
            state.phase = Phase::Asleep {
                since: Instant::now(),
            };
            state.suspensions += 1;
            std::mem::take(&mut state.sessions)
        };
        self.tell(Event::Suspended {
            suspension,
            sessions: sessions.len(),
        });
        let (done, mut all_done) = mpsc::channel(1);
        for (_, session) in sessions {
            // A session that has ended by itself needs no order.
            let _ = session.send(EndOrder {
                suspension,
                _done: done.clone(),
            });
        }
        drop(done);
        let _ = timeout(PATIENCE, all_done.recv()).await;
        let ending = self.cluster.end_sessions(self.database.as_deref());
        let _ = timeout(BACKENDS, ending).await;
    }

    /// Wakes the compute if it is suspended; errors are texts for the client.
    pub(crate) async fn wake(self: &Arc<Self>, faults: Option<&Faults>) -> Result<Busy, String> {
        if let Some(message) = faults.and_then(Faults::remembered_wake_error) {
            return Err(message);
        }
        if let Some(busy) = self.busy_if_awake() {
            return Ok(busy);
        }
        let transition = Arc::clone(&self.transition).lock_owned().await;
        if let Some(busy) = self.busy_if_awake() {
            return Ok(busy);
        }
        if let Some(message) = faults.and_then(Faults::next_wake_error) {
            self.tell(Event::WakeFailed {
                message: message.clone(),
            });
            return Err(message);
        }
        let (slept, cold_start) = {
            let mut state = locked(&self.state);
            let slept = state.phase.slept();
            state.phase = Phase::Waking { slept };
            (slept, state.cold_start)
        };
        self.tell(Event::Waking);
        let compute = Arc::clone(self);
        // What has begun to wake goes on, whether or not its client waits for it.
        let waking = tokio::spawn(async move {
            sleep(cold_start).await;
            let busy = compute.woken(slept);
            drop(transition);
            busy
        });
        let busy = waking.await;
        busy.map_err(|_| "Couldn't connect to compute node".to_owned())
    }

    /// Notes that the compute has woken.
    fn woken(self: &Arc<Self>, slept: Duration) -> Busy {
        {
            let mut state = locked(&self.state);
            state.phase = Phase::Awake;
            state.slept += slept;
            state.wakes += 1;
            state.last_activity = Instant::now();
        }
        self.awake.notify_one();
        self.tell(Event::Woken { slept });
        self.busy()
    }

    /// Keeps the compute awake until the value is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        locked(&self.state).busy += 1;
        Busy(Arc::clone(self))
    }

    fn busy_if_awake(self: &Arc<Self>) -> Option<Busy> {
        let mut state = locked(&self.state);
        if !state.phase.is_awake() {
            return None;
        }
        state.busy += 1;
        Some(Busy(Arc::clone(self)))
    }

    /// Restarts the window before the next suspension.
    pub(crate) fn touch(&self) {
        locked(&self.state).last_activity = Instant::now();
    }

    /// Enters a session that a suspension is to end; returns nothing if the compute is suspended already.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Membership> {
        let mut state = locked(&self.state);
        if !state.phase.is_awake() {
            return None;
        }
        let (sender, end) = oneshot::channel();
        let id = state.next_session;
        state.next_session += 1;
        state.sessions.insert(id, sender);
        Some(Membership {
            compute: Arc::clone(self),
            id,
            end,
        })
    }

    fn tell(&self, event: Event) {
        // An error says that nobody listens.
        let _ = self.events.send(event);
    }
}

/// Keeps the compute awake while it exists, and restarts the window when it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Compute>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.busy -= 1;
        state.last_activity = Instant::now();
    }
}

/// A session that a suspension ends.
#[derive(Debug)]
pub(crate) struct Membership {
    compute: Arc<Compute>,
    id: u64,
    end: oneshot::Receiver<EndOrder>,
}

impl Membership {
    /// Waits for a suspension.
    pub(crate) async fn until_suspended(&mut self) -> EndOrder {
        match (&mut self.end).await {
            Ok(end) => end,
            // The sender is only dropped with the compute itself.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        locked(&self.compute.state).sessions.remove(&self.id);
    }
}
