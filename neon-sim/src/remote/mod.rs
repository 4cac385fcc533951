//! The stand-in's faults, events and counters over HTTP, for programs in other processes.

pub(crate) mod listener;
mod order;
mod report;
