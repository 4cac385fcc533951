//! What keeps a compute awake.

use tokio_postgres::{Client, Error};

use super::report::{Check, Finding, Status};
use super::sql::{rows, text};

const ACTIVITY: &str = "\
SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%'),
       coalesce(round(extract(epoch FROM max(clock_timestamp() - xact_start)
         FILTER (WHERE state LIKE 'idle in transaction%')))::bigint, 0),
       count(*) FILTER (WHERE state = 'active' AND clock_timestamp() - query_start > interval '5 min'),
       count(*) FILTER (WHERE backend_type = 'walsender'),
       coalesce(string_agg(DISTINCT nullif(application_name, ''), ', ')
         FILTER (WHERE state LIKE 'idle in transaction%'), ''),
       current_setting('idle_in_transaction_session_timeout')
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND (usename = current_user OR backend_type = 'walsender')";

/// Looks for sessions that keep the compute from being suspended, as far as this role may see them.
pub(crate) async fn check(client: &Client) -> Result<Check, Error> {
    let rows = rows(client, ACTIVITY).await?;
    let number = |column| {
        text(rows.first(), column)
            .parse::<u64>()
            .unwrap_or_default()
    };
    let (idle, oldest, long, senders) = (number(0), number(1), number(2), number(3));
    let names = text(rows.first(), 4);
    let check = |summary: String| {
        Check::ok("activity", summary)
            .detail(format!(
                "idle_in_transaction_session_timeout is {}",
                text(rows.first(), 5)
            ))
            .fact("idle_in_transaction", idle)
            .fact("oldest_seconds", oldest)
            .fact("long_running", long)
            .fact("replication", senders)
    };
    Ok(if idle > 0 {
        check(format!("{idle} of this role's sessions idle in a transaction, for up to {oldest} s")).found(
            Status::Warning,
            Finding::new(
                "idle-in-transaction",
                match names.is_empty() {
                    true => "an open transaction holds its locks and keeps the compute awake".to_owned(),
                    false => format!(
                        "an open transaction holds its locks and keeps the compute awake; application_name: \
                         {names}"
                    ),
                },
                "look for code that awaits something else inside a transaction, and for a psql or an IDE \
                 that is left open",
            ),
        )
    } else if senders > 0 {
        check(format!("{senders} replication connections")).found(
            Status::Warning,
            Finding::new(
                "replication",
                "a subscriber that is connected keeps the compute awake",
                "expected with logical replication; else drop the subscription",
            ),
        )
    } else if long > 0 {
        check(format!(
            "{long} of this role's statements run for more than 5 min"
        ))
        .found(
            Status::Warning,
            Finding::new(
                "long-running",
                "a running statement keeps the compute awake",
                "set statement_timeout for the role, or find out who waits for it",
            ),
        )
    } else {
        check("nothing of this role keeps the compute awake at the moment".to_owned())
    })
}
