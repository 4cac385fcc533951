//! [`Activity`]: what the server says of the processes of connections that are silent.

use std::time::Duration;

use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};
use diesel::{QueryResult, QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use tokio::time::Instant;

use super::entry::PoolEntry;
use crate::connect::Establish;
use crate::session::{ServerProcess, Verdict};

/// What the server says of one process. All times are microseconds.
#[derive(Debug, QueryableByName)]
pub(super) struct Activity {
    #[diesel(sql_type = Integer)]
    pid: i32,
    /// `None` if no process has this number, or the role may not see it.
    #[diesel(sql_type = Nullable<BigInt>)]
    began: Option<i64>,
    #[diesel(sql_type = Bool)]
    is_there: bool,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    /// For how long it has been in this state.
    #[diesel(sql_type = Nullable<BigInt>)]
    since: Option<i64>,
    #[diesel(sql_type = BigInt)]
    server_began: i64,
    #[diesel(sql_type = BigInt)]
    clock: i64,
    /// Whether it was ended, if that was asked.
    #[diesel(sql_type = Nullable<Bool>)]
    ended: Option<bool>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It is gone.
    Gone,
    /// It runs a statement, or nobody can tell.
    Busy,
    /// It waits for a statement, for so long.
    Idle(Duration),
}

/// When the silent statement was sent, as far as that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// How long ago it was sent at most when the server's answer had come; `None` if a byte has come since.
    pub(super) at_most: Option<Duration>,
    /// How long ago the server was last heard from at least when it was asked.
    pub(super) heard: Duration,
    /// Whether a transaction was open when it was sent, and can be no other now.
    pub(super) in_transaction: bool,
    /// Whether it was sent without others that wait as well.
    pub(super) is_alone: bool,
    /// When the server was asked.
    pub(super) asked_at: Instant,
}

impl Activity {
    pub(super) fn is_of(&self, process: &ServerProcess) -> bool {
        self.pid == process.pid
    }

    /// Returns what the process does. If the server that was asked is not the one of the process, the process is gone
    /// only if there `is_one_server`, which has begun anew.
    pub(super) fn doing(&self, process: &ServerProcess, is_one_server: bool) -> Doing {
        if self.server_began != process.server_began {
            return match is_one_server {
                true => Doing::Gone,
                false => Doing::Busy,
            };
        }
        match (self.is_there, self.began) {
            (false, _) => return Doing::Gone,
            (true, Some(began)) if began != process.began => return Doing::Gone,
            (true, None) => return Doing::Busy,
            _ => {}
        }
        let is_idle = self
            .state
            .as_deref()
            .is_some_and(|state| state.starts_with("idle"));
        let since = self.since.and_then(|since| u64::try_from(since).ok());
        match since {
            Some(since) if is_idle => Doing::Idle(Duration::from_micros(since)),
            _ => Doing::Busy,
        }
    }

    /// Returns whether the process was left alone although it is there.
    pub(super) fn may_run(&self) -> bool {
        self.is_there && self.ended != Some(true)
    }

    /// Returns what became of the statement of a process that was asked and ended.
    ///
    /// Durations are compared, since the clocks of two machines differ. A clock of the server's that was set forward
    /// meanwhile shows: more time has passed there than here since the process named itself.
    pub(super) fn verdict(&self, process: &ServerProcess, sent: &Sent) -> Verdict {
        let idle = match self.doing(process, false) {
            Doing::Gone => return Verdict::ProcessGone,
            Doing::Busy => return Verdict::ProcessIdle,
            Doing::Idle(idle) => idle,
        };
        let is_ended = self.ended == Some(true);
        let there = self.clock.saturating_sub(process.clock);
        let there = Duration::from_micros(u64::try_from(there).unwrap_or_default());
        let here = sent.asked_at.saturating_duration_since(process.read_at);
        let surplus = there.saturating_sub(here);
        // Clocks that are slewed go wrong by less than a thousandth.
        let margin = MARGIN.saturating_add(here / 1000);
        let is_in_transaction = self.state.as_deref() != Some("idle");
        if is_ended
            && sent.at_most.is_some_and(|at_most| {
                idle.saturating_sub(surplus) > at_most.saturating_add(margin)
            })
        {
            Verdict::NeverArrived
        } else if is_ended && sent.is_alone && sent.in_transaction && is_in_transaction {
            Verdict::RolledBack
        } else if sent.is_alone && idle < sent.heard {
            Verdict::AnswerLost
        } else {
            Verdict::ProcessIdle
        }
    }
}

/// How much longer than the statement can have waited a process must have idled, for the statement not to have arrived.
const MARGIN: Duration = Duration::from_millis(100);

/// Asks the server what the processes do.
pub(super) async fn ask<C: Establish>(
    entry: &mut PoolEntry<C>,
    processes: &[ServerProcess],
) -> QueryResult<Vec<Activity>> {
    let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
    let asked = sql_query(format!(
        "SELECT {COLUMNS}, NULL::boolean AS ended FROM {TABLES}"
    ));
    asked
        .bind::<Array<Integer>, _>(pids)
        .load(&mut **entry)
        .await
}

/// Asks the server what one process does, and ends it: it does nothing later, and holds no lock.
pub(super) async fn ask_and_end<C: Establish>(
    entry: &mut PoolEntry<C>,
    process: &ServerProcess,
) -> QueryResult<Vec<Activity>> {
    // The state is read before. A statement that has arrived meanwhile is not ended.
    let asked = sql_query(format!(
        "SELECT {COLUMNS}, CASE WHEN (extract(epoch FROM a.backend_start) * 1000000)::bigint = $2 AND a.state LIKE 'idle%' \
         THEN pg_terminate_backend(a.pid) END AS ended FROM {TABLES}"
    ));
    asked
        .bind::<Array<Integer>, _>(vec![process.pid])
        .bind::<BigInt, _>(process.began)
        .load(&mut **entry)
        .await
}

const COLUMNS: &str = "asked.pid, a.pid IS NOT NULL AS is_there, \
     (extract(epoch FROM a.backend_start) * 1000000)::bigint AS began, a.state, \
     (extract(epoch FROM clock_timestamp() - a.state_change) * 1000000)::bigint AS since, \
     (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS server_began, \
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS clock";

const TABLES: &str = "unnest($1) AS asked(pid) \
     LEFT JOIN LATERAL pg_catalog.pg_stat_get_activity(asked.pid) AS a ON true";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::clock::after;

    const SECOND: Duration = Duration::from_secs(1);

    fn process() -> ServerProcess {
        ServerProcess {
            pid: 7,
            began: 1,
            server_began: 0,
            clock: 0,
            read_at: Instant::now(),
        }
    }

    fn idle(state: &str, seconds: i64, clock: i64) -> Activity {
        Activity {
            pid: 7,
            began: Some(1),
            is_there: true,
            state: Some(state.to_owned()),
            since: Some(seconds * 1_000_000),
            server_began: 0,
            clock: clock * 1_000_000,
            ended: Some(true),
        }
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let doing = |activity: Activity| activity.doing(&process(), false);
        let known = || idle("idle", 3, 0);
        assert_eq!(doing(known()), Doing::Idle(3 * SECOND));
        assert_eq!(
            doing(idle("idle in transaction (aborted)", 3, 0)),
            Doing::Idle(3 * SECOND)
        );
        assert_eq!(doing(idle("active", 3, 0)), Doing::Busy);
        assert_eq!(doing(idle("fastpath function call", 3, 0)), Doing::Busy);
        assert_eq!(
            doing(Activity {
                state: None,
                ..known()
            }),
            Doing::Busy
        );
        assert_eq!(
            doing(Activity {
                began: None,
                ..known()
            }),
            Doing::Busy
        );
        assert_eq!(
            doing(Activity {
                began: Some(2),
                ..known()
            }),
            Doing::Gone
        );
        let gone = Activity {
            began: None,
            is_there: false,
            ..known()
        };
        assert_eq!(doing(gone), Doing::Gone);
        let elsewhere = Activity {
            server_began: 1,
            ..known()
        };
        assert_eq!(elsewhere.doing(&process(), true), Doing::Gone);
        assert_eq!(doing(elsewhere), Doing::Busy);
    }

    #[test]
    fn a_statement_never_arrived_only_if_no_clock_can_be_to_blame() {
        let process = process();
        let sent = |at_most: Option<u64>, heard, in_transaction| Sent {
            at_most: at_most.map(Duration::from_secs),
            heard: Duration::from_secs(heard),
            in_transaction,
            is_alone: true,
            asked_at: after(process.read_at, Duration::from_secs(10)),
        };
        let verdict = |activity: &Activity, sent| activity.verdict(&process, &sent);
        let known = idle("idle", 5, 10);
        assert_eq!(
            verdict(&known, sent(Some(4), 4, false)),
            Verdict::NeverArrived
        );
        assert_eq!(
            verdict(&known, sent(Some(5), 5, false)),
            Verdict::ProcessIdle
        );
        assert_eq!(
            verdict(&known, sent(Some(6), 6, false)),
            Verdict::AnswerLost
        );
        assert_eq!(verdict(&known, sent(None, 4, false)), Verdict::ProcessIdle);
        let lives = Activity {
            ended: None,
            ..idle("idle", 5, 10)
        };
        assert_eq!(
            verdict(&lives, sent(Some(4), 4, false)),
            Verdict::ProcessIdle
        );
        // The server's clock was set forward by two seconds.
        let shifted = idle("idle", 5, 12);
        assert_eq!(
            verdict(&shifted, sent(Some(4), 4, false)),
            Verdict::ProcessIdle
        );
        // A COMMIT that had arrived would have ended the transaction.
        let open = idle("idle in transaction", 5, 10);
        assert_eq!(verdict(&open, sent(None, 4, true)), Verdict::RolledBack);
        assert_eq!(verdict(&known, sent(None, 4, true)), Verdict::ProcessIdle);
        // Of several statements, each may have run or not.
        for (activity, sent) in [
            (&open, sent(None, 4, true)),
            (&known, sent(Some(6), 6, false)),
        ] {
            let several = Sent {
                is_alone: false,
                ..sent
            };
            assert_eq!(verdict(activity, several), Verdict::ProcessIdle);
        }
        assert_eq!(
            verdict(&open, sent(Some(4), 4, true)),
            Verdict::NeverArrived
        );
    }
}
