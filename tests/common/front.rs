//! A proxy whose cancel requests come as late as a test wants.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::common::HANG;

/// A proxy; as Neon's, it closes the socket of a cancel request at once, and passes the request on when the test permits it.
pub(crate) struct Front {
    pub(crate) url: String,
    /// The number of requests that may be passed on.
    pub(crate) let_through: Arc<Semaphore>,
    /// Whether the next one that it lets through comes to nothing, as one that overtakes its statement.
    loses_next: Arc<AtomicBool>,
    pub(crate) asked: mpsc::UnboundedReceiver<()>,
    passed_on: mpsc::UnboundedReceiver<()>,
}

/// When the socket of a cancel request is closed.
#[derive(Clone, Copy)]
pub(crate) enum Closes {
    /// Before the request is passed on, which the test permits.
    First,
    /// Behind the request, which is passed on at once, when the test permits it.
    Last,
    /// Never, and nothing is passed on.
    Never,
}

impl Front {
    pub(crate) async fn new(of: &str) -> Self {
        Self::start(of, Closes::First).await
    }

    pub(crate) async fn start(of: &str, closes: Closes) -> Self {
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
        let loses_next = Arc::new(AtomicBool::new(false));
        let (permits, loses) = (Arc::clone(&let_through), Arc::clone(&loses_next));
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (ask, pass_on) = (ask.clone(), pass_on.clone());
                let (permits, loses) = (Arc::clone(&permits), Arc::clone(&loses));
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
                    let client = match closes {
                        Closes::First => {
                            drop(client);
                            None
                        }
                        Closes::Last => Some(client),
                        Closes::Never => {
                            // The socket stays open until the client closes it.
                            let _ = client.read(&mut [0]).await;
                            return;
                        }
                    };
                    if client.is_none() {
                        permits.acquire().await.unwrap().forget();
                    }
                    if !loses.swap(false, Ordering::Relaxed) {
                        server.write_all(&first).await.unwrap();
                        // A server that has closed the socket has handled the request.
                        let _ = server.read(&mut [0]).await;
                    }
                    let _ = pass_on.send(());
                    if client.is_some() {
                        permits.acquire().await.unwrap().forget();
                    }
                });
            }
        });
        Self {
            url,
            let_through,
            loses_next,
            asked,
            passed_on,
        }
    }

    pub(crate) async fn asked(&mut self) {
        let asked = timeout(HANG, self.asked.recv()).await;
        asked.expect("no hang").unwrap();
    }

    pub(crate) async fn lose(&mut self) {
        self.loses_next.store(true, Ordering::Relaxed);
        self.pass_on().await;
    }

    pub(crate) async fn pass_on(&mut self) {
        self.let_through.add_permits(1);
        let passed_on = timeout(HANG, self.passed_on.recv()).await;
        passed_on.expect("no hang").unwrap();
    }
}
