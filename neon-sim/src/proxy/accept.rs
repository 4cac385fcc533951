//! Accepts connections.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Serves every client that connects, each in a task of its own.
pub(crate) async fn accept<F>(listener: TcpListener, attend: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    loop {
        // Too many open files, for one, is over when others are closed.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without the option answers take longer.
        let _ = stream.set_nodelay(true);
        let attending = attend(stream);
        tokio::spawn(async move {
            // An error here is a client that has left, or is closed for what it sent.
            let _ = attending.await;
        });
    }
}
