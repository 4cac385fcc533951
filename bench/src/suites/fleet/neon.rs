//! Neon on a virtual clock: the limits of its proxy, by the stand-in's own code, and a compute that suspends.

#[allow(dead_code)]
#[path = "../../../../neon-sim/src/control/admission.rs"]
mod admission;

use std::time::Duration;

use self::admission::Admission;

/// What comes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Refused,
    /// The compute is awake.
    Admitted,
    /// The compute has begun to wake.
    Wakes,
    /// The compute is waking.
    Waits,
}

/// One endpoint.
#[derive(Debug)]
pub struct Neon {
    admission: Admission,
    phase: Phase,
    /// How many connections it takes.
    most_open: u32,
    open: u32,
    /// Counts the lives of the compute: a connection ends with the one in which it began.
    life: u32,
    last_activity: Duration,
    slept: Duration,
    wakes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Awake,
    Asleep { since: Duration },
    Waking,
}

/// Neon's default.
pub const WINDOW: Duration = Duration::from_secs(300);
pub const COLD_START: Duration = Duration::from_millis(450);

impl Neon {
    /// Returns an endpoint whose compute sleeps.
    pub fn asleep(most_open: u32) -> Self {
        Self {
            admission: Admission::default(),
            phase: Phase::Asleep {
                since: Duration::ZERO,
            },
            most_open,
            open: 0,
            life: 0,
            last_activity: Duration::ZERO,
            slept: Duration::ZERO,
            wakes: 0,
        }
    }

    pub fn attempt(&mut self, now: Duration) -> Answer {
        if self.admission.refuse_login(now).is_some() {
            return Answer::Refused;
        }
        match self.phase {
            Phase::Awake => Answer::Admitted,
            _ if self.admission.refuse_wake(now).is_some() => Answer::Refused,
            Phase::Waking => Answer::Waits,
            Phase::Asleep { since } => {
                self.slept += now - since;
                self.phase = Phase::Waking;
                self.wakes += 1;
                Answer::Wakes
            }
        }
    }

    pub fn wake(&mut self, now: Duration) {
        self.phase = Phase::Awake;
        self.touch(now);
    }

    /// Opens a connection of an attempt that was admitted, unless there are too many. Returns the compute's life.
    pub fn connect(&mut self, now: Duration) -> Option<u32> {
        let has_room = self.phase == Phase::Awake && self.open < self.most_open;
        has_room.then(|| {
            self.open += 1;
            self.touch(now);
            self.life
        })
    }

    /// A client closes a connection that began in `life`.
    pub fn close(&mut self, life: u32) {
        if life == self.life {
            self.open -= 1;
        }
    }

    pub fn touch(&mut self, now: Duration) {
        self.last_activity = now;
    }

    /// Returns whether a connection that began in `life` is still open.
    pub fn is_alive(&self, life: u32) -> bool {
        life == self.life
    }

    /// Suspends the compute if it is due. Returns when it may be due next, while it is awake.
    pub fn suspend_if_due(&mut self, now: Duration) -> Option<Duration> {
        let due = self.last_activity + WINDOW;
        if self.phase != Phase::Awake || now < due {
            return (self.phase == Phase::Awake).then_some(due);
        }
        self.suspend(now);
        None
    }

    /// Ends the compute and all of its connections.
    pub fn suspend(&mut self, now: Duration) {
        if self.phase == Phase::Awake {
            self.phase = Phase::Asleep { since: now };
            self.life += 1;
            self.open = 0;
        }
    }

    pub fn open(&self) -> u32 {
        self.open
    }

    pub fn wakes(&self) -> u32 {
        self.wakes
    }

    /// Returns how long the compute has slept.
    pub fn slept(&self, now: Duration) -> Duration {
        match self.phase {
            Phase::Asleep { since } => self.slept + (now - since),
            _ => self.slept,
        }
    }
}
