//! Counts of what was done, and of what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use diesel_neon::Status;

use super::faults::Fault;
use super::load::{Kind, Outcome, Request};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    /// The most connections that a pool had.
    pub(crate) widest: u32,
    pub(crate) burst: u64,
    kinds: BTreeMap<Kind, Counts>,
    faults: BTreeMap<String, u64>,
    slowest: Duration,
    pools: Vec<Status>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: u64,
    rolled_back: u64,
    again: u64,
    ambiguous: u64,
    cancelled: u64,
    /// How many of the two before were in the database all the same.
    found: u64,
}

impl Tally {
    pub(super) fn fault(&mut self, fault: &Fault) {
        *self.faults.entry(fault.to_string()).or_default() += 1;
    }

    pub(super) fn request(&mut self, request: &Request) {
        let counts = self.kinds.entry(request.kind).or_default();
        match request.outcome {
            Outcome::Acknowledged => counts.acknowledged += 1,
            Outcome::RolledBack => counts.rolled_back += 1,
            Outcome::Ambiguous => counts.ambiguous += 1,
            Outcome::Cancelled => counts.cancelled += 1,
            Outcome::Failed(_) => {}
        }
        counts.again += u64::from(request.attempts.load(Ordering::Relaxed).saturating_sub(1));
        self.slowest = self.slowest.max(request.took);
    }

    pub(super) fn found(&mut self, request: &Request, found: bool) {
        if found && matches!(request.outcome, Outcome::Ambiguous | Outcome::Cancelled) {
            self.kinds.entry(request.kind).or_default().found += 1;
        }
    }

    pub(super) fn pools(&mut self, pools: impl Iterator<Item = Status>) {
        self.pools = pools.collect();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds", self.rounds)?;
        for (fault, times) in &self.faults {
            writeln!(f, "  {times:>7} {fault}")?;
        }
        writeln!(
            f,
            "{:22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "requests", "done", "undone", "again", "ambiguous", "cancelled", "of which*"
        )?;
        for (kind, counts) in &self.kinds {
            writeln!(
                f,
                "{:22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                format!("{kind:?}"),
                counts.acknowledged,
                counts.rolled_back,
                counts.again,
                counts.ambiguous,
                counts.cancelled,
                counts.found,
            )?;
        }
        writeln!(f, "* ambiguous or cancelled, and written all the same")?;
        writeln!(
            f,
            "{} in bursts, the slowest request took {:.1?}",
            self.burst, self.slowest
        )?;
        for pool in &self.pools {
            writeln!(
                f,
                "{pool}; {:?}; {:?}; {:?}",
                pool.connects, pool.checks, pool.closed
            )?;
        }
        write!(f, "never more than {} connections to a pool", self.widest)
    }
}
