//! [`Server`]: what a server tells of itself.

use std::time::{Duration, Instant, SystemTime};

use diesel_neon::{Endpoint, Policy};
use tokio_postgres::{Client, Error};

use super::page;
use super::report::{Check, Finding, Status};
use super::sql::{rows, text};

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
    /// Equal for sessions of one database on one server alone.
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
        // -1, which is no u64, means that there is no limit.
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

    pub(crate) fn time_zone(&self, at_login: Option<&str>, is_utc: bool) -> Check {
        let zone = at_login.unwrap_or(&self.time_zone);
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
                    // There is not even one connection for each.
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

/// How many seconds of difference make a warning.
const SKEW: f64 = 30.0;

/// `max_client_conn` on Neon; a session cannot ask for it.
const NEONS_POOLER: u64 = 10_000;

/// Measures a few empty queries.
pub(crate) async fn round_trip(client: &Client) -> Result<Check, Error> {
    let mut times = Vec::new();
    for _ in 0..6 {
        let began = Instant::now();
        client.simple_query("").await?;
        times.push(began.elapsed());
    }
    // The first query warms up.
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
