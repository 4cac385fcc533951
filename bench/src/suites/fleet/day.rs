//! The day of a fleet: when requests come, and what happens to all instances at once.

use std::f64::consts::PI;
use std::time::Duration;

/// A day's requests.
#[derive(Clone, Debug)]
pub struct Day {
    /// The fleet's requests in a second at the busiest time, half past two.
    pub peak: f64,
    /// The fleet's requests in a second at night.
    pub night: f64,
    pub jobs: Vec<Job>,
    /// When the compute is restarted, which ends all connections.
    pub restarts: Vec<Duration>,
}

/// What all instances do at the same time, each at a moment of its own within the spread.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub at: Duration,
    pub spread: Duration,
    /// The requests of each instance, all at once.
    pub requests: u32,
}

pub const LENGTH: Duration = Duration::from_secs(24 * 3600);
const MORNING: f64 = 7.0;
const EVENING: f64 = 22.0;

impl Day {
    /// Returns the requests in a second at a moment.
    pub fn rate(&self, at: Duration) -> f64 {
        let hour = at.as_secs_f64() / 3600.0;
        let awake = (hour - MORNING) / (EVENING - MORNING);
        match (0.0..1.0).contains(&awake) {
            true => self.night + self.peak * (awake * PI).sin(),
            false => self.night,
        }
    }

    /// Returns the moment of the next request of a Poisson process with this rate, if there is one on this day.
    pub fn next(&self, mut at: Duration, random: &mut fastrand::Rng) -> Option<Duration> {
        let most = self.night + self.peak;
        if most <= 0.0 {
            return None;
        }
        loop {
            let gap = -(1.0 - random.f64()).ln() / most;
            at += Duration::from_secs_f64(gap);
            if at >= LENGTH {
                return None;
            }
            if random.f64() * most < self.rate(at) {
                return Some(at);
            }
        }
    }
}
