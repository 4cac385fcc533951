//! [`Runner`]: lists the migrations of a database, and applies and reverts them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Fault, MigrateError};
use super::known::Known;
use super::report::{Direction, Done, Listed, Progress, Report, State};
use super::script::Script;
use super::session::Session;
use super::table::{Entry, MigrationTable};
use super::{lock, session};
use crate::url::DatabaseUrl;

/// The settings of a migrator, and the way in which it runs.
#[derive(Clone)]
pub(super) struct Runner {
    pub(super) url: DatabaseUrl,
    pub(super) source: Arc<dyn MigrationSource<Pg> + Send + Sync>,
    pub(super) lock_wait: Duration,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) statement_timeout: Option<Duration>,
    pub(super) on_progress: Option<Arc<OnProgress>>,
}

pub(super) type OnProgress = dyn Fn(&Progress) + Send + Sync;

impl Runner {
    pub(super) async fn list(&self) -> Result<Vec<Listed>, MigrateError> {
        let runner = self.clone();
        detached(async move |stop| runner.list_until(stop).await).await
    }

    async fn list_until(&self, stop: CancellationToken) -> Result<Vec<Listed>, MigrateError> {
        let session = Session::open(&self.url, stop).await?;
        let applied = match MigrationTable::find(&session).await? {
            Some(table) => table.applied(&session).await?,
            None => Default::default(),
        };
        let known = Known::load(&*self.source)?;
        let here = known.names().map(|(version, name)| Listed {
            name,
            version: version.to_owned(),
            state: match applied.get(version) {
                Some(entry) => State::Applied {
                    run_on: entry.run_on.clone(),
                    edited: is_edited(&known, version, entry),
                },
                None => State::Pending,
            },
        });
        let elsewhere = applied.iter().filter(|(version, _)| !known.has(version));
        let elsewhere = elsewhere.map(|(version, entry)| Listed {
            name: version.clone(),
            version: version.clone(),
            state: State::Unknown {
                run_on: entry.run_on.clone(),
            },
        });
        let mut listed: Vec<_> = here.chain(elsewhere).collect();
        listed.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(listed)
    }

    pub(super) async fn run(&self, order: Order) -> Result<Report, MigrateError> {
        let runner = self.clone();
        detached(async move |stop| {
            let session = Session::open(&runner.url, stop).await?;
            let report = runner.run_in(&session, order).await;
            session.close(&lock::release()).await;
            report
        })
        .await
    }

    async fn run_in(&self, session: &Session, order: Order) -> Result<Report, MigrateError> {
        let settings = self.settings(session.try_connection_check().await);
        let waited = lock::take(session, self.lock_wait, |waiting| self.tell(&waiting)).await?;
        let mut table = MigrationTable::find_or_create(session).await?;
        let applied = table.applied(session).await?;
        let scripts = self.scripts(order, &applied)?;
        if scripts.iter().any(|s| s.direction == Direction::Up) {
            table = table.with_checksums(session).await?;
        }
        // One transaction, as in the diesel CLI: if a redo fails, the reverted migrations come back.
        let together = matches!(order, Order::Redo(_)) && scripts.iter().all(|s| s.in_transaction);

        let mut done = Vec::new();
        for (i, script) in scripts.iter().enumerate() {
            let framing = match (script.in_transaction, together) {
                (false, _) => Framing::NONE,
                (true, false) => Framing::WHOLE,
                (true, true) => Framing {
                    begins: i == 0,
                    commits: i + 1 == scripts.len(),
                    ..Framing::WHOLE
                },
            };
            match self
                .run_script(session, &table, script, framing, &settings)
                .await
            {
                Ok(one) => done.push(one),
                Err(error) if together => return Err(error),
                Err(error) => return Err(error.after(done)),
            }
        }
        Ok(Report { done, waited })
    }

    /// Reads all scripts of an order, before the first is run.
    fn scripts(
        &self,
        order: Order,
        applied: &BTreeMap<String, Entry>,
    ) -> Result<Vec<Script>, MigrateError> {
        let known = Known::load(&*self.source)?;
        if matches!(order, Order::Run) {
            for (version, name) in known.names() {
                let entry = applied.get(version);
                if entry.is_some_and(|entry| is_edited(&known, version, entry)) {
                    self.tell(&Progress::Edited { name });
                }
            }
        }
        order.scripts(&known, &applied.keys().cloned().collect::<Vec<_>>())
    }

    async fn run_script(
        &self,
        session: &Session,
        table: &MigrationTable,
        script: &Script,
        framing: Framing,
        settings: &str,
    ) -> Result<Done, MigrateError> {
        self.tell(&Progress::Started {
            name: script.name.clone(),
            direction: script.direction,
        });
        let began = Instant::now();
        let lock_timeout = milliseconds(self.lock_timeout.filter(|_| framing.inside));
        let settings = format!("{settings}; SET lock_timeout = {lock_timeout}");
        // BEGIN has a message of its own: one with the settings would begin before they are reset.
        let begin = framing.begins.then_some("BEGIN");
        for sql in [Some(&*settings), begin].into_iter().flatten() {
            let prelude = session.batch(sql).await;
            prelude.map_err(|why| why.explain(|_, error| MigrateError::migration_table(error)))?;
        }
        for batch in &script.batches {
            let failed = |completed, error| MigrateError::failed(script, batch, completed, error);
            let run = session.batch(batch).await;
            run.map_err(|why| why.explain(failed))?;
        }
        let fault = match (framing.inside, session.in_transaction()) {
            (true, false) => Some(Fault::EndedTransaction),
            (false, true) => Some(Fault::LeavesTransactionOpen),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(MigrateError::Faulty {
                name: script.name.clone(),
                direction: script.direction,
                fault,
            });
        }
        let mut entry = table.entry(script);
        if framing.commits {
            entry.push_str("; COMMIT");
        }
        let recorded = session.record(&entry).await;
        recorded
            .map_err(|why| why.explain(|_, error| MigrateError::failed_behind(script, error)))?;
        let done = Done {
            name: script.name.clone(),
            version: script.version.clone(),
            direction: script.direction,
            took: began.elapsed(),
        };
        self.tell(&Progress::Finished(done.clone()));
        Ok(done)
    }

    /// Returns the statements that each migration begins with.
    fn settings(&self, has_connection_check: bool) -> String {
        let timeout = milliseconds(self.statement_timeout);
        let mut settings = format!(
            "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; SET statement_timeout = {timeout}"
        );
        if has_connection_check {
            settings.push_str("; ");
            settings.push_str(session::CONNECTION_CHECK);
        }
        settings
    }

    fn tell(&self, progress: &Progress) {
        match progress {
            Progress::Waiting { holder } => {
                tracing::info!(%holder, "waiting for the migrations' lock");
            }
            Progress::Edited { name } => {
                tracing::warn!(
                    migration = name,
                    "the migration was edited after it was applied"
                );
            }
            Progress::Started { name, direction } => {
                tracing::debug!(migration = name, ?direction, "a migration begins");
            }
            Progress::Finished(done) => {
                let Done {
                    name,
                    direction,
                    took,
                    ..
                } = done;
                tracing::info!(migration = name, ?direction, ?took, "a migration is done");
            }
        }
        if let Some(on_progress) = &self.on_progress {
            on_progress(progress);
        }
    }
}

fn is_edited(known: &Known, version: &str, entry: &Entry) -> bool {
    let checksum = entry.checksum.as_deref();
    checksum.is_some_and(|checksum| known.is_edited(version, checksum))
}

/// The migrations that a run applies or reverts; the numbers count from the latest.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Run,
    Revert(usize),
    Redo(usize),
}

impl Order {
    /// Returns the scripts in the order in which they are run; `applied` is in the order of the versions.
    fn scripts(self, known: &Known, applied: &[String]) -> Result<Vec<Script>, MigrateError> {
        let last = |n: usize| &applied[applied.len().saturating_sub(n)..];
        let up = |version: &str| known.script(version, Direction::Up);
        let down = |version: &String| known.script(version, Direction::Down);
        match self {
            Self::Run => {
                let all = known.names().map(|(version, _)| version);
                let pending = all.filter(|version| !applied.iter().any(|other| other == version));
                pending.map(up).collect()
            }
            Self::Revert(n) => last(n).iter().rev().map(down).collect(),
            Self::Redo(n) => {
                let again = last(n).iter().map(|version| up(version));
                last(n).iter().rev().map(down).chain(again).collect()
            }
        }
    }
}

/// The transaction around a migration, and which of its ends are the migration's own.
#[derive(Clone, Copy)]
struct Framing {
    inside: bool,
    begins: bool,
    commits: bool,
}

impl Framing {
    const NONE: Self = Self {
        inside: false,
        begins: false,
        commits: false,
    };
    const WHOLE: Self = Self {
        inside: true,
        begins: true,
        commits: true,
    };
}

/// Returns a timeout as the server takes it: zero means none.
fn milliseconds(timeout: Option<Duration>) -> u128 {
    timeout.map_or(0, |timeout| timeout.as_millis().clamp(1, i32::MAX as u128))
}

/// Runs `work` as a task of its own and tells it when the caller's future is dropped: the task can then
/// still bring its statement to an end.
async fn detached<T, F>(work: impl FnOnce(CancellationToken) -> F) -> Result<T, MigrateError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, MigrateError>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    match tokio::spawn(work(stop)).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(MigrateError::Stopped),
        },
    }
}
