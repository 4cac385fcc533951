//! From a URL to a session, in the steps that a connection of the pool takes.

use std::time::{Duration, Instant};

use diesel_neon::diagnose::{Login, LoginMethod, Peer, Probe};
use diesel_neon::{ConnectError, ConnectErrorKind, EstablishedSession};

use super::environment::{self, Target};
use super::network::{self, of};
use super::report::{Check, Finding};
use super::{Doctor, tls};

impl Doctor<'_> {
    /// Loads the certificates to trust, without which the pool does not even begin.
    pub(super) fn prepare(&mut self, target: &Target) -> Option<Probe> {
        let error = match Probe::new(&target.found.url, self.limit(target)) {
            Ok(probe) => return Some(probe),
            Err(error) => error,
        };
        let role = target.role();
        let why = "the roots cannot be loaded";
        self.skip(Some(role), &["dns", "tcp"], why);
        let finding = Finding::new(
            "roots-unusable",
            "without certificates to trust nothing can be verified",
            "correct the path in sslrootcert, SSL_CERT_FILE or SSL_CERT_DIR; for Neon none is needed",
        );
        let finding = finding.with_error(crate::with_causes(&error));
        self.put(of(role, Check::failure("tls", why, finding)));
        self.skip_behind(target, "tls", "TLS cannot be spoken");
        None
    }

    /// Looks all hosts up and connects to them by TCP. Returns of each the first address that answers.
    pub(super) async fn reach(&mut self, target: &Target, probe: &Probe) -> Vec<Peer> {
        let role = target.role();
        let mut reached = Vec::new();
        for host in target.found.url.hosts() {
            let name = host.name.to_string();
            let what = format!("looking {name} up");
            let work = network::look_up(probe, host);
            let (peers, check) = self.page.waiting(&what, work).await;
            self.put(of(role, check));
            let what = format!("connecting to {name}");
            let work = network::reach(probe, &peers);
            let (first, checks) = self.page.waiting(&what, work).await;
            for check in checks {
                self.put(of(role, check));
            }
            reached.extend(first);
        }
        if reached.is_empty() {
            let (failed, why) = if self.last_failed("tls") {
                ("tls", "no password is sent in plain text there")
            } else if self.last_failed("dns") {
                ("dns", "nothing answers there")
            } else {
                ("tcp", "nothing answers there")
            };
            if failed == "tcp" {
                self.look_at_websocket(target, true).await;
            }
            self.skip_behind(target, failed, why);
        }
        reached
    }

    /// Returns whether the server behind `peer` may be sent a password.
    pub(super) async fn secure(&mut self, target: &Target, probe: &Probe, peer: &Peer) -> bool {
        let (role, name, began) = (target.role(), peer.name(), Instant::now());
        let what = format!("speaking TLS with {name}");
        let Some(seen) = self.page.waiting(&what, probe.secure(peer)).await else {
            self.put(of(role, Check::ok("tls", "none, as sslmode says")));
            return true;
        };
        let encryption = target.found.url.encryption();
        for check in tls::checks(encryption, name, &seen, began.elapsed()) {
            self.put(of(role, check));
        }
        if seen.session.is_err() {
            let why = "no password is sent to a server that is not verified";
            self.skip_behind(target, "tls", why);
        }
        seen.session.is_ok()
    }

    /// Logs in at the first of `peers` that is a server of the kind that the URL asks for.
    pub(super) async fn log_in<'p>(
        &mut self,
        target: &Target,
        probe: &Probe,
        peers: &'p [Peer],
    ) -> Option<(&'p Peer, EstablishedSession)> {
        for (at, peer) in peers.iter().enumerate() {
            if !self.secure(target, probe, peer).await {
                return None;
            }
            let began = Instant::now();
            let what = "logging in; a cold start takes a moment";
            let login = self.page.waiting(what, probe.log_in(peer)).await;
            let is_last = at + 1 == peers.len();
            match &login.session {
                Err(error) if error.kind() == ConnectErrorKind::TargetSessionAttrs && !is_last => {
                    let check =
                        Check::ok("start", format!("not {}: {}", peer.name(), error.reason()));
                    self.put(of(target.role(), check.took(began.elapsed())));
                }
                _ => return Some((peer, self.logged_in(target, login, began.elapsed())?)),
            }
        }
        None
    }

    fn logged_in(
        &mut self,
        target: &Target,
        login: Login,
        took: Duration,
    ) -> Option<EstablishedSession> {
        let role = target.role();
        let user = target.found.url.user();
        let authenticated = authenticated(user.unwrap_or("the operating system's user"), &login);
        let error = match login.session {
            Ok(session) => {
                self.put(of(role, environment::endpoint(target)));
                let waited = login.start.unwrap_or_default();
                self.put(of(role, authenticated.took(took.saturating_sub(waited))));
                let summary = match login.was_cold {
                    true => "cold: the compute was asleep, or is far away",
                    false => "warm",
                };
                let start = Check::ok("start", summary).fact("cold", login.was_cold);
                self.put(of(role, start.took(waited)));
                return Some(session);
            }
            Err(error) => error,
        };
        let (failed, summary) = place(&error);
        if failed != "endpoint" {
            self.put(of(role, environment::endpoint(target)));
        }
        if failed == "start" && login.is_authenticated {
            self.put(of(role, authenticated));
        } else if failed == "start" {
            let why = "the login did not come so far";
            self.skip(Some(role), &["authentication"], why);
        }
        let check = Check::failure(failed, summary, Finding::of(&error));
        let check = check.fact("sqlstate", error.sqlstate());
        self.put(of(role, check.took(took)));
        self.skip_behind(target, failed, "there is no session");
        None
    }
}

/// Returns the check that a failed login belongs to, and its summary.
fn place(error: &ConnectError) -> (&'static str, &'static str) {
    match error.kind() {
        ConnectErrorKind::Endpoint => ("endpoint", "the server does not take it"),
        ConnectErrorKind::Authentication => ("authentication", "the login is refused"),
        ConnectErrorKind::TimedOut => ("start", "no answer"),
        _ => ("start", "there is no session"),
    }
}

fn authenticated(user: &str, login: &Login) -> Check {
    let method = login.method.map(|method| method.to_string());
    let is_bound = login.method == Some(LoginMethod::ScramSha256Plus);
    let shown = method.as_deref().unwrap_or("no password");
    let bound = match is_bound {
        true => ", bound to TLS",
        false => "",
    };
    Check::ok("authentication", format!("{user}, {shown}{bound}"))
        .fact("role", user)
        .fact("method", method)
        .fact("channel_binding", is_bound)
}
