//! From a startup packet to an established session.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncWriteExt, copy, sink};
use tokio_rustls::server::TlsStream;

use crate::backend::{Backend, Canceller};
use crate::compute::{Busy, Membership};
use crate::counters::Tally;
use crate::faults::locked;
use crate::link::Link;
use crate::proxy::Proxy;
use crate::relay::relay;
use crate::route::{self, Endpoint};
use crate::scram::{self, Exchange, Outcome, Verifier};
use crate::session::Session;
use crate::wire::{self, Key, Startup};

const NO_OPTIONS: &str = "unsupported startup parameter: options. Please use unpooled connection \
    or remove this parameter from the startup package.";

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
                self.answer.extend(wire::error("ERROR", "XX000", &text));
                // The client may have lost patience.
                if self.send(&[]).await.is_ok() {
                    let _ = self.client.shutdown().await;
                }
            }
        }
        None
    }

    async fn establish(&mut self) -> Result<Established<'a>, Failure> {
        let proxy = self.proxy;
        let user = self
            .startup
            .parameter("user")
            .unwrap_or_default()
            .to_owned();
        let server_name = self.client.get_ref().1.server_name();
        let endpoint = route::endpoint(server_name, &proxy.domain, &self.startup)?;
        self.flights += 1;
        let (endpoint, accepted) = match endpoint {
            Some(endpoint) => {
                self.attempted(&endpoint);
                let accepted = self.scram(&endpoint, &user).await?;
                (endpoint, accepted)
            }
            None => self.cleartext(&user).await?,
        };
        if !accepted {
            return Err(format!("password authentication failed for user '{user}'").into());
        }
        self.answer.extend(wire::authentication(0, &[]));

        if let Some(message) = proxy.faults.refusal() {
            return Err(message.into());
        }
        if proxy.faults.hangs() {
            copy(&mut self.client, &mut sink()).await?;
            return Err(Failure::Io);
        }
        let busy = proxy.compute.wake(Some(&proxy.faults)).await?;
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

    async fn scram(&mut self, endpoint: &Endpoint, user: &str) -> Result<bool, Failure> {
        let binds = self.proxy.channel_binding;
        let mechanisms = match binds {
            true => format!("{}\0{}\0\0", scram::PLUS, scram::PLAIN),
            false => format!("{}\0\0", scram::PLAIN),
        };
        let offer = wire::authentication(10, mechanisms.as_bytes());
        self.send(&offer).await?;

        let first = self.password_message().await?;
        let (mechanism, data) = initial_response(&first).ok_or(Failure::Io)?;
        let verifier = self.known_verifier(endpoint, user).await;
        let verifier = verifier.unwrap_or_else(Verifier::unsatisfiable);
        let end_point = binds.then_some(&*self.proxy.tls.end_point);
        let exchange = Exchange::start(mechanism, data, verifier, end_point)?;
        let challenge = wire::authentication(11, exchange.server_first().as_bytes());
        self.send(&challenge).await?;

        let last = self.password_message().await?;
        match exchange.finish(&last)? {
            Outcome::Accepted(proof) => {
                let proof = wire::authentication(12, proof.as_bytes());
                self.answer.extend(proof);
                Ok(true)
            }
            Outcome::Refused => Ok(false),
        }
    }

    async fn cleartext(&mut self, user: &str) -> Result<(Endpoint, bool), Failure> {
        let request = wire::authentication(3, &[]);
        self.send(&request).await?;
        let body = self.password_message().await?;
        let text = body.strip_suffix(&[0]).unwrap_or(&body);
        let text = str::from_utf8(text).map_err(|_| Failure::Io)?;
        let (endpoint, password) = route::from_password(text)?;
        self.attempted(&endpoint);
        let verifier = self.known_verifier(&endpoint, user).await;
        let accepted = verifier.is_some_and(|verifier| verifier.accepts(password.as_bytes()));
        Ok((endpoint, accepted))
    }

    async fn known_verifier(&self, endpoint: &Endpoint, user: &str) -> Option<Verifier> {
        if endpoint.name != self.proxy.endpoint {
            return None;
        }
        self.proxy.catalog.verifier(user).await
    }

    /// Sends what has been put aside, and this.
    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.answer.extend(message);
        self.client.write_all(&self.answer).await?;
        self.answer.clear();
        self.client.flush().await
    }

    async fn password_message(&mut self) -> Result<Vec<u8>, Failure> {
        self.flights += 1;
        match wire::read(&mut self.client).await? {
            (b'p', body) => Ok(body),
            _ => Err(Failure::Io),
        }
    }

    async fn backend(&self, endpoint: &Endpoint, user: &str) -> Result<Backend, String> {
        let options = route::server_options(&self.startup);
        if endpoint.pooled && !options.is_empty() {
            return Err(NO_OPTIONS.into());
        }
        let mut parameters = vec![("user", user), ("client_encoding", "UTF8")];
        let database = self.startup.parameter("database").unwrap_or(user);
        parameters.push(("database", database));
        for name in ["application_name", "replication"] {
            parameters.extend(self.startup.parameter(name).map(|value| (name, value)));
        }
        if !options.is_empty() {
            parameters.push(("options", &options));
        }
        Backend::open(self.socket(endpoint), &parameters).await
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

/// The mechanism and the data of a SASLInitialResponse.
fn initial_response(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let mechanism = str::from_utf8(&body[..end]).ok()?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((mechanism, data))
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
