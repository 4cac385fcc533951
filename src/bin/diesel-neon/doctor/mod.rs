//! `diesel-neon doctor`: looks at the environment and the database, and says what is wrong.
//!
//! It stands on the library's public API: what it parses, trusts and sends is what the pool parses, trusts
//! and sends. What it sees on the way (certificates, mechanisms, times) is its own affair.

mod database;
mod diagnosis;
mod environment;
mod login;
mod migrations;
mod network;
mod page;
mod report;
mod tls;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::ColorChoice;
use clap::{Args, ValueEnum};
use diesel_neon::migration::MigrateError;
use diesel_neon::{Encryption, Endpoint, Policy};
use tokio::runtime;
use tokio::time::timeout;
use tokio_postgres::Client;

use self::database::Server;
use self::diagnosis::Part;
use self::environment::Target;
use self::login::{Login, LoginError, Session, Tap};
use self::network::{Address, of};
use self::page::Page;
use self::report::{Check, EndpointSummary, Finding, Report, Role, Status};
use self::tls::Probe;
use crate::{Failure, duration};

#[derive(Args)]
pub(crate) struct Options {
    /// How many instances of the app there are at most, each with a pool of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    instances: u32,
    /// The pool's max_size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_size: Option<u32>,
    /// The compute's "scale to zero" setting: 300s, 5m, …, or never
    #[arg(long, value_name = "DURATION", value_parser = window)]
    suspend_after: Option<Window>,
    /// The folder with the migrations [default: where the diesel CLI would look]
    #[arg(long, value_name = "FOLDER")]
    migration_dir: Option<PathBuf>,
    /// How long each step may take; a cold start falls into one [default: the pool's connect_timeout]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Colors::Auto)]
    color: Colors,
}

#[derive(Clone, Copy, ValueEnum)]
enum Colors {
    Auto,
    Always,
    Never,
}

/// After how long the compute is suspended, if it ever is.
#[derive(Clone, Copy)]
enum Window {
    After(Duration),
    Never,
}

fn window(text: &str) -> Result<Window, String> {
    match text {
        "never" => Ok(Window::Never),
        _ => duration::parse(text).map(Window::After),
    }
}

pub(crate) const ABOUT: &str = "\
Look at the environment and the database, and say what is wrong

Goes the way that a connection of the pool goes, step by step with the time of each: variables, name
look-up, TCP, TLS, login, then what the database says of itself. Every failure comes with the error, what
it means, and how to mend it.

    diesel-neon doctor
    diesel-neon doctor --instances 4 --max-size 20 --suspend-after 60s
    diesel-neon doctor --json | jq '.checks[] | select(.status == \"failure\")'

It looks at the app's endpoint and at the direct one. It changes nothing, but a suspended compute wakes, as
with any connection. No password is ever printed.";

const MORE: &str = "\
Checks:
  environment     which variable each URL comes from, and whether it can be used
  parameters      what drivers other than this one would choke on
  sslmode         what it means here
  dns, tcp        every address of every host
  tls             version, negotiation, ALPN
  certificate     whose, by whom, for how long; a warning below 14 days
  endpoint        the endpoint, as the server sees it
  authentication  the role, and whether the login is bound to TLS
  start           cold or warm
  server, clock, time-zone, round-trip
  connections     max_size times the instances, against what the server takes
  pooler          whether sessions are shared
  statements      whether a pooler tracks prepared statements
  activity        what keeps the compute awake, as far as this role may see
  migrations      the folder against __diesel_schema_migrations, on the direct endpoint
  same-database   whether both URLs lead to one
  pool            what a pool with these settings would do

Exit status: 0 all well, or warnings only; 1 a failure; 2 wrong usage.

JSON:
  format, verdict (ok, warning, failure), elapsed_ms, failures, warnings,
  endpoints: roles (app, direct), kind (pooled, direct), variable, file, derived, url
  checks: endpoint (app, direct, null), check, status (ok, warning, failure, skipped), elapsed_ms,
          summary, details, facts; with a warning or a failure also code, error, meaning, mend
  Names of checks, codes and facts stay; texts may change.";

pub(crate) fn more_help() -> String {
    format!("{}\n\n{MORE}", crate::VARIABLES)
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(Doctor::new(options).examine());
    // A name look-up that hangs would hold the process up.
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
        let colors = match options.color {
            Colors::Auto => ColorChoice::Auto,
            Colors::Always => ColorChoice::Always,
            Colors::Never => ColorChoice::Never,
        };
        Self {
            options,
            page: Page::new(options.json, colors),
            began: Instant::now(),
            secrets: Vec::new(),
            endpoints: Vec::new(),
            checks: Vec::new(),
        }
    }

    async fn examine(mut self) -> Result<ExitCode, Failure> {
        let (targets, checks) = environment::targets();
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
        self.page.finish(&report).map_err(Failure::Output)?;
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
        let file = match &summary.file {
            Some(file) => format!(", set in {file}"),
            None => String::new(),
        };
        let heading = format!("{whose}: {}, from {}{file}", summary.kind, target.found);
        self.page.heading(&heading, &summary.url);
        self.endpoints.push(summary.clone());
    }

    /// Everything about one endpoint; returns what the first session told.
    async fn look_at(&mut self, target: &Target, seen: Option<Server>) -> Option<Server> {
        let role = target.role();
        for check in environment::parameters(target) {
            self.put(of(role, check));
        }
        let Some((host, address)) = self.reach(target).await else {
            return seen;
        };
        let Some(login) = self.secure(target, host, address).await else {
            return seen;
        };
        let Some(session) = self.log_in(target, &login).await else {
            return seen;
        };
        self.ask(target, &login, session, seen).await
    }

    /// Name look-up and TCP, of all hosts.
    async fn reach(&mut self, target: &Target) -> Option<(String, Address)> {
        let role = target.role();
        let limit = self.limit(target).min(STEP);
        let mut first = None;
        for host in target.found.url.hosts() {
            let name = host.name.to_string();
            let (addresses, check) = self
                .page
                .waiting(&format!("looking {name} up"), network::resolve(host, limit))
                .await;
            self.put(of(role, check));
            let (reached, checks) = self
                .page
                .waiting(
                    &format!("connecting to {name}"),
                    network::reach(&addresses, limit),
                )
                .await;
            for check in checks {
                self.put(of(role, check));
            }
            first = first.or(reached.map(|address| (name, address)));
        }
        if first.is_none() {
            let failed = match self.last_failed("dns") {
                true => "dns",
                false => "tcp",
            };
            self.skip_behind(target, failed, "nothing answers there");
        }
        first
    }

    async fn secure(&mut self, target: &Target, host: String, address: Address) -> Option<Login> {
        let (role, url) = (target.role(), &target.found.url);
        let config = match url.to_rustls() {
            Ok(config) => config,
            Err(error) => {
                let finding = Finding::new(
                    "roots-unusable",
                    "without certificates to trust nothing can be verified",
                    "correct the path in sslrootcert, SSL_CERT_FILE or SSL_CERT_DIR; for Neon none is needed",
                );
                let finding = finding.with_error(crate::with_causes(&error));
                self.put(of(
                    role,
                    Check::failure("tls", "the roots cannot be loaded", finding),
                ));
                self.skip_behind(target, "tls", "TLS cannot be spoken");
                return None;
            }
        };
        match (url.encryption(), &config) {
            (
                Encryption::Tls {
                    roots, negotiation, ..
                },
                Some(config),
            ) => {
                let probe = Probe {
                    address: &address,
                    host: &host,
                    config: config.clone(),
                    negotiation: *negotiation,
                    roots,
                    limit: self.limit(target).min(STEP),
                };
                let what = format!("speaking TLS with {host}");
                let (trusted, checks) = self.page.waiting(&what, probe.run()).await;
                for check in checks {
                    self.put(of(role, check));
                }
                if !trusted {
                    let why = "no password is sent to a server that is not verified";
                    self.skip_behind(target, "tls", why);
                    return None;
                }
            }
            _ => self.put(of(role, Check::ok("tls", "none, as sslmode says"))),
        }
        Some(Login::new(url, address, host, config))
    }

    async fn log_in(&mut self, target: &Target, login: &Login) -> Option<Session> {
        let role = target.role();
        let (limit, tap) = (self.limit(target), Tap::default());
        let began = Instant::now();
        let work = timeout(limit, login.run(&tap));
        let outcome = self
            .page
            .waiting("logging in; a cold start takes a moment", work)
            .await;
        let took = began.elapsed();
        let seen = tap.seen();

        let user = target
            .found
            .url
            .user()
            .unwrap_or("the operating system's user");
        let method = seen.method.as_deref().unwrap_or("no password");
        let bound = match seen.is_bound() {
            true => ", bound to TLS",
            false => "",
        };
        let authenticated = Check::ok("authentication", format!("{user}, {method}{bound}"))
            .fact("role", user)
            .fact("method", seen.method.clone())
            .fact("channel_binding", seen.is_bound());

        let (part, check) = match outcome {
            Ok(Ok(session)) => {
                self.put(of(role, environment::endpoint(target)));
                self.put(of(role, authenticated.took(took)));
                let cold = seen.was_cold();
                let waited = seen.started_in.unwrap_or_default();
                let start = Check::ok(
                    "start",
                    match cold {
                        true => "cold: the compute was asleep, or is far away",
                        false => "warm",
                    },
                );
                self.put(of(role, start.fact("cold", cold).took(waited)));
                return Some(session);
            }
            Ok(Err(error)) => self.refused(&error),
            Err(_) => {
                let finding = Finding::new(
                    "login-timeout",
                    match seen.authenticated {
                        true => {
                            "the password is right, but the compute does not come up: a very slow cold \
                                 start, or it hangs"
                        }
                        false => {
                            "the server took the connection and does not answer: it is overloaded, or \
                                  something in between swallows the answer"
                        }
                    },
                    "try again with a longer --timeout; if that helps, raise connect_timeout; if it does not, \
                     restart the compute in Neon's console",
                );
                let finding = finding.with_error(format!("no session within {limit:?}"));
                (Part::Start, Check::failure("start", "no answer", finding))
            }
        };
        if part != Part::Endpoint {
            self.put(of(role, environment::endpoint(target)));
            if part == Part::Start && seen.authenticated {
                self.put(of(role, authenticated));
            } else if part == Part::Start {
                self.skip(Some(role), &["authentication"], "the server said no before");
            }
        }
        self.put(of(role, check.took(took)));
        let failed = match part {
            Part::Endpoint => "endpoint",
            Part::Authentication => "authentication",
            Part::Start => "start",
        };
        self.skip_behind(target, failed, "there is no session");
        None
    }

    fn refused(&self, error: &LoginError) -> (Part, Check) {
        let (part, finding) = diagnosis::of_login(&self.scrub(&error.message()), error.kind());
        let (name, summary) = match part {
            Part::Endpoint => ("endpoint", "the server does not take it"),
            Part::Authentication => ("authentication", "the login is refused"),
            Part::Start => ("start", "there is no session"),
        };
        let check = Check::failure(name, summary, finding);
        (part, check.fact("sqlstate", error.sqlstate()))
    }

    async fn ask(
        &mut self,
        target: &Target,
        login: &Login,
        session: Session,
        seen: Option<Server>,
    ) -> Option<Server> {
        let (role, endpoint) = (target.role(), target.found.url.endpoint());
        let client = &session.client;
        let asked = self.query(role, "server", Server::ask(client)).await;
        let Some((server, took)) = asked else {
            self.skip_behind(target, "server", "the session does not answer");
            return seen;
        };
        self.put(of(role, server.check().took(took)));
        let first = seen.is_none();
        if first {
            self.put(of(role, server.clock()));
            self.put(of(role, server.time_zone(session.time_zone.as_deref())));
        }
        let work = database::round_trip(client);
        if let Some((check, took)) = self.query(role, "round-trip", work).await {
            self.put(of(role, check.took(took)));
        }
        // The pool's connections are the app's endpoint's affair.
        if target.serves(Role::App) {
            let policy = self.policy(target);
            let check = server.connections(endpoint, &policy, self.options.instances);
            self.put(of(role, check));
        }
        let began = Instant::now();
        let shared = self.shares(role, login, client).await;
        if let Some(shared) = shared {
            let check = database::pooler(endpoint, shared, target.serves(Role::Direct));
            self.put(of(role, check.took(began.elapsed())));
        }
        let shared = shared.unwrap_or(endpoint == Endpoint::Pooled);
        let work = database::naming(client);
        if let Some((naming, took)) = self.query(role, "statements", work).await {
            let check = database::statements(endpoint, shared, naming);
            self.put(of(role, check.took(took)));
        }
        if first {
            let work = database::activity(client);
            if let Some((check, took)) = self.query(role, "activity", work).await {
                self.put(of(role, check.took(took)));
            }
        }
        if target.serves(Role::Direct) {
            self.migrations(target).await;
        }
        match seen {
            Some(first) => {
                self.put(same_database(&first, &server));
                Some(first)
            }
            None => Some(server),
        }
    }

    /// Whether a second session has the first one's backend, which only a pooler brings about.
    async fn shares(&mut self, role: Role, login: &Login, client: &Client) -> Option<bool> {
        let tap = Tap::default();
        let both = async {
            let second = login.run(&tap).await.ok()?;
            let ours = database::backend(client).await.ok()?;
            Some(ours == database::backend(&second.client).await.ok()?)
        };
        let limited = timeout(STEP, both);
        match self.page.waiting("opening a second session", limited).await {
            Ok(Some(shared)) => Some(shared),
            _ => {
                self.skip(
                    Some(role),
                    &["pooler"],
                    "a second session was not to be had",
                );
                None
            }
        }
    }

    async fn migrations(&mut self, target: &Target) {
        let (role, began) = (target.role(), Instant::now());
        let limit = self.limit(target) + STEP;
        let given = self.options.migration_dir.as_deref();
        let work = timeout(limit, migrations::list(&target.found.url, given));
        let check = match self.page.waiting("looking at the migrations", work).await {
            Ok(Ok(listed)) => migrations::check(&listed),
            Ok(Err(MigrateError::NoFolder { path, .. })) if given.is_none() => {
                let why = format!("there is no folder {}", path.display());
                return self.skip(Some(role), &["migrations"], &why);
            }
            Ok(Err(error)) => migrations::unreadable(self.scrub(&crate::with_causes(&error))),
            Err(_) => migrations::unreadable(format!("no answer within {limit:?}")),
        };
        self.put(of(role, check.took(began.elapsed())));
    }

    /// A bounded query and the time that it took; where it fails, that is said here.
    async fn query<T>(
        &mut self,
        role: Role,
        name: &'static str,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Option<(T, Duration)> {
        let began = Instant::now();
        let error = match self.page.waiting(name, timeout(STEP, work)).await {
            Ok(Ok(done)) => return Some((done, began.elapsed())),
            Ok(Err(error)) => crate::with_causes(&error),
            Err(_) => format!("no answer within {STEP:?}"),
        };
        let finding = Finding::new(
            "query-failed",
            "the session was there, and this question was not answered: the connection was cut, or the \
             role may not ask",
            "run the doctor again; if it stays, go by the error's words",
        );
        let check = Check::failure(name, "no answer", finding.with_error(self.scrub(&error)));
        self.put(of(role, check.took(began.elapsed())));
        None
    }

    fn pool(&mut self, target: &Target) {
        let policy = self.policy(target);
        let seconds = |duration: Duration| format!("{} s", duration.as_secs_f64());
        let window = match policy.suspend_after() {
            Some(window) => format!("the compute is suspended after {}", seconds(window)),
            None => "the compute is never suspended".to_owned(),
        };
        let check = Check::ok("pool", window)
            .detail(format!(
                "at most {} connections; each lives for {} at most, {} when idle",
                policy.max_size(),
                seconds(policy.max_lifetime()),
                seconds(policy.idle_timeout())
            ))
            .detail(format!(
                "a connect, cold start and retries included, may take {}; a caller waits for {} at most",
                seconds(policy.connect_timeout()),
                seconds(policy.checkout_timeout())
            ))
            .detail(format!(
                "what was quiet for {} is checked before it is handed out, which may take {}",
                seconds(policy.validation_bypass()),
                seconds(policy.validation_timeout())
            ))
            .detail("an idle pool sends nothing, so the compute can sleep")
            .fact("suspend_after_seconds", policy.suspend_after().map(|d| d.as_secs_f64()))
            .fact("max_size", policy.max_size())
            .fact("max_lifetime_seconds", policy.max_lifetime().as_secs_f64())
            .fact("idle_timeout_seconds", policy.idle_timeout().as_secs_f64())
            .fact("connect_timeout_seconds", policy.connect_timeout().as_secs_f64())
            .fact("checkout_timeout_seconds", policy.checkout_timeout().as_secs_f64());
        let short = policy.connect_timeout() < COLD_START;
        self.put(match short {
            true => check.found(
                Status::Warning,
                Finding::new(
                    "connect-timeout-short",
                    "a cold start happens inside connect_timeout, and may take longer than that",
                    "set connect_timeout to 15 in the URL, or leave it out",
                ),
            ),
            false => check,
        });
        let minimum = Duration::from_secs(60);
        if policy
            .suspend_after()
            .is_some_and(|window| window < minimum)
        {
            self.put(Check::warning(
                "pool",
                "suspend_after is below 60 s",
                Finding::new(
                    "window-short",
                    "Neon has no shorter window; the pool would only reconnect more often",
                    "use the value from the console, at least 60s",
                ),
            ));
        }
    }

    /// What the pool would make of these settings and this URL.
    fn policy(&self, target: &Target) -> Policy {
        let mut builder = Policy::builder();
        if let Some(max_size) = self.options.max_size {
            builder = builder.max_size(max_size);
        }
        match self.options.suspend_after {
            Some(Window::After(window)) => builder = builder.suspend_after(window),
            Some(Window::Never) => builder = builder.never_suspends(),
            None => {}
        }
        if let Some(timeout) = target.found.url.connect_timeout() {
            builder = builder.connect_timeout(timeout);
        }
        // Nothing above can contradict: the rest is derived from it.
        builder.build().unwrap_or_default()
    }

    fn limit(&self, target: &Target) -> Duration {
        let default = || self.policy(target).connect_timeout();
        self.options.timeout.unwrap_or_else(default)
    }

    fn put(&mut self, mut check: Check) {
        check.tame();
        self.page.check(&check);
        self.checks.push(check);
    }

    fn skip(&mut self, role: Option<Role>, names: &[&'static str], why: &str) {
        self.page.skipped(names, why);
        for name in names {
            let mut check = Check::skipped(name, why);
            check.endpoint = role;
            self.checks.push(check);
        }
    }

    /// What comes after a check of an endpoint that has failed, as far as it concerns that endpoint.
    fn skip_behind(&mut self, target: &Target, failed: &str, why: &str) {
        let names = EVERYTHING
            .iter()
            .skip_while(|name| **name != failed)
            .skip(1);
        let names = names.filter(|name| match **name {
            "connections" => target.serves(Role::App),
            "migrations" => target.serves(Role::Direct),
            _ => true,
        });
        let names: Vec<_> = names.copied().collect();
        self.skip(Some(target.role()), &names, why);
    }

    fn last_failed(&self, name: &str) -> bool {
        let last = self.checks.last();
        last.is_some_and(|check| check.check == name && check.status == Status::Failure)
    }

    fn know(&mut self, target: &Target) {
        if let Some(password) = target.found.url.password() {
            let is_a_name =
                [target.found.url.user(), target.found.url.database()].contains(&Some(password));
            if !is_a_name {
                self.secrets.push(password.to_owned());
            }
        }
    }

    /// Words that are not ours could quote what they were given.
    fn scrub(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

fn same_database(first: &Server, second: &Server) -> Check {
    let check = Check::ok("same-database", format!("both lead to {}", first.database))
        .fact("same", first.identity == second.identity);
    if first.identity == second.identity {
        return check;
    }
    check.found(
        Status::Warning,
        Finding::new(
            "different-databases",
            format!(
                "the two URLs lead to different servers or databases ({} and {}): migrations would change \
                 another one than the app uses",
                first.database, second.database
            ),
            "copy both from the same branch in Neon's console, or unset the direct one: it is derived",
        ),
    )
}

/// Nothing but a login takes longer.
const STEP: Duration = Duration::from_secs(10);

/// Neon's guide asks for ten seconds at least; below this one even ordinary cold starts fail.
const COLD_START: Duration = Duration::from_secs(5);

/// The checks of one endpoint, in the order in which they are made.
const EVERYTHING: &[&str] = &[
    "parameters",
    "sslmode",
    "dns",
    "tcp",
    "tls",
    "endpoint",
    "authentication",
    "start",
    "server",
    "round-trip",
    "connections",
    "pooler",
    "statements",
    "activity",
    "migrations",
];
