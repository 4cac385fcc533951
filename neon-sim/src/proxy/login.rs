//! From a startup packet to an established session.

use std::sync::Arc;

use super::authentication::authenticate;
use super::backend::{Backend, Canceller};
use super::client::{Client, Failure};
use super::door::Door;
use super::relay::relay;
use super::route::{self, Endpoint};
use super::session::Session;
use super::shared::{Registration, Shared};
use super::wake::wake;
use super::wire::Wire;
use crate::control::compute::{Busy, Membership};
use crate::protocol::message::{self, message};
use crate::protocol::startup::Startup;
use crate::protocol::tag::backend;

const NO_USER: &str = "Parameter 'user' is missing in startup packet.";

/// Authenticates the client and connects it, or tells it why not.
pub(super) async fn log_in<'a, W: Wire>(
    shared: &'a Shared,
    stream: W,
    door: Door,
    startup: &Startup,
) -> Option<Established<'a, W>> {
    let mut client = Client::new(stream, door);
    match open(shared, &mut client, startup).await {
        Ok(opened) => Some(Established {
            client: client.into_stream(),
            opened,
        }),
        Err(Failure::Io) => None,
        Err(Failure::Refused(text)) => {
            client.refuse(&text).await;
            None
        }
    }
}

async fn open<'a, W: Wire>(
    shared: &'a Shared,
    client: &mut Client<W>,
    startup: &Startup,
) -> Result<Opened<'a>, Failure> {
    let user = startup.parameter("user").ok_or(NO_USER)?;
    let endpoint = route::endpoint(client.door().host(), &shared.domain, startup)?;
    let endpoint = authenticate(shared, client, endpoint, user).await?;

    if let Some(message) = shared.faults.next_refusal() {
        return Err(message.into());
    }
    if shared.faults.hang_next() {
        client.hang().await;
        return Err(Failure::Io);
    }
    let busy = wake(shared).await?;
    let backend = connect(shared, &endpoint, startup, user).await?;
    let tally = shared.tally(&endpoint);
    let membership = shared
        .compute
        .enter()
        .ok_or("error communicating with the server: connection closed")?;
    tally.connections.add(1);

    let canceller = backend.key.map(|key| Canceller {
        socket: shared.socket(&endpoint).clone(),
        key,
    });
    let registration = shared.cancellable.register(canceller.clone(), tally);
    let session = Session::new(
        endpoint.pooled,
        canceller,
        Arc::clone(tally),
        Arc::clone(&shared.compute),
        Arc::clone(&shared.faults),
    );
    client.queue(&backend.greeting);
    client.queue(registration.key.key_data());
    client.queue(message(backend::READY_FOR_QUERY, &[backend::IDLE]));
    client.count_as_session(tally);
    client.send(&[]).await?;
    // A replication stream keeps the compute awake until it ends.
    let replicates = !matches!(
        startup.parameter("replication"),
        None | Some("false" | "off" | "no" | "0")
    );
    Ok(Opened {
        backend,
        session,
        membership,
        _busy: replicates.then_some(busy),
        _registration: registration,
    })
}

/// Opens a session with the server behind the endpoint; errors are texts for the client.
async fn connect(
    shared: &Shared,
    endpoint: &Endpoint,
    startup: &Startup,
    user: &str,
) -> Result<Backend, String> {
    let options = route::server_options(startup);
    if endpoint.pooled && !options.is_empty() {
        return Err(route::pooled_refusal(&options));
    }
    let database = startup.parameter("database").unwrap_or(user);
    if !shared.compute.may_have(database) {
        return Err(message::no_database(database));
    }
    let mut parameters = vec![("user", user), ("database", database)];
    let passes_all = route::passes_parameters(startup);
    if !passes_all {
        parameters.push(("client_encoding", "UTF8"));
    }
    let is_passed = |name| passes_all || matches!(name, "application_name" | "replication");
    parameters.extend(startup.others().filter(|(name, _)| is_passed(name)));
    if !options.is_empty() {
        parameters.push(("options", &options));
    }
    let patience = shared.timing.compute_connect;
    let opening = Backend::open(shared.socket(endpoint), &parameters, patience);
    opening.await.map_err(|refusal| refusal.message())
}

/// A session, with its client.
pub(super) struct Established<'a, W> {
    client: W,
    opened: Opened<'a>,
}

/// A session, with its server.
struct Opened<'a> {
    backend: Backend,
    session: Session,
    membership: Membership,
    _busy: Option<Busy>,
    _registration: Registration<'a>,
}

impl<W: Wire> Established<'_, W> {
    /// Carries the session's bytes until it ends.
    pub(super) async fn run(self) {
        relay(
            self.client,
            self.opened.backend.stream,
            &self.opened.session,
            self.opened.membership,
        )
        .await;
    }
}
