//! Synchronous Diesel on the pool: statements, transactions and migrations as code for `PgConnection` has them, from any
//! thread and inside of any runtime.

#[path = "../common/mod.rs"]
mod common;

mod cancelled;
mod instrumentation;
mod migrations;
mod nested;
mod pools;
mod r2d2;
mod statements;
mod transactions;
mod types;

use std::ops::Deref;

use diesel_neon::blocking::Pool;
use diesel_neon::{Policy, PolicyBuilder};
use neon_sim::NeonSim;
use tokio::runtime::{Builder, Runtime};

/// A stand-in for Neon on a runtime of its own, whose worker runs while the test blocks its thread.
struct Sim {
    neon: NeonSim,
    runtime: Runtime,
}

impl Sim {
    fn sql(&self, sql: &str) -> Option<String> {
        let rows = self.runtime.block_on(self.neon.sql(sql)).unwrap();
        rows.first()?.first()?.clone()
    }

    /// Waits until a query of the superuser's returns `value`.
    fn until(&self, sql: &str, value: &str) {
        self.runtime.block_on(common::until(&self.neon, sql, value));
    }

    fn suspend(&self, suspension: neon_sim::Suspension) {
        self.runtime.block_on(self.neon.suspend(suspension));
    }
}

impl Deref for Sim {
    type Target = NeonSim;

    fn deref(&self) -> &NeonSim {
        &self.neon
    }
}

/// Starts a stand-in with the tables `users` and `books`.
fn start() -> Sim {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let neon = runtime.block_on(common::start());
    let sim = Sim { neon, runtime };
    sim.sql(concat!(
        "SET ROLE neondb_owner; ",
        include_str!("../../migrations/2026-01-05-090000_create_books/up.sql")
    ));
    sim
}

fn pool(url: &str, policy: impl FnOnce(PolicyBuilder) -> PolicyBuilder) -> Pool {
    let policy = policy(Policy::builder());
    Pool::builder(url).policy(policy).build_blocking().unwrap()
}
