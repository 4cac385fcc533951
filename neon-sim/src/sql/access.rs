//! Who may run statements, and where.

use super::failure::Failure;
use super::headers::{Credentials, Target};
use crate::proxy::route::{self, Endpoint};
use crate::proxy::shared::Shared;

/// Returns the endpoint that a connection string names, if the client may use it.
pub(super) async fn admit(
    shared: &Shared,
    tokens: &[String],
    target: &Target,
) -> Result<Endpoint, Failure> {
    let endpoint = route::of_host(&target.host, &shared.domain);
    let endpoint = endpoint.ok_or_else(|| Failure::bad("malformed endpoint"))?;
    let is_admitted = shared.has(&endpoint)
        && match &target.credentials {
            Credentials::Token(token) => tokens.contains(token),
            Credentials::Password(password) => shared.roles.accepts(&target.user, password).await,
        };
    if !is_admitted {
        let user = &target.user;
        let message = format!("password authentication failed for user '{user}'");
        return Err(Failure::bad(message));
    }
    if let Some(message) = shared.faults.next_refusal() {
        return Err(Failure::connecting(message));
    }
    if shared.faults.hang_next() {
        std::future::pending::<()>().await;
    }
    Ok(endpoint)
}
