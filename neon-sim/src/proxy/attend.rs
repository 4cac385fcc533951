//! From a client's first packet under encryption to the end of its session.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::door::Door;
use super::link::Link;
use super::login::log_in;
use super::shared::Shared;
use super::wire::Wire;
use crate::protocol::startup::{CancelKey, FirstPacket, Startup};
use crate::protocol::tag;

/// What a client has connected for.
pub(crate) enum Purpose {
    Session(Startup),
    Cancel(CancelKey),
}

/// Reads what a client has connected for; encryption is not granted once more.
pub(crate) async fn purpose(client: &mut impl Wire) -> io::Result<Purpose> {
    loop {
        match FirstPacket::read(client).await? {
            FirstPacket::Startup(startup) => return Ok(Purpose::Session(startup)),
            FirstPacket::CancelRequest(key) => return Ok(Purpose::Cancel(key)),
            FirstPacket::GssRequest | FirstPacket::SslRequest => {
                client.write_all(&[tag::NOT_ENCRYPTED]).await?;
                client.flush().await?;
            }
        }
    }
}

/// Does what a client has connected for.
pub(crate) async fn attend(
    shared: &Shared,
    mut client: impl Wire,
    door: Door,
    purpose: Purpose,
) -> io::Result<()> {
    let startup = match purpose {
        Purpose::Session(startup) => startup,
        Purpose::Cancel(key) => {
            cancel(shared, key, client.into_link()).await;
            return Ok(());
        }
    };
    if let Some(negotiation) = startup.negotiation() {
        client.write_all(&negotiation).await?;
        client.flush().await?;
    }
    if let Some(established) = log_in(shared, client, door, &startup).await {
        established.run().await;
    }
    Ok(())
}

/// Closes the request's socket at once, and cancels afterwards.
pub(super) async fn cancel(shared: &Shared, key: CancelKey, mut request: Link) {
    let target = shared.cancellable.find(key);
    if let Some((_, tally)) = &target {
        tally.cancels.add(1);
    }
    // The client may have left.
    let _ = request.shutdown().await;
    drop(request);
    if let Some((canceller, _)) = target {
        sleep(shared.timing.cancel_delay).await;
        canceller.cancel().await;
    }
}
