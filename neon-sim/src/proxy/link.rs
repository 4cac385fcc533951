//! The client's socket, with latency in both directions if the user sets one, and answers that are held back.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::turns::Turns;

/// How many chunks may be under way to the proxy; TCP holds back the rest.
const WINDOW: usize = 64;
const CHUNK: usize = 16 * 1024;

/// How long bytes take in one direction, and which answers are held back; shared by all links, and changed at any time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency(Arc<Delays>);

#[derive(Debug, Default)]
struct Delays {
    nanos: AtomicU64,
    /// The first of a client's flights whose answers are held back, if they are.
    first_held: watch::Sender<Option<u64>>,
}

impl Latency {
    pub(crate) fn set(&self, latency: Duration) {
        let nanos = latency.as_nanos().try_into().unwrap_or(u64::MAX);
        self.0.nanos.store(nanos, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed))
    }

    /// Holds back the answers to a client's flights from this one on, or none.
    pub(crate) fn hold(&self, first: Option<u64>) {
        self.0.first_held.send_replace(first);
    }

    /// Returns whether the answer to this flight is held back.
    fn holds(&self, flight: u64) -> bool {
        is_held(*self.0.first_held.borrow(), flight)
    }

    async fn until_released(&self, flight: u64) {
        let mut first_held = self.0.first_held.subscribe();
        // The sender lives as long as this.
        let _ = first_held.wait_for(|first| !is_held(*first, flight)).await;
    }
}

fn is_held(first: Option<u64>, flight: u64) -> bool {
    first.is_some_and(|first| flight >= first)
}

/// A client's connection.
pub(crate) struct Link {
    latency: Latency,
    turns: Arc<Turns>,
    read: OwnedReadHalf,
    /// Chunks that have arrived but are delayed; an empty chunk is the end.
    arriving: VecDeque<(Instant, Vec<u8>)>,
    timer: Pin<Box<Sleep>>,
    writer: Writer,
}

enum Writer {
    Immediate(Quiet),
    /// Once delayed, bytes always go through the task, so that none overtakes another.
    Delayed {
        queue: UnboundedSender<Chunk>,
        task: JoinHandle<()>,
    },
    Closed,
}

/// Bytes for the client.
struct Chunk {
    due: Instant,
    /// The client's flight that they answer.
    flight: u64,
    bytes: Vec<u8>,
}

impl Link {
    pub(crate) fn new(stream: TcpStream, latency: Latency) -> Self {
        let (read, write) = stream.into_split();
        Self {
            latency,
            turns: Arc::default(),
            read,
            arriving: VecDeque::new(),
            timer: Box::pin(sleep_until(Instant::now())),
            writer: Writer::Immediate(Quiet(Some(write))),
        }
    }

    /// Returns the count of the connection's round trips.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Closes the connection with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        // Without the option the connection just ends in an orderly way.
        let _ = self.read.as_ref().set_zero_linger();
        if let Writer::Delayed { task, .. } = self.writer {
            task.abort();
        }
    }

    fn take_in(&mut self, cx: &mut Context<'_>, latency: Duration) -> io::Result<()> {
        while self.has_room() {
            let mut bytes = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.read).poll_read(cx, &mut chunk) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            self.arrived(chunk.filled(), latency);
        }
        Ok(())
    }

    /// Takes in what the client has sent without waiting for what it is about to be sent.
    fn take_in_the_rest(&mut self) -> io::Result<()> {
        while self.turns.is_clients() && self.has_room() {
            let mut bytes = [0; CHUNK];
            match self.read.try_read(&mut bytes) {
                Ok(length) => self.arrived(&bytes[..length], Duration::ZERO),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let ended = |(_, chunk): &(_, Vec<u8>)| chunk.is_empty();
        self.arriving.len() < WINDOW && !self.arriving.back().is_some_and(ended)
    }

    fn arrived(&mut self, chunk: &[u8], latency: Duration) {
        if !chunk.is_empty() {
            self.turns.client_speaks();
        }
        self.arriving
            .push_back((Instant::now() + latency, chunk.to_vec()));
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let latency = this.latency.get();
        if latency.is_zero() && this.arriving.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.read).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                this.turns.client_speaks();
            }
            return Poll::Ready(Ok(()));
        }
        this.take_in(cx, latency)?;
        loop {
            let Some((due, chunk)) = this.arriving.front_mut() else {
                return Poll::Pending;
            };
            if *due <= Instant::now() {
                let taken = chunk.len().min(buf.remaining());
                buf.put_slice(&chunk[..taken]);
                chunk.drain(..taken);
                if chunk.is_empty() && taken > 0 {
                    this.arriving.pop_front();
                }
                return Poll::Ready(Ok(()));
            }
            let due = *due;
            this.timer.as_mut().reset(due);
            ready!(this.timer.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (latency, flight) = (this.latency.get(), this.turns.total());
        let is_immediate = latency.is_zero() && !this.latency.holds(flight);
        if matches!(this.writer, Writer::Immediate(_)) && is_immediate {
            this.take_in_the_rest()?;
        }
        if let Writer::Immediate(write) = &mut this.writer {
            let Some(half) = &mut write.0 else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            if is_immediate {
                this.turns.server_speaks();
                return Pin::new(half).poll_write(cx, buf);
            }
            let (queue, queued) = unbounded_channel();
            let (turns, latency) = (Arc::clone(&this.turns), this.latency.clone());
            let task = tokio::spawn(deliver(Quiet(write.0.take()), turns, latency, queued));
            this.writer = Writer::Delayed { queue, task };
        }
        match &this.writer {
            Writer::Delayed { queue, .. } => Poll::Ready(
                queue
                    .send(Chunk {
                        due: Instant::now() + latency,
                        flight,
                        bytes: buf.to_vec(),
                    })
                    .map(|()| buf.len())
                    .map_err(|_| io::ErrorKind::BrokenPipe.into()),
            ),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets do not buffer, and delayed bytes count as sent.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Writer::Immediate(Quiet(Some(half))) = &mut this.writer {
            ready!(Pin::new(half).poll_shutdown(cx))?;
        }
        if matches!(this.writer, Writer::Delayed { .. }) {
            // The task ends the connection after the last chunk.
            this.writer = Writer::Closed;
        }
        Poll::Ready(Ok(()))
    }
}

async fn deliver(
    mut write: Quiet,
    turns: Arc<Turns>,
    latency: Latency,
    mut queued: UnboundedReceiver<Chunk>,
) {
    let Some(half) = &mut write.0 else { return };
    while let Some(chunk) = queued.recv().await {
        sleep_until(chunk.due).await;
        latency.until_released(chunk.flight).await;
        turns.server_speaks();
        if half.write_all(&chunk.bytes).await.is_err() {
            return;
        }
    }
    // The peer may have left already.
    let _ = half.shutdown().await;
}

/// A write half that sends no FIN when it is dropped, so that a reset does not look like an orderly end.
struct Quiet(Option<OwnedWriteHalf>);

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}
