//! [`race`]: runs several attempts, started one after another, until the first succeeds.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::timer::Timer;

/// The stage that an attempt to log in has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// TCP is being connected.
    #[default]
    Connecting,
    /// TLS is being negotiated.
    Securing,
    /// The login has begun, and the server still needs messages from the client.
    LoggingIn,
    /// The client has sent its last message of the login: the server may be waking a compute.
    Waking,
}

/// The stage of one attempt, written by the attempt and read by its race.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stage: AtomicU8,
    /// Set by the race.
    is_overdue: AtomicBool,
}

impl Progress {
    /// Records that the attempt has reached `stage`.
    pub(crate) fn reach(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Returns whether the race has dropped the attempt after it had been silent for too long.
    pub(super) fn is_overdue(&self) -> bool {
        self.is_overdue.load(Ordering::Acquire)
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Connecting,
            1 => Stage::Securing,
            2 => Stage::LoggingIn,
            _ => Stage::Waking,
        }
    }
}

/// The consequence of a failed attempt for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another address may succeed.
    Next,
    /// The server itself refuses, and may do so at its other addresses too.
    Refused,
    /// The server has no room: a login at another address would take another slot. Another server may have room.
    Full,
    /// Every address would fail in the same way.
    Final,
}

/// A failure of one attempt of a race.
pub(crate) trait AttemptFailure: Send {
    /// Returns the consequence for the other attempts.
    fn verdict(&self) -> Verdict;

    /// Returns whether the same attempt may succeed a moment later.
    fn may_pass(&self) -> bool;

    /// Returns whether the failure may be one of the way to the server: the server itself has said nothing.
    fn is_of_way(&self) -> bool;

    /// Returns how much the failure tells: of several failures the weightiest is returned.
    fn weight(&self) -> u8;
}

/// When the next attempt is started although none has failed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// The attempts go to addresses of one server.
    ///
    /// A silent address delays the next one by 250 ms (RFC 8305, section 5), and twice as many are
    /// started each time, so that the last of a dozen is started within a second. A server answers at once
    /// until it knows the client: Neon's proxy wakes a compute only after the right password. Silence after
    /// that is a cold start, which another address would not shorten. Once it has lasted longer than the
    /// proxy itself tries to wake the compute, one more login is made.
    Addresses,
    /// The attempts go to different servers, in order of preference: the next is started if no address of
    /// the one before it has reached another stage for so long, or if none is ready a moment after a second login
    /// has been made for the sake of a cold start.
    Servers(Duration),
}

impl Pace {
    /// Returns how long an attempt may stay in `stage` before the next one is started.
    fn patience(self, stage: Stage, round_trip: Duration) -> Duration {
        // TLS takes up to three round trips, whose length TCP has shown.
        let flights = round_trip.saturating_mul(4);
        match (self, stage) {
            (Self::Addresses, Stage::Connecting) => STAGGER,
            (Self::Addresses, Stage::Securing) => STAGGER.max(flights),
            (Self::Addresses, Stage::LoggingIn) => SILENCE.max(flights),
            (Self::Addresses, Stage::Waking) => COLD_START,
            (Self::Servers(patience), Stage::Waking) => {
                patience.max(COLD_START.saturating_add(SILENCE))
            }
            (Self::Servers(patience), _) => patience,
        }
    }
}

const STAGGER: Duration = Duration::from_millis(250);

/// A proxy may have to ask its control plane for the role.
const SILENCE: Duration = Duration::from_secs(1);

/// Neon's proxy tries for about 4.5 s to wake a compute, and then reports a failure.
const COLD_START: Duration = Duration::from_secs(6);

/// How often a server may refuse a login before its other addresses are spared.
const REFUSALS: u32 = 2;

/// The pause before another attempt beside one that hangs.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs `attempt` for one entrant after another, at the `pace` or as soon as one fails, until the first
/// succeeds, and drops the rest. Once all have been started, what has failed is tried again as long as another attempt
/// is silent: a server that restarts is not to be waited for at an address that hangs. Reports the most advanced
/// attempt's stage in `progress`.
pub(super) async fn race<P: Clone, T, E, F>(
    entrants: Vec<P>,
    pace: Pace,
    timer: Timer,
    progress: &Progress,
    attempt: impl Fn(P, Arc<Progress>) -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + Send,
    E: AttemptFailure,
{
    let mut race = Race {
        runners: Vec::new(),
        untried: entrants.len(),
        waiting: entrants.into(),
        refusals: 0,
        failed_at: None,
        alarm: None,
        pace,
        timer,
        progress,
    };
    let mut best: Option<E> = None;
    let (mut starting, mut batch) = (1, 1);
    loop {
        for _ in 0..starting {
            let Some(entrant) = race.next() else { break };
            let progress = Arc::default();
            let future = Box::pin(attempt(entrant.clone(), Arc::clone(&progress)));
            race.runners
                .push(Runner::new(entrant, future, progress, pace));
        }
        if race.runners.is_empty() {
            match best {
                Some(error) => return Err(error),
                None => unreachable!("a race has at least one entrant"),
            }
        }
        match poll_fn(|cx| race.poll(cx)).await {
            Event::Done(_, Ok(ready)) => return Ok(ready),
            Event::Done(entrant, Err(error)) => {
                match error.verdict() {
                    Verdict::Final => return Err(error),
                    Verdict::Full if matches!(pace, Pace::Addresses) => return Err(error),
                    Verdict::Refused => race.refusals += 1,
                    Verdict::Full | Verdict::Next => {}
                }
                if error.may_pass() {
                    race.waiting.push_back(entrant);
                }
                race.failed_at = Some(Instant::now());
                if best
                    .as_ref()
                    .is_none_or(|best| error.weight() >= best.weight())
                {
                    best = Some(error);
                }
                starting = usize::from(race.is_first_round());
            }
            Event::Overdue => {
                batch = match (pace, race.waking()) {
                    (Pace::Addresses, 0) if race.is_first_round() => batch * 2,
                    _ => 1,
                };
                starting = batch.min(race.untried.max(1));
            }
        }
    }
}

type Alarm = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Race<'a, P, F> {
    runners: Vec<Runner<P, F>>,
    /// Those to start next: first those that have not been tried, then those that have failed.
    waiting: VecDeque<P>,
    /// How many of those that wait have not been tried.
    untried: usize,
    refusals: u32,
    /// When the last attempt failed.
    failed_at: Option<Instant>,
    alarm: Option<(Instant, Alarm)>,
    pace: Pace,
    timer: Timer,
    progress: &'a Progress,
}

enum Event<P, R> {
    Done(P, R),
    /// No attempt has reached another stage for too long.
    Overdue,
}

impl<P: Clone, R, F: Future<Output = R>> Race<'_, P, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<P, R>> {
        for at in 0..self.runners.len() {
            let runner = &mut self.runners[at];
            if let Poll::Ready(result) = runner.future.as_mut().poll(cx) {
                let runner = self.runners.swap_remove(at);
                return Poll::Ready(Event::Done(runner.entrant.clone(), result));
            }
            runner.note();
            self.progress.reach(runner.stage);
        }
        loop {
            let Some(due) = self.due() else {
                self.alarm = None;
                return Poll::Pending;
            };
            let now = Instant::now();
            if due <= now {
                self.alarm = None;
                return Poll::Ready(Event::Overdue);
            }
            // An alarm that goes off too early is set anew.
            if self.alarm.as_ref().is_none_or(|(at, _)| *at > due) {
                self.alarm = Some((
                    due,
                    Box::pin(self.timer.sleep(due.saturating_duration_since(now))),
                ));
            }
            if let Some((_, alarm)) = &mut self.alarm {
                ready!(alarm.as_mut().poll(cx));
                self.alarm = None;
            }
        }
    }

    /// Returns the time at which all attempts will have been silent for too long, and another one is to be started;
    /// `None` if there is none to start.
    fn due(&self) -> Option<Instant> {
        let is_address = matches!(self.pace, Pace::Addresses);
        // Silence of the compute is worth no third login.
        if self.waiting.is_empty() || (is_address && self.waking() > 1) {
            return None;
        }
        let again = match self.is_first_round() {
            true => None,
            false => self.failed_at.and_then(|at| at.checked_add(PAUSE)),
        };
        let mut due = again;
        for runner in &self.runners {
            due = due.max(Some(runner.overdue_at()?));
        }
        due
    }

    fn next(&mut self) -> Option<P> {
        self.untried = self.untried.saturating_sub(1);
        self.waiting.pop_front()
    }

    /// Returns whether entrants are left to be started as soon as another fails. After two refusals a server's other
    /// addresses are spared.
    fn is_first_round(&self) -> bool {
        let is_refused = matches!(self.pace, Pace::Addresses) && self.refusals >= REFUSALS;
        self.untried > 0 && !is_refused
    }

    fn waking(&self) -> usize {
        let waking = |runner: &&Runner<P, F>| runner.stage == Stage::Waking;
        self.runners.iter().filter(waking).count()
    }
}

/// An attempt under way.
struct Runner<P, F> {
    entrant: P,
    future: Pin<Box<F>>,
    progress: Arc<Progress>,
    pace: Pace,
    stage: Stage,
    /// When the attempt reached its stage.
    since: Instant,
    began: Instant,
    round_trip: Duration,
}

impl<P, F> Runner<P, F> {
    fn new(entrant: P, future: Pin<Box<F>>, progress: Arc<Progress>, pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            entrant,
            future,
            progress,
            pace,
            stage: Stage::Connecting,
            since: now,
            began: now,
            round_trip: Duration::ZERO,
        }
    }

    fn note(&mut self) {
        let stage = self.progress.stage();
        if stage == self.stage {
            return;
        }
        self.since = Instant::now();
        if self.stage == Stage::Connecting {
            self.round_trip = self.since.saturating_duration_since(self.began);
        }
        self.stage = stage;
    }

    /// Returns the time at which the attempt will have been silent for too long; `None` if that is never.
    fn overdue_at(&self) -> Option<Instant> {
        let patience = self.pace.patience(self.stage, self.round_trip);
        self.since.checked_add(patience)
    }
}

impl<P, F> Drop for Runner<P, F> {
    /// Tells the attempt, which is dropped behind this, whether it has been silent for too long.
    fn drop(&mut self) {
        self.note();
        let is_overdue = self.overdue_at().is_some_and(|at| at <= Instant::now());
        self.progress
            .is_overdue
            .store(is_overdue, Ordering::Release);
    }
}
