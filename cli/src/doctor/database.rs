//! What the database says of itself.

use std::time::{Duration, Instant, SystemTime};

use diesel_neon::diagnose::is_utc;
use diesel_neon::{Endpoint, Policy};
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

use super::page;
use super::report::{Check, Finding, Status};

/// The server, the role and the limits, as one statement tells them.
pub(crate) struct Server {
    version: String,
    role: String,
    pub(crate) database: String,
    time_zone: String,
    now: f64,
    asked_at: SystemTime,
    round_trip: Duration,
    limits: Limits,
    /// The same for every session of one server, and no other's.
    pub(crate) identity: String,
}

struct Limits {
    max_connections: u64,
    reserved: u64,
    of_role: Option<u64>,
    of_database: Option<u64>,
    in_use: u64,
}

const SERVER: &str = "\
SELECT current_setting('server_version'),
       current_user,
       current_database(),
       current_setting('TimeZone'),
       extract(epoch FROM clock_timestamp()),
       current_setting('max_connections'),
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true), '0')::int,
       r.rolconnlimit,
       d.datconnlimit,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       pg_postmaster_start_time()::text || ' ' || d.oid
FROM pg_roles r, pg_database d
WHERE r.rolname = current_user AND d.datname = current_database()";

impl Server {
    pub(crate) async fn ask(client: &Client) -> Result<Self, Error> {
        let (began, asked_at) = (Instant::now(), SystemTime::now());
        let rows = rows(client, SERVER).await?;
        let round_trip = began.elapsed();
        let text = |column| text(rows.first(), column);
        let number = |column| text(column).parse::<u64>().unwrap_or_default();
        // -1 means none.
        let limit = |column| text(column).parse::<u64>().ok();
        Ok(Self {
            version: text(0),
            role: text(1),
            database: text(2),
            time_zone: text(3),
            now: text(4).parse().unwrap_or_default(),
            asked_at,
            round_trip,
            limits: Limits {
                max_connections: number(5),
                reserved: number(6),
                of_role: limit(7),
                of_database: limit(8),
                in_use: number(9),
            },
            identity: text(10),
        })
    }

    pub(crate) fn check(&self) -> Check {
        let version = self.version.split(' ').next().unwrap_or_default();
        Check::ok(
            "server",
            format!(
                "PostgreSQL {version}, database {} as {}",
                self.database, self.role
            ),
        )
        .fact("version", version)
        .fact("database", self.database.as_str())
    }

    pub(crate) fn clock(&self) -> Check {
        let asked = self.asked_at.duration_since(SystemTime::UNIX_EPOCH);
        let ours = asked
            .unwrap_or_default()
            .saturating_add(self.round_trip / 2);
        let ahead = ours.as_secs_f64() - self.now;
        let summary = match ahead {
            ahead if ahead.abs() < 1.0 => "in step with the server's".to_owned(),
            ahead if ahead > 0.0 => format!("{ahead:.0} s ahead of the server's"),
            ahead => format!("{:.0} s behind the server's", -ahead),
        };
        let check =
            Check::ok("clock", summary).fact("ahead_seconds", (ahead * 10.0).round() / 10.0);
        if ahead.abs() < SKEW {
            return check;
        }
        check.found(
            Status::Warning,
            Finding::new(
                "clock-skew",
                "this machine's clock and the server's differ: certificates and tokens may seem too old or \
                 too new, and times written by either do not compare",
                "set this machine's clock (NTP)",
            ),
        )
    }

    pub(crate) fn time_zone(&self, at_login: Option<&str>) -> Check {
        let zone = at_login.unwrap_or(&self.time_zone);
        let is_utc = is_utc(zone);
        let what = match is_utc {
            true => "as Diesel counts on",
            false => {
                "the pool sets it to UTC on every new connection, a round trip more; \
                      ALTER ROLE … SET timezone = 'UTC' saves it"
            }
        };
        Check::ok("time-zone", format!("{zone}: {what}"))
            .fact("time_zone", zone)
            .fact("is_utc", is_utc)
    }

    pub(crate) fn connections(&self, endpoint: Endpoint, policy: &Policy, instances: u32) -> Check {
        let limits = &self.limits;
        let wanted = u64::from(policy.max_size()) * u64::from(instances);
        let (what, room) = match endpoint {
            Endpoint::Pooled => ("clients of the pooler", NEONS_POOLER),
            Endpoint::Direct => {
                let room = limits.max_connections.saturating_sub(limits.reserved);
                let room = room.min(limits.of_role.unwrap_or(u64::MAX));
                ("sessions", room.min(limits.of_database.unwrap_or(u64::MAX)))
            }
        };
        let sum = format!(
            "{instances} × max_size {} = {wanted} of {room} {what}",
            policy.max_size()
        );
        let mut detail = format!(
            "max_connections {}, {} reserved, {} in use now",
            limits.max_connections, limits.reserved, limits.in_use
        );
        for (limit, whose) in [(limits.of_role, "role"), (limits.of_database, "database")] {
            if let Some(limit) = limit {
                detail.push_str(&format!(", the {whose}'s own limit is {limit}"));
            }
        }
        let check = Check::ok("connections", sum)
            .detail(detail)
            .fact("wanted", wanted)
            .fact("room", room)
            .fact("max_connections", limits.max_connections)
            .fact("reserved", limits.reserved)
            .fact("role_limit", limits.of_role)
            .fact("database_limit", limits.of_database)
            .fact("in_use", limits.in_use);
        if wanted <= room {
            return check;
        }
        let mend = match endpoint {
            Endpoint::Direct => {
                let first = match room / u64::from(instances) {
                    0 if room == 0 => String::new(),
                    // Not even one connection for each.
                    0 => format!("run at most {room} instances, "),
                    each => format!("set max_size to at most {each}, run fewer instances, "),
                };
                format!("{first}use the pooled URL, or a larger compute")
            }
            Endpoint::Pooled => "set a smaller max_size or run fewer instances".to_owned(),
        };
        check.found(
            Status::Failure,
            Finding::new(
                "pool-too-large",
                "under load some instances will be refused: too many connections",
                mend,
            ),
        )
    }
}

/// Seconds.
const SKEW: f64 = 30.0;

/// `max_client_conn` on Neon; a session cannot ask for it.
const NEONS_POOLER: u64 = 10_000;

/// The median of a few empty queries.
pub(crate) async fn round_trip(client: &Client) -> Result<Check, Error> {
    let mut times = Vec::new();
    for _ in 0..6 {
        let began = Instant::now();
        client.simple_query("").await?;
        times.push(began.elapsed());
    }
    // The first one warms up.
    times.remove(0);
    times.sort();
    let median = times[times.len() / 2];
    let check = Check::ok(
        "round-trip",
        format!("{}, the median of {}", page::shown(median), times.len()),
    )
    .fact("median_ms", super::report::millis(median))
    .fact("max_ms", super::report::millis(times[times.len() - 1]));
    if median < FAR {
        return Ok(check);
    }
    Ok(check.found(
        Status::Warning,
        Finding::new(
            "far-away",
            "every statement waits that long; the app and the database are probably in different regions",
            "run the app in the database's region",
        ),
    ))
}

const FAR: Duration = Duration::from_millis(60);

/// Which backend serves a session; two open sessions with the same one share it through a pooler.
pub(crate) async fn backend(client: &Client) -> Result<String, Error> {
    Ok(text(
        rows(client, "SELECT pg_backend_pid()").await?.first(),
        0,
    ))
}

/// What became of a statement's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The pooler keeps book of names, and gives statements its own.
    Tracked,
    /// The name is the client's own: a server's, or a pooler's that does not look.
    Own,
    /// The name is another client's already.
    Taken,
}

/// Prepares a named statement in a transaction, which even a pooler keeps on one server connection, and
/// looks at what the server calls it.
pub(crate) async fn naming(client: &Client) -> Result<Naming, Error> {
    client.batch_execute("BEGIN").await?;
    let mark = format!("SELECT 'diesel-neon doctor {}'", std::process::id());
    let found = match client.prepare(&mark).await {
        Ok(statement) => {
            let asked = "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT ''diesel-neon doctor %'";
            let names = rows(client, asked).await;
            // Its Close must reach the same server connection.
            drop(statement);
            names.map(|names| {
                let renamed = names
                    .iter()
                    .any(|row| row.get(0).is_some_and(|name| name.starts_with("PGBOUNCER")));
                match renamed {
                    true => Naming::Tracked,
                    false => Naming::Own,
                }
            })
        }
        Err(error) if error.code().is_some_and(|code| code.code() == "42P05") => Ok(Naming::Taken),
        Err(error) => Err(error),
    };
    client.batch_execute("ROLLBACK").await?;
    found
}

/// `shared`: sessions share backends, whatever the host's name says.
pub(crate) fn statements(endpoint: Endpoint, shared: bool, naming: Naming) -> Check {
    let check = |summary: &str| {
        Check::ok("statements", summary)
            .fact("tracked", naming == Naming::Tracked)
            .fact("shared", shared)
    };
    match (endpoint, naming) {
        (_, Naming::Tracked) => {
            check("the pooler tracks prepared statements, so names are safe")
        }
        (Endpoint::Direct, Naming::Own) if !shared => {
            check("prepared statements keep their names: sessions are your own")
        }
        (endpoint, _) => check("the pooler does not track prepared statements").found(
            match endpoint {
                // The pool has been told, and names none.
                Endpoint::Pooled => Status::Warning,
                Endpoint::Direct => Status::Failure,
            },
            match endpoint {
                Endpoint::Pooled => Finding::new(
                    "statements-untracked",
                    "a named statement lands on whatever server connection is free, so names clash or run \
                     another client's statement; diesel-neon sends none with a name here, other drivers do",
                    "nothing for diesel-neon; for other clients of this URL use the direct one, or switch \
                     their statement cache off; a pooler of your own needs PgBouncer 1.21 with \
                     max_prepared_statements",
                ),
                Endpoint::Direct => Finding::new(
                    "statements-untracked",
                    "sessions go through a pooler that does not track prepared statements, and the host's \
                     name does not say that it is one: named statements clash, or run another client's",
                    "use a direct URL; a pooler of your own needs PgBouncer 1.21 with \
                     max_prepared_statements",
                ),
            },
        ),
    }
}

/// Whether sessions are the client's own, as migrations need them and a direct URL promises.
pub(crate) fn pooler(endpoint: Endpoint, shared: bool, migrates: bool) -> Check {
    let check = |summary: &str| Check::ok("pooler", summary).fact("shared", shared);
    match (endpoint, shared) {
        (Endpoint::Pooled, true) => {
            check("sessions share server connections, one transaction at a time")
        }
        (Endpoint::Pooled, false) => check("each session has a server connection at the moment"),
        (Endpoint::Direct, false) => check("none: each session is one of Postgres's own"),
        (Endpoint::Direct, true) => check("two sessions share one server connection").found(
            Status::Failure,
            Finding::new(
                "pooler-hidden",
                match migrates {
                    true => {
                        "this URL should be direct, and leads through a pooler all the same: migrations \
                         would run without a lock, and lose what they SET"
                    }
                    false => {
                        "the host's name does not end in -pooler, yet there is a pooler: the pool takes \
                         sessions for its own that are not"
                    }
                },
                "set DATABASE_URL_UNPOOLED to a URL that leads to Postgres itself",
            ),
        ),
    }
}

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

/// What keeps a compute from being suspended, as far as this role may see it.
pub(crate) async fn activity(client: &Client) -> Result<Check, Error> {
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

async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, Error> {
    // Statements without a name, so that any pooler does.
    let messages = client.simple_query(sql).await?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn text(row: Option<&SimpleQueryRow>, column: usize) -> String {
    let text = row.and_then(|row| row.get(column));
    text.unwrap_or_default().to_owned()
}
