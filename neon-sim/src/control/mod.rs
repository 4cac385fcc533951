//! What Neon's control plane does and knows: when the compute sleeps and wakes, which roles there are, what is to go
//! wrong; and what is told of all that.

pub(crate) mod compute;
pub(crate) mod counters;
pub(crate) mod event;
pub(crate) mod faults;
pub(crate) mod roles;
