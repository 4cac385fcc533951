//! A proxy whose cancel requests come as late as a test wants.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::common::HANG;

/// A proxy that closes the socket of a cancel request at once, as Neon's does, and passes the request on when
/// the test permits it.
pub(crate) struct Front {
    pub(crate) url: String,
    /// The number of requests that may be passed on.
    pub(crate) let_through: Arc<Semaphore>,
    pub(crate) asked: mpsc::UnboundedReceiver<()>,
    passed_on: mpsc::UnboundedReceiver<()>,
}

impl Front {
    pub(crate) async fn new(of: &str) -> Self {
        Self::start(of, true).await
    }

    /// Starts a proxy as [`new`](Self::new) does; `closes` says whether it ever closes the socket of a cancel request.
    pub(crate) async fn start(of: &str, closes: bool) -> Self {
        let server = of
            .rsplit_once('@')
            .unwrap()
            .1
            .split_once('/')
            .unwrap()
            .0
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = of.replace(&server, &format!("127.0.0.1:{port}"));
        let let_through = Arc::new(Semaphore::new(0));
        let (ask, asked) = mpsc::unbounded_channel();
        let (pass_on, passed_on) = mpsc::unbounded_channel();
        let permits = Arc::clone(&let_through);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (ask, pass_on, permits) = (ask.clone(), pass_on.clone(), Arc::clone(&permits));
                let server = server.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let Ok(length) = client.read_u32().await else {
                        return;
                    };
                    // PgBouncer wants the request in one packet.
                    let mut first = length.to_be_bytes().to_vec();
                    first.resize(length as usize, 0);
                    client.read_exact(&mut first[4..]).await.unwrap();
                    if first[4..8] != 80_877_102_u32.to_be_bytes() {
                        server.write_all(&first).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                    let _ = ask.send(());
                    if !closes {
                        // The socket stays open until the client closes it.
                        let _ = client.read(&mut [0]).await;
                        return;
                    }
                    drop(client);
                    permits.acquire().await.unwrap().forget();
                    server.write_all(&first).await.unwrap();
                    // A server that has closed the socket has handled the request.
                    let _ = server.read(&mut [0]).await;
                    let _ = pass_on.send(());
                });
            }
        });
        Self {
            url,
            let_through,
            asked,
            passed_on,
        }
    }

    pub(crate) async fn pass_on(&mut self) {
        self.let_through.add_permits(1);
        let passed_on = timeout(HANG, self.passed_on.recv()).await;
        passed_on.expect("no hang").unwrap();
    }
}
