//! A tunnel through the proxy.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;

/// Carries bytes both ways, until one side ends or the server has sent more than so many.
pub(super) async fn tunnel(client: OnUpgrade, mut server: TcpStream, end: u64) {
    let Ok(client) = client.await else {
        return;
    };
    // Without the option answers take longer.
    let _ = server.set_nodelay(true);
    let (mut client_read, mut client_write) = split(TokioIo::new(client));
    let (server_read, mut server_write) = server.split();
    let mut server_read = server_read.take(end);
    // Either way, one side has ended; dropping both ends the other.
    tokio::select! {
        _ = copy(&mut client_read, &mut server_write) => {}
        _ = copy(&mut server_read, &mut client_write) => {}
    }
    let _ = client_write.flush().await;
}
