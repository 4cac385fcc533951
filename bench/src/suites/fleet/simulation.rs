//! A day of a fleet on a virtual clock: events in their order, each of which may lead to others.

mod connecting;
mod sweeping;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::day::{Day, LENGTH};
use super::neon::Neon;
use super::parts::{Caller, Connect, Connection, Id, Instance, Numbered};
use super::policies::Habits;

/// Instances of one app, each with a pool, on one endpoint.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub instances: u32,
    /// How many connections the endpoint takes.
    pub most_open: u32,
    pub habits: Habits,
}

/// What a fleet met with.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub arrived: u64,
    pub served: u64,
    pub failed: u64,
    /// The callers for whom there was no idle connection.
    pub waited: u64,
    pub refused: u64,
    /// The attempts of each second.
    pub attempts: Vec<u32>,
    /// The connections that are open in each minute.
    pub open: Vec<u32>,
    pub slept: Duration,
    pub wakes: u32,
    /// In the day's order.
    pub jobs: Vec<JobOutcome>,
}

/// What the requests of a job met with.
#[derive(Clone, Debug, Default)]
pub struct JobOutcome {
    pub failed: u64,
    /// The seconds that each caller waited who was served.
    pub waits: Vec<f64>,
    /// From the job's beginning to the last answer.
    pub last: Duration,
}

/// From the first packet to the proxy's refusal.
const REFUSED: Duration = Duration::from_millis(25);
/// From the first packet to the session.
const LOGIN: Duration = Duration::from_millis(40);
/// From the awake compute to the session.
pub const REST_OF_LOGIN: Duration = Duration::from_millis(15);
/// How long a request keeps its connection.
pub const WORK: Duration = Duration::from_millis(20);
/// The pools that connect by themselves start within this time.
const START: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next request of the day.
    Request,
    JobRequest {
        instance: Id,
        job: usize,
    },
    GiveUp {
        instance: Id,
        caller: u32,
    },
    Start(Id),
    Attempt(Id),
    Refused(Id),
    Connected(Id),
    Done(Id),
    Sweep(Id),
    Woken,
    SuspendDue,
    Restart,
    Minute,
}

struct Simulation<'a> {
    habits: &'a Habits,
    day: &'a Day,
    now: Duration,
    /// By nanoseconds, and in the order in which they were scheduled.
    events: BinaryHeap<Reverse<(u64, u32, Event)>>,
    scheduled: u32,
    /// Of the arrivals; the policies have the thread's.
    random: fastrand::Rng,
    neon: Neon,
    instances: Vec<Instance>,
    connections: Numbered<Connection>,
    connects: Numbered<Connect>,
    sleepers: Vec<Id>,
    outcome: Outcome,
}

/// Returns what a fleet meets with on a day; always the same.
pub fn live(fleet: &Fleet, day: &Day) -> Outcome {
    fastrand::seed(1);
    let mut simulation = Simulation {
        habits: &fleet.habits,
        day,
        now: Duration::ZERO,
        events: BinaryHeap::new(),
        scheduled: 0,
        random: fastrand::Rng::with_seed(2),
        neon: Neon::asleep(fleet.most_open),
        instances: vec![Instance::default(); fleet.instances as usize],
        connections: Numbered::new(),
        connects: Numbered::new(),
        sleepers: Vec::new(),
        outcome: Outcome {
            attempts: vec![0; LENGTH.as_secs() as usize],
            jobs: vec![JobOutcome::default(); day.jobs.len()],
            ..Outcome::default()
        },
    };
    simulation.begin();
    simulation.run();
    simulation.outcome
}

impl Simulation<'_> {
    fn begin(&mut self) {
        let interval = self.habits.sweep.unwrap_or_default();
        for instance in 0..self.instances.len() {
            let phase = interval.mul_f64(self.random.f64());
            self.instances[instance].phase = phase;
            let at = START.mul_f64(self.random.f64());
            if self.habits.limits.min_idle > 0 {
                self.schedule(at, Event::Start(instance as Id));
            }
            for (number, job) in self.day.jobs.iter().enumerate() {
                let at = job.at + job.spread.mul_f64(self.random.f64());
                let instance = instance as Id;
                let event = Event::JobRequest {
                    instance,
                    job: number,
                };
                for _ in 0..job.requests {
                    self.schedule(at, event);
                }
            }
        }
        for &at in &self.day.restarts {
            self.schedule(at, Event::Restart);
        }
        self.schedule(Duration::ZERO, Event::Minute);
        self.schedule_request(Duration::ZERO);
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        let at = at.as_nanos() as u64;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn schedule_request(&mut self, after: Duration) {
        if let Some(at) = self.day.next(after, &mut self.random) {
            self.schedule(at, Event::Request);
        }
    }

    fn run(&mut self) {
        // Who came in the last moment is answered or has given up.
        let end = LENGTH + self.habits.patience + MINUTE;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = Duration::from_nanos(at);
            if self.now >= end {
                break;
            }
            self.meet(event);
        }
        self.outcome.wakes = self.neon.wakes();
        let Outcome {
            arrived,
            served,
            failed,
            ..
        } = self.outcome;
        assert_eq!(served + failed, arrived, "each caller has an answer");
    }

    fn meet(&mut self, event: Event) {
        match event {
            Event::Request => {
                let instance = self.random.u32(0..self.instances.len() as u32);
                self.ask(instance, None);
                self.schedule_request(self.now);
            }
            Event::JobRequest { instance, job } => self.ask(instance, Some(job)),
            Event::GiveUp { instance, caller } => self.give_up(instance, caller),
            Event::Start(instance) => self.connect_due(instance),
            Event::Attempt(connect) => self.attempt(connect),
            Event::Refused(connect) => self.refused(connect),
            Event::Connected(connect) => self.connected(connect),
            Event::Done(connection) => self.done(connection),
            Event::Sweep(instance) => self.sweep(instance),
            Event::Woken => self.woken(),
            Event::SuspendDue => {
                if let Some(due) = self.neon.suspend_if_due(self.now) {
                    self.schedule(due, Event::SuspendDue);
                }
            }
            Event::Restart => self.neon.suspend(self.now),
            Event::Minute if self.now < LENGTH => {
                self.outcome.open.push(self.neon.open());
                self.schedule(self.now + MINUTE, Event::Minute);
            }
            Event::Minute => self.outcome.slept = self.neon.slept(self.now),
        }
    }

    fn ask(&mut self, instance: Id, job: Option<usize>) {
        self.outcome.arrived += 1;
        let caller = Caller {
            number: self.outcome.arrived as u32,
            since: self.now,
            job,
        };
        if let Some(connection) = self.take_idle(instance) {
            return self.hand_out(connection, caller);
        }
        self.outcome.waited += 1;
        self.instances[instance as usize].waiting.push_back(caller);
        let event = Event::GiveUp {
            instance,
            caller: caller.number,
        };
        self.schedule(self.now + self.habits.patience, event);
        self.connect_due(instance);
    }

    /// Takes an idle connection that works, if nobody waits.
    fn take_idle(&mut self, instance: Id) -> Option<Id> {
        if !self.instances[instance as usize].waiting.is_empty() {
            return None;
        }
        loop {
            let idle = &mut self.instances[instance as usize].idle;
            let id = match self.habits.last_in_first_out {
                true => idle.pop_back()?,
                false => idle.pop_front()?,
            };
            let connection = *self.connections.get(id);
            let is_past = self.habits.asks_age_on_checkout && self.now >= connection.ends;
            if self.neon.is_alive(connection.life) && !is_past {
                return Some(id);
            }
            self.close(id);
        }
    }

    fn close(&mut self, connection: Id) {
        let connection = self.connections.take(connection);
        self.neon.close(connection.life);
    }

    fn hand_out(&mut self, id: Id, caller: Caller) {
        let connection = self.connections.get(id);
        connection.caller = Some(caller);
        self.instances[connection.instance as usize].busy += 1;
        self.neon.touch(self.now);
        self.schedule(self.now + WORK, Event::Done(id));
    }

    fn done(&mut self, id: Id) {
        let now = self.now;
        let connection = self.connections.get(id);
        connection.used = now;
        let caller = connection.caller.take().expect("a caller");
        let Connection {
            instance,
            life,
            ends,
            ..
        } = *connection;
        self.instances[instance as usize].busy -= 1;
        if !self.neon.is_alive(life) {
            self.fail(caller);
            self.close(id);
            return self.connect_due(instance);
        }
        self.neon.touch(now);
        self.outcome.served += 1;
        if let Some(job) = caller.job {
            let begun = self.day.jobs[job].at;
            let outcome = &mut self.outcome.jobs[job];
            let waited = now - caller.since - WORK;
            outcome.waits.push(waited.as_secs_f64());
            outcome.last = outcome.last.max(now - begun);
        }
        match now >= ends {
            true => self.close(id),
            false => self.give(id),
        }
        self.connect_due(instance);
    }

    /// Gives a connection to the caller that waits first, or lets it idle.
    fn give(&mut self, id: Id) {
        let number = self.connections.get(id).instance;
        let instance = &mut self.instances[number as usize];
        match instance.waiting.pop_front() {
            Some(caller) => self.hand_out(id, caller),
            None => {
                instance.idle.push_back(id);
                self.schedule_sweep(number);
            }
        }
    }

    fn give_up(&mut self, instance: Id, caller: u32) {
        let waiting = &mut self.instances[instance as usize].waiting;
        let place = waiting.iter().position(|one| one.number == caller);
        if let Some(caller) = place.and_then(|place| waiting.remove(place)) {
            self.fail(caller);
        }
    }

    fn fail(&mut self, caller: Caller) {
        self.outcome.failed += 1;
        if let Some(job) = caller.job {
            self.outcome.jobs[job].failed += 1;
        }
    }
}
