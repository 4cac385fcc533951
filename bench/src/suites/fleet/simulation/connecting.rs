//! How the pools of a simulated fleet connect.

use super::super::neon::{Answer, COLD_START, WINDOW};
use super::super::parts::{Connect, Connection, Id};
use super::super::policies::{Demand, Refusal};
use super::{Event, LOGIN, REFUSED, REST_OF_LOGIN, Simulation};

impl Simulation<'_> {
    /// Begins as many connects as the pool does.
    pub(super) fn connect_due(&mut self, number: Id) {
        let instance = &mut self.instances[number as usize];
        let idle = instance.idle.len() as u32;
        let usable = idle + instance.busy;
        let due = self.habits.limits.due(&Demand {
            waiting: instance.waiting.len() as u32,
            idle,
            checking: 0,
            connecting: instance.connecting,
            usable,
            all: usable + instance.connecting,
            is_refused: false,
        });
        instance.connecting += due;
        for _ in 0..due {
            let connect = self.connects.add(Connect {
                instance: number,
                began: self.now,
                failures: 0,
            });
            self.attempt(connect);
        }
    }

    pub(super) fn attempt(&mut self, connect: Id) {
        if let Some(count) = self.outcome.attempts.get_mut(self.now.as_secs() as usize) {
            *count += 1;
        }
        match self.neon.attempt(self.now) {
            Answer::Refused => self.schedule(self.now + REFUSED, Event::Refused(connect)),
            Answer::Admitted => self.schedule(self.now + LOGIN, Event::Connected(connect)),
            Answer::Waits => self.sleepers.push(connect),
            Answer::Wakes => {
                self.sleepers.push(connect);
                self.schedule(self.now + COLD_START, Event::Woken);
            }
        }
    }

    pub(super) fn woken(&mut self) {
        self.neon.wake(self.now);
        self.schedule(self.now + WINDOW, Event::SuspendDue);
        for connect in std::mem::take(&mut self.sleepers) {
            self.schedule(self.now + REST_OF_LOGIN, Event::Connected(connect));
        }
    }

    pub(super) fn connected(&mut self, id: Id) {
        let Some(life) = self.neon.connect(self.now) else {
            return self.refused(id);
        };
        let Connect {
            instance: number, ..
        } = self.connects.take(id);
        let instance = &mut self.instances[number as usize];
        instance.connecting -= 1;
        instance.failures = 0;
        let connection = self.connections.add(Connection {
            instance: number,
            life,
            ends: self.now.saturating_add(self.habits.lifetime.draw()),
            used: self.now,
            caller: None,
        });
        self.give(connection);
        self.connect_due(number);
    }

    pub(super) fn refused(&mut self, id: Id) {
        self.outcome.refused += 1;
        let connect = self.connects.get(id);
        let instance = &mut self.instances[connect.instance as usize];
        let failures = match self.habits.refusal {
            Refusal::Backoff { .. } => instance.failures,
            _ => connect.failures,
        };
        connect.failures += 1;
        instance.failures += 1;
        let under_way = self.now - connect.began;
        if let Some(pause) = self.habits.refusal.pause(failures, under_way) {
            return self.schedule(self.now + pause, Event::Attempt(id));
        }
        let connect = self.connects.take(id);
        instance.connecting -= 1;
        let told = match self.habits.refusal {
            Refusal::Told => instance.waiting.pop_front(),
            _ => None,
        };
        if let Some(caller) = told {
            self.fail(caller);
        }
        self.connect_due(connect.instance);
    }
}
