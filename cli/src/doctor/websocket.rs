//! Whether port 443 works if the port of Postgres does not.

use std::time::Instant;

use diesel_neon::diagnose::Probe;
use diesel_neon::{ConnectError, DatabaseUrl, Encryption, TransportMode};

use super::Doctor;
use super::environment::Target;
use super::network::of;
use super::report::{Check, Finding, Status};

impl Doctor<'_> {
    /// Logs in over a WebSocket, if the URL is one for TCP whose server may make WebSockets.
    pub(super) async fn look_at_websocket(&mut self, target: &Target) {
        let url = &target.found.url;
        let is_likely = url.is_neon() || url.https_port() != 443;
        let is_it = url.transport() == TransportMode::WebSocket;
        if !is_likely || is_it || *url.encryption() == Encryption::Plain {
            return;
        }
        let Some(other) = over_websocket(url) else {
            return;
        };
        let Ok(probe) = Probe::new(&other, self.limit(target)) else {
            return;
        };
        let began = Instant::now();
        let work = log_in(&probe, &other);
        let result = self.page.waiting("trying port 443", work).await;
        let check = match result {
            Ok(()) => Check::ok("websocket", "Postgres's port is blocked here; port 443 works")
                .detail("add transport=websocket to the database URL, with channel_binding=prefer if it has require")
                .detail("or set DIESEL_NEON_TRANSPORT=websocket; the app needs diesel-neon's feature websocket"),
            Err(error) if error.sqlstate().is_some() => {
                let check = Check::ok("websocket", "port 443 is open, and the server refuses");
                check.found(Status::Failure, Finding::of(&error))
            }
            Err(error) => {
                let check = Check::ok("websocket", "port 443 does not work either");
                check.found(Status::Warning, Finding::of(&error))
            }
        };
        self.put(of(target.role(), check.took(began.elapsed())));
    }
}

/// Returns the URL over a WebSocket, without the channel binding that cannot hold there.
fn over_websocket(url: &DatabaseUrl) -> Option<DatabaseUrl> {
    let text = url.to_libpq();
    let text = text.replace("channel_binding=require", "channel_binding=prefer");
    let text = format!("{text}&https_port={}", url.https_port());
    let url = DatabaseUrl::parse(&text).ok()?;
    url.with_transport(TransportMode::WebSocket).ok()
}

async fn log_in(probe: &Probe, url: &DatabaseUrl) -> Result<(), ConnectError> {
    let mut last = None;
    for host in url.hosts() {
        let peers = probe.look_up(host).await?;
        for peer in peers {
            match probe.log_in(&peer).await.session {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
    }
    last.map_or(Ok(()), Err)
}
