//! From a startup packet to an established session.

mod authentication;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use crate::backend::{Backend, Canceller};
use crate::backoff::pauses;
use crate::compute::{Busy, Membership};
use crate::counters::Tally;
use crate::faults::{is_final, locked};
use crate::link::Link;
use crate::proxy::Proxy;
use crate::relay::relay;
use crate::route::{self, Endpoint};
use crate::scram;
use crate::session::Session;
use crate::wire::{self, Key, Startup};

const NO_USER: &str = "Parameter 'user' is missing in startup packet.";

/// A connection on its way to a session.
pub(crate) struct Attempt<'a> {
    proxy: &'a Proxy,
    client: TlsStream<Link>,
    startup: Startup,
    /// Round trips that the client has waited for.
    flights: u64,
    /// What the client is told with the next write.
    answer: Vec<u8>,
    tally: Option<Arc<Tally>>,
}

impl<'a> Attempt<'a> {
    /// An attempt that has taken `flights` round trips so far.
    pub(crate) fn new(
        proxy: &'a Proxy,
        client: TlsStream<Link>,
        startup: Startup,
        flights: u64,
    ) -> Self {
        Self {
            proxy,
            client,
            startup,
            flights,
            answer: Vec::new(),
            tally: None,
        }
    }

    /// Authenticates the client and connects it, or tells it why not.
    pub(crate) async fn run(mut self) -> Option<(TlsStream<Link>, Established<'a>)> {
        let established = self.establish().await;
        self.count_flights();
        match established {
            Ok(established) => return Some((self.client, established)),
            Err(Failure::Io) => {}
            Err(Failure::Told(text)) => {
                // The client may have lost patience.
                if self.send(&wire::error(&text)).await.is_ok() {
                    // Without a word of TLS's own.
                    let _ = self.client.get_mut().0.shutdown().await;
                }
            }
        }
        None
    }

    async fn establish(&mut self) -> Result<Established<'a>, Failure> {
        let proxy = self.proxy;
        let user = self.startup.parameter("user").ok_or(NO_USER)?.to_owned();
        let server_name = self.client.get_ref().1.server_name();
        let endpoint = route::endpoint(server_name, &proxy.domain, &self.startup)?;
        self.flights += 1;
        let endpoint = self.authenticate(endpoint, &user).await?;

        if let Some(message) = proxy.faults.refusal() {
            return Err(message.into());
        }
        if proxy.faults.hangs() {
            copy(&mut self.client, &mut sink()).await?;
            return Err(Failure::Io);
        }
        let busy = self.wake().await?;
        let backend = self.backend(&endpoint, &user).await?;
        let tally = self.tally(&endpoint);
        let membership = proxy
            .compute
            .enter()
            .ok_or("error communicating with the server: connection closed")?;
        tally.connections.add(1);

        let canceller = backend.key.map(|key| Canceller {
            socket: self.socket(&endpoint).clone(),
            key,
        });
        let key = Key {
            process: scram::random(),
            secret: scram::random(),
        };
        if let Some(canceller) = &canceller {
            let target = (canceller.clone(), Arc::clone(tally));
            locked(&proxy.sessions).insert(key, target);
        }
        let registration = Registration { proxy, key };
        let session = Session::new(
            endpoint.pooled,
            canceller,
            Arc::clone(tally),
            Arc::clone(&proxy.compute),
        );
        self.answer.extend(&backend.greeting);
        self.answer.extend(wire::key_data(key));
        self.answer.extend(wire::message(b'Z', b"I"));
        // Whoever sees that the session is there sees it counted.
        self.count_flights();
        self.send(&[]).await?;
        // A stream of changes keeps the compute awake as long as it lasts.
        let replicates = !matches!(
            self.startup.parameter("replication"),
            None | Some("false" | "off" | "no" | "0")
        );
        Ok(Established {
            backend,
            session,
            membership,
            _busy: replicates.then_some(busy),
            _registration: registration,
        })
    }

    /// Wakes the compute, and tries again while the error may pass; others may wake it meanwhile.
    async fn wake(&self) -> Result<Busy, String> {
        let proxy = self.proxy;
        for pause in pauses().take(proxy.times.wake_retries as usize) {
            match proxy.compute.wake(Some(&proxy.faults)).await {
                Err(message) if !is_final(&message) => sleep(pause).await,
                outcome => return outcome,
            }
        }
        proxy.compute.wake(Some(&proxy.faults)).await
    }

    /// Sends what has been put aside, and this.
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.answer.extend(message);
        self.client.write_all(&self.answer).await?;
        self.answer.clear();
        self.client.flush().await
    }

    async fn backend(&self, endpoint: &Endpoint, user: &str) -> Result<Backend, String> {
        let options = route::server_options(&self.startup);
        if endpoint.pooled && !options.is_empty() {
            return Err(route::pooled_refusal(&options));
        }
        let database = self.startup.parameter("database").unwrap_or(user);
        let mut parameters = vec![("user", user), ("database", database)];
        let all = route::passes_parameters(&self.startup);
        if !all {
            parameters.push(("client_encoding", "UTF8"));
        }
        parameters.extend(
            self.startup
                .others()
                .filter(|(name, _)| all || matches!(*name, "application_name" | "replication")),
        );
        if !options.is_empty() {
            parameters.push(("options", &options));
        }
        let patience = self.proxy.times.unreachable;
        Backend::open(self.socket(endpoint), &parameters, patience).await
    }

    fn socket(&self, endpoint: &Endpoint) -> &PathBuf {
        if endpoint.pooled {
            &self.proxy.pgbouncer
        } else {
            &self.proxy.postgres
        }
    }

    fn tally(&self, endpoint: &Endpoint) -> &'a Arc<Tally> {
        if endpoint.pooled {
            &self.proxy.pooled
        } else {
            &self.proxy.direct
        }
    }

    fn count_flights(&mut self) {
        if let Some(tally) = &self.tally {
            tally
                .handshake_flights
                .add(std::mem::take(&mut self.flights));
        }
    }

    fn attempted(&mut self, endpoint: &Endpoint) {
        if endpoint.name == self.proxy.endpoint {
            let tally = Arc::clone(self.tally(endpoint));
            tally.attempts.add(1);
            self.tally = Some(tally);
        }
    }
}

/// A session, complete.
pub(crate) struct Established<'a> {
    backend: Backend,
    session: Session,
    membership: Membership,
    _busy: Option<Busy>,
    _registration: Registration<'a>,
}

impl Established<'_> {
    pub(crate) async fn run(self, client: TlsStream<Link>) {
        relay(client, self.backend.stream, &self.session, self.membership).await;
    }
}

/// A session that can be cancelled.
struct Registration<'a> {
    proxy: &'a Proxy,
    key: Key,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        locked(&self.proxy.sessions).remove(&self.key);
    }
}

/// Why a connection has not become a session.
enum Failure {
    /// The client has gone or does not speak the protocol.
    Io,
    /// The client is to be told this.
    Told(String),
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Told(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::Told(text.into())
    }
}
