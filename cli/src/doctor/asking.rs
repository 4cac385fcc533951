//! The questions to a session.

use std::future::Future;
use std::time::{Duration, Instant};

use diesel_neon::diagnose::{Peer, Probe};
use diesel_neon::migration::MigrateError;
use diesel_neon::{Endpoint, EstablishedSession};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::environment::Target;
use super::network::of;
use super::report::{Check, Finding, Role, Status};
use super::server::{self, Server};
use super::{Doctor, STEP, activity, migrations, pooler};

impl Doctor<'_> {
    pub(super) async fn ask(
        &mut self,
        target: &Target,
        probe: &Probe,
        peer: &Peer,
        session: EstablishedSession,
        seen: Option<Server>,
    ) -> Option<Server> {
        let (role, endpoint) = (target.role(), target.found.url.endpoint());
        let (time_zone, is_utc) = (session.parameter("TimeZone"), session.is_in_utc());
        let client = &session.into_client();
        let asked = self.query(role, "server", Server::ask(client)).await;
        let Some((server, took)) = asked else {
            self.skip_behind(target, "server", "the session does not answer");
            return seen;
        };
        self.put(of(role, server.check().took(took)));
        let first = seen.is_none();
        if first {
            self.put(of(role, server.clock()));
            self.put(of(role, server.time_zone(time_zone.as_deref(), is_utc)));
        }
        let work = server::round_trip(client);
        if let Some((check, took)) = self.query(role, "round-trip", work).await {
            self.put(of(role, check.took(took)));
        }
        // The pool connects to the app's endpoint alone.
        if target.serves(Role::App) {
            let policy = self.policy(target);
            let check = server.connections(endpoint, &policy, self.options.instances);
            self.put(of(role, check));
        }
        let began = Instant::now();
        let shared = self.shares(role, probe, peer, client).await;
        if let Some(shared) = shared {
            let check = pooler::check(endpoint, shared, target.serves(Role::Direct));
            self.put(of(role, check.took(began.elapsed())));
        }
        let shared = shared.unwrap_or(endpoint == Endpoint::Pooled);
        let work = pooler::naming(client);
        if let Some((naming, took)) = self.query(role, "statements", work).await {
            let check = pooler::statements(endpoint, shared, naming);
            self.put(of(role, check.took(took)));
        }
        if first {
            let work = activity::check(client);
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

    /// Returns whether a second session has the first one's backend, which only a pooler brings about.
    async fn shares(
        &mut self,
        role: Role,
        probe: &Probe,
        peer: &Peer,
        client: &Client,
    ) -> Option<bool> {
        let both = async {
            let second = probe.log_in(peer).await.session.ok()?.into_client();
            let ours = pooler::backend(client).await.ok()?;
            Some(ours == pooler::backend(&second).await.ok()?)
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
        let limit = self.limit(target).saturating_add(STEP);
        let given = self.options.migration_dir.as_deref();
        let work = timeout(limit, migrations::list(&target.found.url, given));
        let check = match self.page.waiting("looking at the migrations", work).await {
            Ok(Ok(listed)) => migrations::check(&listed),
            Ok(Err(MigrateError::NoFolder { path, .. })) if given.is_none() => {
                let why = format!("there is no folder {}", path.display());
                return self.skip(Some(role), &["migrations"], &why);
            }
            Ok(Err(error)) => migrations::unreadable(crate::with_causes(&error)),
            Err(_) => migrations::unreadable(format!("no answer within {limit:?}")),
        };
        self.put(of(role, check.took(began.elapsed())));
    }

    /// Makes a query within [`STEP`]. Returns its answer and the time that it took, or reports its failure.
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
        let check = Check::failure(name, "no answer", finding.with_error(error));
        self.put(of(role, check.took(began.elapsed())));
        None
    }
}

fn same_database(first: &Server, second: &Server) -> Check {
    let check = Check::ok("same-database", format!("both lead to {}", first.database))
        .fact("same", first.identity == second.identity);
    if first.identity == second.identity {
        return check;
    }
    check.found(
        Status::Failure,
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
