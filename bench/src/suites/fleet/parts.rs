//! What a simulated fleet is made of.

use std::collections::VecDeque;
use std::time::Duration;

pub type Id = u32;

#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// The connections that nobody uses, the last used at the back.
    pub idle: VecDeque<Id>,
    pub busy: u32,
    pub connecting: u32,
    pub waiting: VecDeque<Caller>,
    /// The failed attempts since the last success.
    pub failures: u32,
    pub is_swept: bool,
    /// When it sweeps, within an interval.
    pub phase: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub number: u32,
    pub since: Duration,
    pub job: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub instance: Id,
    pub life: u32,
    pub ends: Duration,
    pub used: Duration,
    pub caller: Option<Caller>,
}

#[derive(Clone, Copy, Debug)]
pub struct Connect {
    pub instance: Id,
    pub began: Duration,
    pub failures: u32,
}

/// Values by number; a number is used again once its value is taken.
#[derive(Debug)]
pub struct Numbered<T> {
    values: Vec<Option<T>>,
    free: Vec<Id>,
}

impl<T> Numbered<T> {
    pub const fn new() -> Self {
        Self {
            values: Vec::new(),
            free: Vec::new(),
        }
    }

    pub fn add(&mut self, value: T) -> Id {
        if let Some(id) = self.free.pop() {
            self.values[id as usize] = Some(value);
            return id;
        }
        self.values.push(Some(value));
        (self.values.len() - 1) as Id
    }

    pub fn peek(&self, id: Id) -> &T {
        self.values[id as usize].as_ref().expect("a number in use")
    }

    pub fn get(&mut self, id: Id) -> &mut T {
        self.values[id as usize].as_mut().expect("a number in use")
    }

    pub fn take(&mut self, id: Id) -> T {
        self.free.push(id);
        self.values[id as usize].take().expect("a number in use")
    }
}
