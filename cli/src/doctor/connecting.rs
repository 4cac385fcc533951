//! From a URL to a session, in the steps that a connection of the pool takes.

use std::time::Instant;

use diesel_neon::Encryption;
use tokio::time::timeout;

use super::diagnosis::{self, Part};
use super::environment::{self, Target};
use super::login::{Login, LoginError, Session, Tap};
use super::network::{self, Address, of};
use super::report::{Check, Finding};
use super::tls::Probe;
use super::{Doctor, STEP};

impl Doctor<'_> {
    /// Name look-up and TCP, of all hosts.
    pub(super) async fn reach(&mut self, target: &Target) -> Option<(String, Address)> {
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

    pub(super) async fn secure(
        &mut self,
        target: &Target,
        host: String,
        address: Address,
    ) -> Option<Login> {
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
            _ => {
                let allowed = match &address {
                    Address::Tcp(address) => url.check_address(address.ip()),
                    Address::Unix(_) => Ok(()),
                };
                if let Err(error) = allowed {
                    let finding = Finding::new(
                        "sslmode-weak",
                        "the host's name leads to where the password and the data would go unprotected",
                        "use sslmode=verify-full (require means the same here), or correct the host",
                    );
                    let finding = finding.with_error(error.to_string());
                    let check = Check::failure("tls", "none, and it is needed there", finding);
                    self.put(of(role, check));
                    let why = "no password is sent in plain text there";
                    self.skip_behind(target, "tls", why);
                    return None;
                }
                self.put(of(role, Check::ok("tls", "none, as sslmode says")));
            }
        }
        Some(Login::new(url, address, host, config))
    }

    pub(super) async fn log_in(&mut self, target: &Target, login: &Login) -> Option<Session> {
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
                let cold = seen.was_cold();
                let waited = seen.started_in.unwrap_or_default();
                self.put(of(role, authenticated.took(took.saturating_sub(waited))));
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
        let (part, finding) = diagnosis::of_login(&self.scrub(&error.message()), error.diagnosis());
        let (name, summary) = match part {
            Part::Endpoint => ("endpoint", "the server does not take it"),
            Part::Authentication => ("authentication", "the login is refused"),
            Part::Start => ("start", "there is no session"),
        };
        let check = Check::failure(name, summary, finding);
        (part, check.fact("sqlstate", error.sqlstate()))
    }
}
