//! Neon's control plane: the compute that is suspended and wakes, the roles, the limits of attempts, the faults on request, and the events and
//! counters that tell what has happened.

pub(crate) mod admission;
pub(crate) mod compute;
pub(crate) mod counters;
pub(crate) mod event;
pub(crate) mod faults;
pub(crate) mod plan;
pub(crate) mod roles;
pub(crate) mod websocket_fault;
