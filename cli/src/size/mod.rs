//! `diesel-neon size`: how large the instances' pools may be.

mod compute;
mod plan;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use diesel_neon::{Endpoint, Policy};
use serde::Serialize;

use self::compute::{POOLER_CLIENTS, RESERVED, Units};
use self::plan::{Busy, Demand, Finding, Load, Plan, Room, Status, in_a_deploy, short};
use crate::Failure;
use crate::duration::{self, Window};

#[derive(Args)]
pub(crate) struct Options {
    /// How many instances of the app there are at most, each with a pool of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,
    /// The compute's size, or the two ends of its autoscaling: 0.25, 2, 0.25-2
    #[arg(long, value_name = "CU", value_parser = Units::parse, required_unless_present = "max_connections")]
    compute_units: Option<Units>,
    /// What `SHOW max_connections` says on the direct endpoint, instead of the size
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(8..=262_143),
        conflicts_with = "compute_units"
    )]
    max_connections: Option<u32>,
    /// Queries a second at the busiest time, of all instances together; a transaction counts as one
    #[arg(long, value_name = "N", value_parser = rate, requires = "mean_query_time")]
    queries_per_second: Option<f64>,
    /// How long a connection is in use for one of them, round trips included: 5ms, 1s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "queries_per_second")]
    mean_query_time: Option<Duration>,
    /// The compute's "scale to zero" setting: 300s, 5m, …, or never [default: 300s]
    #[arg(long, value_name = "DURATION", value_parser = duration::window)]
    suspend_after: Option<Window>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) const ABOUT: &str = "\
Work out how large the instances' pools may be

From the number of instances and the compute's size: the endpoint, max_size, what happens when
the compute wakes, and the code. With a load, max_size follows from it.

    diesel-neon size --instances 4 --compute-units 0.25-2
    diesel-neon size --instances 300 --compute-units 1 --queries-per-second 500 --mean-query-time 5ms

The limits are Neon's documented ones; `diesel-neon doctor` asks a database for its own.

Exit status: 0 it fits, or warnings only; 1 it does not fit; 2 wrong usage.";

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().unwrap_or_default();
    let is_rate = rate.is_finite() && rate > 0.0 && rate <= 1e9;
    is_rate
        .then_some(rate)
        .ok_or_else(|| "expected a number above zero, such as 250 or 0.5".to_owned())
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let units = options.compute_units.map(Units::max_connections);
    let max_connections = options.max_connections.or(units).unwrap_or_default();
    let load = options.queries_per_second.zip(options.mean_query_time);
    let plan = Plan::of(&Demand {
        instances: options.instances,
        max_connections,
        load: load.map(|(per_second, mean_time)| Load {
            per_second,
            mean_time,
        }),
        usual_size: Policy::default().max_size(),
    });
    let builder = Policy::builder().max_size(plan.max_size);
    let policy = match options.suspend_after {
        Some(Window::After(window)) => builder.suspend_after(window),
        Some(Window::Never) => builder.never_suspends(),
        None => builder,
    };
    let answer = Answer {
        options,
        max_connections,
        plan: &plan,
        policy: policy.build()?,
    };
    let text = match options.json {
        true => answer.json()?,
        false => answer.text(),
    };
    writeln!(io::stdout(), "{text}").map_err(Failure::Output)?;
    Ok(match plan.worst() {
        Some(Status::Failure) => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    })
}

struct Answer<'a> {
    options: &'a Options,
    max_connections: u32,
    plan: &'a Plan,
    policy: Policy,
}

/// The object that `--json` prints. Fields may be added; none changes its meaning.
#[derive(Serialize)]
struct Shown<'a> {
    verdict: &'static str,
    endpoint: String,
    max_size: u32,
    instances: u32,
    max_connections: u32,
    reserved: u32,
    direct: Room,
    pooled: Room,
    /// Transactions that the pooler runs at a time, for one role in one database.
    server_connections: u32,
    in_use: Option<Busy>,
    wake_up: WakeUp,
    findings: &'a [Finding],
    code: String,
}

#[derive(Serialize)]
struct WakeUp {
    logins_at_once: u64,
    connections_at_most: u64,
    connect_timeout_seconds: f64,
    checkout_timeout_seconds: f64,
}

impl Answer<'_> {
    fn json(&self) -> Result<String, Failure> {
        let plan = self.plan;
        let shown = Shown {
            verdict: match plan.worst() {
                None => "ok",
                Some(Status::Warning) => "warning",
                Some(Status::Failure) => "failure",
            },
            endpoint: plan.endpoint.to_string(),
            max_size: plan.max_size,
            instances: self.options.instances,
            max_connections: self.max_connections,
            reserved: RESERVED,
            direct: plan.direct,
            pooled: plan.pooled,
            server_connections: plan.server_connections,
            in_use: plan.busy,
            wake_up: WakeUp {
                logins_at_once: self.logins_at_once(),
                connections_at_most: self.connections(),
                connect_timeout_seconds: self.policy.connect_timeout().as_secs_f64(),
                checkout_timeout_seconds: self.policy.checkout_timeout().as_secs_f64(),
            },
            findings: &plan.findings,
            code: self.code(),
        };
        let json = serde_json::to_string_pretty(&shown).map_err(io::Error::from);
        json.map_err(Failure::Output)
    }

    fn text(&self) -> String {
        let (plan, policy, instances) = (self.plan, &self.policy, self.options.instances);
        let each = match instances {
            1 => "for the one instance".to_owned(),
            _ => format!("for each of {instances} instances"),
        };
        let mut text = format!(
            "max_size {} on the {} endpoint, {each}\n\n",
            plan.max_size, plan.endpoint
        );
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "  {name:<9} {what}");
        };
        let compute = match self.options.compute_units {
            Some(units) => format!("{units}: max_connections {}", self.max_connections),
            None => format!("max_connections {}", self.max_connections),
        };
        line(
            "compute",
            format!("{compute}, {RESERVED} of them Neon's own"),
        );
        let size = |room: Room| match room.max_size_at_most {
            0 => "not one for each instance".to_owned(),
            most => format!("max_size {most} at most"),
        };
        line(
            "direct",
            format!(
                "{} connections: {}",
                plan.direct.connections,
                size(plan.direct)
            ),
        );
        line(
            "pooled",
            format!("{POOLER_CLIENTS} clients: {}", size(plan.pooled)),
        );
        line(
            "",
            format!(
                "{} transactions at a time for one role in one database; others wait",
                plan.server_connections
            ),
        );
        if let Some(busy) = plan.busy {
            line(
                "load",
                format!(
                    "{} connections in use on average, {} in a burst",
                    short(busy.mean),
                    busy.with_margin
                ),
            );
            line(
                "",
                format!(
                    "on each instance {} on average, {} in a burst",
                    short(busy.each_mean),
                    busy.each_with_margin
                ),
            );
        }
        line(
            "instances",
            format!(
                "{} connections at most, {} while a deploy runs old and new ones",
                self.connections(),
                in_a_deploy(instances, plan.max_size)
            ),
        );
        if policy.suspend_after().is_some() {
            line(
                "wake-up",
                format!(
                    "{} logins at once, {} for each pool; a login may take {}, cold start and",
                    self.logins_at_once(),
                    policy.max_connecting().min(plan.max_size),
                    seconds(policy.connect_timeout())
                ),
            );
            line(
                "",
                format!(
                    "retries included, and a caller waits for {} at most",
                    seconds(policy.checkout_timeout())
                ),
            );
        }
        for finding in &plan.findings {
            let word = match finding.status {
                Status::Warning => "warning",
                Status::Failure => "FAILURE",
            };
            let _ = write!(
                text,
                "\n  {word}   {}\n  mend      {}\n",
                finding.meaning, finding.mend
            );
        }
        let _ = write!(text, "\n{}", self.code());
        text
    }

    /// Returns the lines to paste.
    fn code(&self) -> String {
        let url = match self.plan.endpoint {
            Endpoint::Pooled => "// The URL with -pooler in its host.",
            _ => "// The URL without -pooler in its host.",
        };
        let window = match self.options.suspend_after {
            Some(Window::After(window)) => format!("\n    .suspend_after({})", in_rust(window)),
            Some(Window::Never) => "\n    .never_suspends()".to_owned(),
            None => String::new(),
        };
        let size = self.plan.max_size;
        format!(
            "{url}\nlet pool = Pool::builder(url){window}\n    .max_size({size})\n    .build()?;"
        )
    }

    fn connections(&self) -> u64 {
        in_a_deploy(self.options.instances, self.plan.max_size) / 2
    }

    fn logins_at_once(&self) -> u64 {
        let each = self.policy.max_connecting().min(self.plan.max_size);
        u64::from(self.options.instances).saturating_mul(u64::from(each))
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn in_rust(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("Duration::from_secs({})", duration.as_secs()),
        _ => format!("Duration::from_millis({})", duration.as_millis()),
    }
}
