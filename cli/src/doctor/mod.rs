//! `diesel-neon doctor`: looks at the environment and the database, and says what is wrong.
//!
//! It stands on the library's public API, whose [`Probe`](diesel_neon::diagnose::Probe) takes the steps of a pool's
//! connect one by one: what the doctor parses, trusts and sends is what the pool parses, trusts and sends.

mod activity;
mod asking;
mod certificate;
mod connecting;
mod environment;
mod migrations;
mod network;
mod options;
mod page;
mod pool;
mod pooler;
mod record;
mod report;
mod server;
mod sql;
mod tls;
mod websocket;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::runtime;

use self::environment::Target;
use self::network::of;
pub(crate) use self::options::{ABOUT, Options, more_help};
use self::page::Page;
use self::record::EVERYTHING;
use self::report::{Check, EndpointSummary, Report, Role, Status};
use self::server::Server;
use crate::Failure;

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(Doctor::new(options).examine());
    // A name look-up that hangs would keep the process from ending.
    runtime.shutdown_background();
    outcome
}

struct Doctor<'a> {
    options: &'a Options,
    page: Page,
    began: Instant,
    secrets: Vec<String>,
    endpoints: Vec<EndpointSummary>,
    checks: Vec<Check>,
}

impl<'a> Doctor<'a> {
    fn new(options: &'a Options) -> Self {
        Self {
            options,
            page: Page::new(options.json, options.color.into()),
            began: Instant::now(),
            secrets: Vec::new(),
            endpoints: Vec::new(),
            checks: Vec::new(),
        }
    }

    async fn examine(mut self) -> Result<ExitCode, Failure> {
        let (targets, checks) = environment::targets(self.options.transport);
        for target in &targets {
            self.know(target);
        }
        if !checks.is_empty() {
            self.page.heading("The environment", "");
            for check in checks {
                self.put(check);
            }
            self.page.gap();
        }
        let mut seen: Option<Server> = None;
        for target in &targets {
            self.introduce(target);
            seen = self.look_at(target, seen).await;
            self.page.gap();
        }
        if targets.is_empty() {
            self.skip(None, EVERYTHING, "there is no URL");
        } else {
            self.page.heading("The pool", "");
            self.pool(&targets[0]);
        }
        self.page.gap();
        self.conclude()
    }

    fn conclude(self) -> Result<ExitCode, Failure> {
        let count = |status| {
            self.checks
                .iter()
                .filter(|check| check.status == status)
                .count()
        };
        let (failures, warnings) = (count(Status::Failure), count(Status::Warning));
        let report = Report {
            format: 1,
            verdict: match (failures, warnings) {
                (0, 0) => Status::Ok,
                (0, _) => Status::Warning,
                _ => Status::Failure,
            },
            elapsed_ms: report::millis(self.began.elapsed()),
            failures,
            warnings,
            endpoints: self.endpoints,
            checks: self.checks,
        };
        match self.page.finish(&report) {
            // A reader that closes the pipe has seen enough; the verdict stands.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            finished => finished.map_err(Failure::Output)?,
        }
        Ok(match report.verdict {
            Status::Failure => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        })
    }

    fn introduce(&mut self, target: &Target) {
        let summary = &target.summary;
        let whose = match summary.roles.as_slice() {
            [Role::App, ..] if target.serves(Role::Direct) => {
                "The app's endpoint, which is the direct one too"
            }
            [Role::App, ..] => "The app's endpoint",
            _ => "The direct endpoint, for migrations",
        };
        let heading = format!("{whose}: {}, from {}", summary.kind, target.found);
        self.page.heading(&heading, &summary.url);
        self.endpoints.push(summary.clone());
    }

    /// Looks at one endpoint. Returns what the first session of all told.
    async fn look_at(&mut self, target: &Target, seen: Option<Server>) -> Option<Server> {
        let role = target.role();
        for check in environment::parameters(target) {
            self.put(of(role, check));
        }
        let Some(probe) = self.prepare(target) else {
            return seen;
        };
        let peers = self.reach(target, &probe).await;
        if peers.is_empty() {
            return seen;
        }
        let seen = match self.log_in(target, &probe, &peers).await {
            Some((peer, session)) => {
                self.recommend_websocket(target);
                self.ask(target, &probe, peer, session, seen).await
            }
            None => seen,
        };
        self.look_at_websocket(target, false).await;
        seen
    }
}

/// How long a question to a session may take.
const STEP: Duration = Duration::from_secs(10);
