//! How a client proves who it is.

use tokio::time::timeout;

use super::client::{Client, Failure};
use super::route::{self, Endpoint};
use super::shared::Shared;
use super::wire::Wire;
use crate::protocol::message;
use crate::protocol::scram::{self, Exchange, Outcome, Verifier};
use crate::protocol::tag::authentication;

const TOO_LATE: &str = "Authentication timed out";

/// Authenticates a client; one whose endpoint is not known yet names it with the password.
pub(super) async fn authenticate<W: Wire>(
    shared: &Shared,
    client: &mut Client<W>,
    endpoint: Option<Endpoint>,
    user: &str,
) -> Result<Endpoint, Failure> {
    let exchange = exchange(shared, client, endpoint, user);
    let (endpoint, is_accepted) = match timeout(shared.timing.authentication, exchange).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(TOO_LATE.into()),
    };
    if !is_accepted {
        return Err(format!("password authentication failed for user '{user}'").into());
    }
    client.queue(message::authentication(authentication::OK, &[]));
    Ok(endpoint)
}

async fn exchange<W: Wire>(
    shared: &Shared,
    client: &mut Client<W>,
    endpoint: Option<Endpoint>,
    user: &str,
) -> Result<(Endpoint, bool), Failure> {
    let Some(endpoint) = endpoint else {
        let text = cleartext(client).await?;
        let (endpoint, password) = route::from_password(&text)?;
        admit(shared, client, &endpoint)?;
        let is_accepted = is_right(shared, &endpoint, user, password).await;
        return Ok((endpoint, is_accepted));
    };
    admit(shared, client, &endpoint)?;
    let is_accepted = match client.door().asks_for_proof() {
        true => sasl(shared, client, &endpoint, user).await?,
        false => {
            let password = cleartext(client).await?;
            is_right(shared, &endpoint, user, &password).await
        }
    };
    Ok((endpoint, is_accepted))
}

async fn sasl<W: Wire>(
    shared: &Shared,
    client: &mut Client<W>,
    endpoint: &Endpoint,
    user: &str,
) -> Result<bool, Failure> {
    let mechanisms = match shared.channel_binding {
        true => format!("{}\0{}\0\0", scram::PLUS, scram::PLAIN),
        false => format!("{}\0\0", scram::PLAIN),
    };
    let offer = message::authentication(authentication::SASL, mechanisms.as_bytes());
    client.send(&offer).await?;

    let first = client.read_password().await?;
    let (mechanism, data) = initial_response(&first).ok_or(scram::VIOLATION)?;
    let verifier = verifier(shared, endpoint, user).await;
    let verifier = verifier.unwrap_or_else(Verifier::unsatisfiable);
    let end_point = shared.channel_binding.then_some(&*shared.tls.end_point);
    let exchange = Exchange::start(mechanism, data, verifier, end_point)?;
    let server_first = exchange.server_first().as_bytes();
    let challenge = message::authentication(authentication::SASL_CONTINUE, server_first);
    client.send(&challenge).await?;

    let last = client.read_password().await?;
    match exchange.finish(&last)? {
        Outcome::Accepted(proof) => {
            let proof = message::authentication(authentication::SASL_FINAL, proof.as_bytes());
            client.queue(proof);
            Ok(true)
        }
        Outcome::Refused => Ok(false),
    }
}

/// Asks for a password as it is.
async fn cleartext<W: Wire>(client: &mut Client<W>) -> Result<String, Failure> {
    let request = message::authentication(authentication::CLEARTEXT_PASSWORD, &[]);
    client.send(&request).await?;
    let mut body = client.read_password().await?;
    if body.last() == Some(&0) {
        body.pop();
    }
    String::from_utf8(body).map_err(|_| scram::VIOLATION.into())
}

async fn is_right(shared: &Shared, endpoint: &Endpoint, user: &str, password: &str) -> bool {
    shared.has(endpoint) && shared.roles.accepts(user, password.as_bytes()).await
}

/// Counts an attempt at its endpoint, and refuses it if there are too many.
fn admit<W: Wire>(
    shared: &Shared,
    client: &mut Client<W>,
    endpoint: &Endpoint,
) -> Result<(), Failure> {
    if shared.has(endpoint) {
        client.count_at(shared.tally(endpoint));
        shared.admit_login()?;
    }
    Ok(())
}

async fn verifier(shared: &Shared, endpoint: &Endpoint, user: &str) -> Option<Verifier> {
    match shared.has(endpoint) {
        true => shared.roles.verifier(user).await,
        false => None,
    }
}

/// Returns the mechanism and the data of a SASLInitialResponse.
fn initial_response(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let mechanism = str::from_utf8(&body[..end]).ok()?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((mechanism, data))
}
