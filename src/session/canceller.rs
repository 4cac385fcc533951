//! [`Canceller`]: sends cancel requests for the statements of one session.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::SetOnce;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use crate::transport::{DialError, Dialler, Negotiated, Peer, Transport};

/// Holds the address, the dialler and the key for cancel requests of one session.
#[derive(Clone)]
pub(crate) struct Canceller(Arc<Parts>);

struct Parts {
    /// What the login has told; `None` if it has failed.
    key: SetOnce<Option<Key>>,
    dialler: Arc<Dialler>,
    runtime: Handle,
}

/// The key of one session.
#[derive(Clone)]
struct Key {
    token: tokio_postgres::CancelToken,
    /// The address of the session: no other server need learn its key.
    peer: Peer,
}

impl Canceller {
    /// Prepares cancel requests for the session at `peer`. Background tasks run on the current runtime.
    pub(crate) fn new(
        token: tokio_postgres::CancelToken,
        dialler: Arc<Dialler>,
        peer: Peer,
    ) -> Self {
        let canceller = Self::pending(dialler);
        canceller.set_key(Some(Key { token, peer }));
        canceller
    }

    /// Prepares cancel requests for a session whose login is under way: they wait for its end.
    pub(super) fn pending(dialler: Arc<Dialler>) -> Self {
        Self(Arc::new(Parts {
            key: SetOnce::new(),
            dialler,
            runtime: Handle::current(),
        }))
    }

    /// Takes the key of the login that has succeeded.
    pub(super) fn adopt(&self, login: &Self) {
        self.set_key(login.0.key.get().cloned().flatten());
    }

    /// Notes that the login has failed, so that there is nothing to cancel.
    pub(super) fn give_up(&self) {
        self.set_key(None);
    }

    fn set_key(&self, key: Option<Key>) {
        // A login has one end.
        let _ = self.0.key.set(key);
    }

    pub(crate) fn dialler(&self) -> &Dialler {
        &self.0.dialler
    }

    /// Sends a cancel request if `begin` still wants it once its stream is open, and waits until the server has read it.
    /// Holds what `begin` returns until then.
    pub(crate) async fn cancel_if<T>(
        &self,
        begin: impl FnOnce() -> Option<T>,
    ) -> Result<(), CancelFailure> {
        let Some(Key { token, peer }) = self.0.key.wait().await else {
            return Ok(());
        };
        let stream = Lingering(Box::pin(self.0.dialler.redial(peer)).await?);
        let Some(_in_progress) = begin() else {
            return Ok(());
        };
        let cancelled = token.cancel_query_raw(stream, Negotiated).await;
        Ok(cancelled?)
    }

    /// Sends a cancel request that nobody waits for, as [`cancel_if`](Self::cancel_if) does.
    pub(super) async fn cancel_in_time<T>(&self, begin: impl FnOnce() -> Option<T>) {
        let timer = self.0.dialler.timer();
        let cancelled = timer.timeout(REQUEST_TIMEOUT, self.cancel_if(begin)).await;
        if let Some(Err(error)) = cancelled {
            tracing::debug!(error = ?error, "a statement could not be cancelled");
        }
    }

    /// Repeats the cancel request until `outstanding`, which yields an item for each response, has ended, but at most
    /// five times for each response: a request that overtakes its statement stops nothing, and each request stops one
    /// statement.
    ///
    /// `outstanding` keeps the session's own stream open: a pooler forgets the key of a client that has gone.
    pub(super) async fn cancel_until_answered(
        &self,
        mut outstanding: impl Stream<Item = ()> + Unpin,
    ) {
        let mut pauses = PAUSES.iter();
        while let Some(pause) = pauses.next() {
            self.cancel_in_time(|| Some(())).await;
            let pause = pin!(self.sleep(Duration::from_millis(*pause)));
            match select(outstanding.next(), pause).await {
                Either::Left((None, _)) => return,
                Either::Left((Some(()), _)) => pauses = PAUSES.iter(),
                Either::Right(_) => {}
            }
        }
        tracing::warn!(
            requests = PAUSES.len(),
            "a statement is not cancelled: the server did not answer, and its connection is cut off"
        );
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// Runs a task in the background.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(task);
    }

    /// Sleeps, on any runtime, and on an executor that is none of tokio's.
    pub(super) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + use<> {
        let own = Handle::try_current()
            .is_err()
            .then(|| self.0.runtime.clone());
        let _entered = own.as_ref().map(Handle::enter);
        self.0.dialler.timer().sleep(duration)
    }
}

/// Why a cancel request could not be made.
#[derive(thiserror::Error)]
pub(crate) enum CancelFailure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
}

crate::util::debug_is_chain!(CancelFailure);

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// How long each cancel request has to take effect, in milliseconds.
const PAUSES: [u64; 5] = [50, 150, 300, 500, 1000];

/// How long the server may take to read a cancel request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream that waits for the other side to shut down first: only then has the server read the request for certain, and
/// PgBouncer 1.18 crashes if the socket of a cancel request closes too early.
struct Lingering(Transport);

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut scratch = [0; 64];
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // Nobody has read the request.
                Err(error) if is_unopened(&error) => return Poll::Ready(Err(error)),
                // Another error is an end too.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl TlsStream for Lingering {
    fn channel_binding(&self) -> ChannelBinding {
        self.0.channel_binding()
    }
}

/// Returns whether the WebSocket that was to carry a request has not been opened.
fn is_unopened(error: &io::Error) -> bool {
    #[cfg(feature = "websocket")]
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
        use crate::transport::WebSocketError::{Answer, Cut, Refused};
        return matches!(error, Refused { .. } | Answer(_) | Cut);
    }
    let _ = error;
    false
}
