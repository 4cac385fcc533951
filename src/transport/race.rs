//! [`race`]: runs several attempts, started one after another, until the first succeeds.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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
pub(crate) struct Progress(AtomicU8);

impl Progress {
    /// Records that the attempt has reached `stage`.
    pub(crate) fn reach(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::AcqRel);
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.0.load(Ordering::Acquire) {
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
    /// Every address would fail in the same way.
    Final,
}

/// A failure of one attempt of a race.
pub(crate) trait AttemptFailure: Send {
    /// Returns the consequence for the other attempts.
    fn verdict(&self) -> Verdict;

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
    /// the one before it has reached another stage for so long.
    Servers(Duration),
}

impl Pace {
    /// Returns how long an attempt may stay in `stage` before the next one is started.
    fn patience(self, stage: Stage, round_trip: Duration) -> Option<Duration> {
        // TLS takes up to three round trips, whose length TCP has shown.
        let flights = round_trip.saturating_mul(4);
        match (self, stage) {
            (Self::Addresses, Stage::Connecting) => Some(STAGGER),
            (Self::Addresses, Stage::Securing) => Some(STAGGER.max(flights)),
            (Self::Addresses, Stage::LoggingIn) => Some(SILENCE.max(flights)),
            (Self::Addresses, Stage::Waking) => Some(COLD_START),
            (Self::Servers(_), Stage::Waking) => None,
            (Self::Servers(patience), _) => Some(patience),
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

/// Runs `attempt` for one entrant after another, at the `pace` or as soon as one fails, until the first
/// succeeds, and drops the rest. Reports the most advanced attempt's stage in `progress`.
pub(super) async fn race<P, T, E, F>(
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
        alarm: None,
        pace,
        timer,
        progress,
    };
    let mut entrants = entrants.into_iter();
    let mut best: Option<E> = None;
    let (mut starting, mut batch, mut refusals) = (1, 1, 0);
    loop {
        for entrant in entrants.by_ref().take(starting) {
            let progress = Arc::default();
            let future = Box::pin(attempt(entrant, Arc::clone(&progress)));
            race.runners.push(Runner::new(future, progress));
        }
        if race.runners.is_empty() {
            match best {
                Some(error) => return Err(error),
                None => unreachable!("a race has at least one entrant"),
            }
        }
        let may_start = entrants.len() > 0;
        match poll_fn(|cx| race.poll(cx, may_start)).await {
            Event::Done(Ok(ready)) => return Ok(ready),
            Event::Done(Err(error)) => {
                match error.verdict() {
                    Verdict::Final => return Err(error),
                    Verdict::Refused => refusals += 1,
                    Verdict::Next => {}
                }
                if refusals >= REFUSALS {
                    entrants = Vec::new().into_iter();
                }
                if best
                    .as_ref()
                    .is_none_or(|best| error.weight() >= best.weight())
                {
                    best = Some(error);
                }
                starting = 1;
            }
            Event::Overdue => {
                batch = match (pace, race.waking()) {
                    (Pace::Addresses, 0) => batch * 2,
                    _ => 1,
                };
                starting = batch;
            }
        }
    }
}

type Alarm = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Race<'a, F> {
    runners: Vec<Runner<F>>,
    alarm: Option<(Instant, Alarm)>,
    pace: Pace,
    timer: Timer,
    progress: &'a Progress,
}

enum Event<R> {
    Done(R),
    /// No attempt has reached another stage for too long.
    Overdue,
}

impl<R, F: Future<Output = R>> Race<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>, may_start: bool) -> Poll<Event<R>> {
        for at in 0..self.runners.len() {
            let runner = &mut self.runners[at];
            if let Poll::Ready(result) = runner.future.as_mut().poll(cx) {
                self.runners.swap_remove(at);
                return Poll::Ready(Event::Done(result));
            }
            runner.note();
            self.progress.reach(runner.stage);
        }
        if !may_start {
            self.alarm = None;
            return Poll::Pending;
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

    /// Returns the time at which all attempts will have been silent for too long; `None` if they may be silent for
    /// ever.
    fn due(&self) -> Option<Instant> {
        // Silence of the compute is worth no third login.
        if self.waking() > 1 {
            return None;
        }
        let mut due = None;
        for runner in &self.runners {
            let patience = self.pace.patience(runner.stage, runner.round_trip)?;
            due = due.max(Some(runner.since.checked_add(patience)?));
        }
        due
    }

    fn waking(&self) -> usize {
        let waking = |runner: &&Runner<F>| runner.stage == Stage::Waking;
        self.runners.iter().filter(waking).count()
    }
}

/// An attempt under way.
struct Runner<F> {
    future: Pin<Box<F>>,
    progress: Arc<Progress>,
    stage: Stage,
    /// When the attempt reached its stage.
    since: Instant,
    began: Instant,
    round_trip: Duration,
}

impl<F> Runner<F> {
    fn new(future: Pin<Box<F>>, progress: Arc<Progress>) -> Self {
        let now = Instant::now();
        Self {
            future,
            progress,
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
}
