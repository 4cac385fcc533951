//! How the pools of a simulated fleet close what idles.

use std::time::Duration;

use super::super::parts::Id;
use super::{Event, Simulation};

impl Simulation<'_> {
    /// Closes the idle connections that are at their end.
    pub(super) fn sweep(&mut self, number: Id) {
        let now = self.now;
        let idle = std::mem::take(&mut self.instances[number as usize].idle);
        for id in idle {
            match now >= self.end_of(id) {
                true => self.close(id),
                false => self.instances[number as usize].idle.push_back(id),
            }
        }
        self.instances[number as usize].is_swept = false;
        self.schedule_sweep(number);
        if self.habits.limits.min_idle > 0 {
            self.connect_due(number);
        }
    }

    /// Returns when a connection is closed that nobody uses from now on.
    fn end_of(&self, id: Id) -> Duration {
        let connection = self.connections.peek(id);
        let idle_for = self.habits.idle_timeout.unwrap_or(Duration::MAX);
        connection
            .ends
            .min(connection.used.saturating_add(idle_for))
    }

    /// Sweeps when the first idle connection is at its end: the sweeps before find nothing.
    pub(super) fn schedule_sweep(&mut self, number: Id) {
        let Some(interval) = self.habits.sweep else {
            return;
        };
        let instance = &self.instances[number as usize];
        if instance.is_swept {
            return;
        }
        let phase = instance.phase;
        let Some(first) = instance.idle.iter().map(|&id| self.end_of(id)).min() else {
            return;
        };
        let laps = (first.saturating_sub(phase)).as_secs_f64() / interval.as_secs_f64();
        let at = phase + interval.mul_f64(laps.ceil());
        // Rounded, it may lie a little before.
        let at = at.max(first).max(self.now);
        self.instances[number as usize].is_swept = true;
        self.schedule(at, Event::Sweep(number));
    }
}
