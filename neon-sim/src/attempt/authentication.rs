//! The client's proof of who it is.

use std::io;

use tokio::time::timeout;

use super::{Attempt, Failure};
use crate::route::{self, Endpoint};
use crate::scram::{self, Exchange, Outcome, Verifier};
use crate::wire;

/// How many bytes a client may send at a time before it is known.
const LONGEST: u32 = 512;

const TOO_LATE: &str = "Authentication timed out";

impl Attempt<'_> {
    /// Asks for the proof; a client whose endpoint is not known yet names it with the password.
    pub(super) async fn authenticate(
        &mut self,
        endpoint: Option<Endpoint>,
        user: &str,
    ) -> Result<Endpoint, Failure> {
        let patience = self.proxy.times.authentication;
        let exchange = async {
            match endpoint {
                Some(endpoint) => {
                    self.attempted(&endpoint);
                    let accepted = self.scram(&endpoint, user).await?;
                    Ok((endpoint, accepted))
                }
                None => self.cleartext(user).await,
            }
        };
        let (endpoint, accepted) = match timeout(patience, exchange).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(TOO_LATE.into()),
        };
        if !accepted {
            return Err(format!("password authentication failed for user '{user}'").into());
        }
        self.answer.extend(wire::authentication(0, &[]));
        Ok(endpoint)
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
        let (mechanism, data) = initial_response(&first).ok_or(scram::VIOLATION)?;
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
        let text = str::from_utf8(text).map_err(|_| scram::VIOLATION)?;
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

    async fn password_message(&mut self) -> Result<Vec<u8>, Failure> {
        self.flights += 1;
        match wire::read(&mut self.client, LONGEST).await {
            Ok((b'p', body)) => Ok(body),
            Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(Failure::Io),
            _ => Err(scram::VIOLATION.into()),
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
