//! The other way to the server, over port 443: looked at if Postgres's own port is blocked, or if `--transport` says so.

use std::time::Instant;

use clap::ValueEnum;
use diesel_neon::diagnose::Probe;
use diesel_neon::{ChannelBinding, ConnectError, DatabaseUrl, Encryption, TransportMode, UrlError};

use super::Doctor;
use super::environment::Target;
use super::network::of;
use super::report::{Check, Finding, Status};

/// The way to look at.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// Postgres's own port
    Tcp,
    /// Port 443
    Websocket,
    /// Both, one after the other
    Auto,
}

impl Way {
    /// Returns the URL for the steps of a connect: over TCP, if both ways are looked at.
    pub(super) fn url(self, url: &DatabaseUrl) -> Result<DatabaseUrl, UrlError> {
        match self {
            Self::Tcp | Self::Auto => url.with_transport(TransportMode::Tcp),
            Self::Websocket => over_websocket(url),
        }
    }
}

impl Doctor<'_> {
    /// Looks at port 443 after `--transport=auto`, or, without that option, if Postgres's own port `is_blocked` and the
    /// server may make WebSockets.
    pub(super) async fn look_at_websocket(&mut self, target: &Target, is_blocked: bool) {
        let url = &target.found.url;
        let is_likely = url.is_neon() || url.https_port() != 443;
        let is_wanted = match self.options.transport {
            Some(way) => way == Way::Auto,
            None => is_blocked && is_likely && url.transport() != TransportMode::WebSocket,
        };
        if !is_wanted || *url.encryption() == Encryption::Plain {
            return;
        }
        let Ok(other) = over_websocket(url) else {
            return;
        };
        let Ok(probe) = Probe::new(&other, self.limit(target)) else {
            return;
        };
        let began = Instant::now();
        let work = log_in(&probe, &other);
        let result = self.page.waiting("trying port 443", work).await;
        let check = match result {
            Ok(()) if is_blocked => told(Check::ok(
                "websocket",
                "Postgres's port is blocked here; port 443 works",
            )),
            Ok(()) => told(Check::ok("websocket", "port 443 works")),
            Err(error) if error.sqlstate().is_some() => {
                let check = Check::ok("websocket", "port 443 is open, and the server refuses");
                check.found(Status::Failure, Finding::of(&error))
            }
            Err(error) => {
                let summary = match is_blocked {
                    true => "port 443 does not work either",
                    false => "port 443 does not work",
                };
                let check = Check::ok("websocket", summary);
                check.found(Status::Warning, Finding::of(&error))
            }
        };
        self.put(of(target.role(), check.took(began.elapsed())));
    }

    /// Says that `--transport=websocket` has led to a session, and how the app goes the same way.
    pub(super) fn recommend_websocket(&mut self, target: &Target) {
        if self.options.transport == Some(Way::Websocket) {
            let check = told(Check::ok("websocket", "port 443 works"));
            self.put(of(target.role(), check));
        }
    }
}

/// Says how to take the way over port 443.
fn told(check: Check) -> Check {
    check
        .detail("add transport=websocket to the database URL, with channel_binding=prefer if it has require")
        .detail("or set DIESEL_NEON_TRANSPORT=websocket; the app needs diesel-neon's feature websocket")
}

/// Returns the URL over a WebSocket, without the channel binding that cannot hold there.
fn over_websocket(url: &DatabaseUrl) -> Result<DatabaseUrl, UrlError> {
    let is_bound = matches!(
        url.encryption(),
        Encryption::Tls {
            channel_binding: ChannelBinding::Require,
            ..
        }
    );
    match is_bound {
        true => url.with_channel_binding(ChannelBinding::Prefer)?,
        false => url.clone(),
    }
    .with_transport(TransportMode::WebSocket)
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
