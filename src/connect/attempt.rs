//! One attempt to connect: dials the hosts of a URL, logs in, and checks `target_session_attrs`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Connector;
use super::established::EstablishedSession;
use super::failure::Failure;
use super::setup::TargetMismatch;
use super::weightiest::WeightiestFailure;
use crate::session::{
    Canceller, Channel, Driver, EarlyPassword, LoginTap, SessionControl, SessionStatus,
    StreamHandoff,
};
use crate::transport::{Early, EarlyClaim, Negotiated, Peer, Progress, Transport};

impl Connector {
    /// Makes one attempt. Notes in `failures` what the addresses say that do not let it in, and sends what is `early`
    /// behind the login.
    pub(super) async fn attempt(
        &self,
        failures: &WeightiestFailure,
        early: Option<&Arc<Early>>,
    ) -> Result<EstablishedSession, Failure> {
        let log_in = |transport, peer, progress| {
            let status = Arc::new(SessionStatus::new());
            let claim = early.map(|early| EarlyClaim::new(Arc::clone(early)));
            self.log_in(transport, peer, progress, status, claim)
        };
        let on_failure = |failure: &Failure| failures.note(failure);
        self.dialler.dial(log_in, on_failure).await
    }

    /// Logs in on one stream. `status` belongs to this stream alone.
    pub(super) async fn log_in(
        &self,
        transport: Transport,
        peer: Peer,
        progress: Arc<Progress>,
        status: Arc<SessionStatus>,
        early: Option<EarlyClaim>,
    ) -> Result<EstablishedSession, Failure> {
        let target = self.config.get_target_session_attrs();
        let responses = if target == TargetSessionAttrs::Any {
            1
        } else {
            2
        };
        let handoff = Arc::new(StreamHandoff::after(responses));
        let channel = Channel {
            transport,
            _open: self.open.token(),
        };
        let tap = LoginTap::new(
            channel,
            Arc::clone(&status),
            progress,
            Arc::clone(&handoff),
            EarlyPassword::new(self.config.get_password()),
            early,
        );
        let login = self.config.connect_raw(tap, Negotiated).await;
        let (client, mut driver) = login.map_err(Failure::postgres)?;
        if target != TargetSessionAttrs::Any {
            check(&client, &mut driver, target).await?;
        }
        let canceller = Canceller::new(client.cancel_token(), Arc::clone(&self.dialler), peer);
        Ok(EstablishedSession {
            client,
            driver,
            handoff,
            session: SessionControl::new(
                status,
                canceller,
                self.response_timeout,
                self.pooler.pipelining(),
            ),
            pooler: Arc::clone(&self.pooler),
        })
    }
}

/// Asks the server whether it takes writes.
///
/// The server's own report (`in_hot_standby`) is not enough: poolers keep it from one session to the next.
async fn check(
    client: &Client,
    driver: &mut Driver,
    target: TargetSessionAttrs,
) -> Result<(), Failure> {
    let mut query = pin!(client.simple_query("SHOW transaction_read_only"));
    let response = poll_fn(|cx| {
        // The driver moves the query and its response; its other messages do not matter here.
        let ended = loop {
            match driver.poll_message(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => break Some(Err(error)),
                Poll::Ready(None) | Poll::Pending => break None,
            }
        };
        match (query.as_mut().poll(cx), ended) {
            (Poll::Pending, Some(error)) => Poll::Ready(error),
            (response, _) => response,
        }
    });
    let response = response.await.map_err(Failure::postgres)?;
    let setting = response.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match (setting, target) {
        (Some("on"), TargetSessionAttrs::ReadWrite) => Err(TargetMismatch::ReadOnly.into()),
        (Some("off"), TargetSessionAttrs::ReadOnly) => Err(TargetMismatch::ReadWrite.into()),
        _ => Ok(()),
    }
}
