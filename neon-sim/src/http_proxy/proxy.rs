//! The proxy as its users hold it.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::connection::serve;
use super::state::{Fault, ProxyRequest, State};
use crate::error::{Context, Error};
use crate::proxy::accept::accept;
use crate::sync::locked;

/// A proxy of HTTP on 127.0.0.1, for tests of clients that reach nothing without one.
///
/// It opens tunnels (CONNECT) to the targets that it has been told of, whatever a name server would say, and answers 502 for
/// all others. It runs on a thread of its own, and stops when it is dropped.
///
/// ```no_run
/// # async fn demo() -> Result<(), neon_sim::Error> {
/// use neon_sim::{HttpProxy, NeonSim};
///
/// let neon = NeonSim::builder().start().await?;
/// let proxy = HttpProxy::start().await?;
/// proxy.route(format!("{}:443", neon.host()), neon.https_port());
/// println!("HTTPS_PROXY={}", proxy.url());
/// # Ok(())
/// # }
/// ```
pub struct HttpProxy {
    state: Arc<State>,
    port: u16,
    has_tls: bool,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpProxy {
    /// Starts a proxy that clients speak to in plain text.
    ///
    /// # Errors
    ///
    /// When no port or thread can be had.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(None).await
    }

    /// Starts a proxy that clients speak to under TLS, see [`NeonSim::start_https_proxy`](crate::NeonSim::start_https_proxy).
    pub(crate) async fn start_with(tls: Option<TlsAcceptor>) -> Result<Self, Error> {
        let state = Arc::new(State::default());
        let has_tls = tls.is_some();
        let (started, has_started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let run = {
            let state = Arc::clone(&state);
            move || run(state, tls, started, stopped)
        };
        let thread = thread::Builder::new().name("http-proxy".into());
        let thread = thread.spawn(run).context(|| "cannot start a thread".into());
        let thread = thread?;
        let port = has_started.await.map_err(|_| Error::Stopped)??;
        Ok(Self {
            state,
            port,
            has_tls,
            stop: Mutex::new(Some(stop)),
            thread: Some(thread),
        })
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL for `HTTPS_PROXY`, without credentials.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.port)
    }

    /// Leads tunnels to a target, as `host:port`, to a port of this machine.
    pub fn route(&self, target: impl Into<String>, port: u16) {
        self.state.route(target.into(), port);
    }

    /// Demands these credentials from now on; a request without them is answered with 407.
    pub fn demand_credentials(&self, user: &str, password: &str) {
        self.state.demand(user, password);
    }

    /// Answers the next `times` requests with this status, such as 403 or 502, whatever they ask for.
    pub fn refuse(&self, times: u64, status: u16) {
        self.state.faults.add(times, Fault::Refuse(status));
    }

    /// Never answers the next `times` requests.
    pub fn hang(&self, times: u64) {
        self.state.faults.add(times, Fault::Hang);
    }

    /// Closes the connections of the next `times` requests without an answer.
    pub fn drop_requests(&self, times: u64) {
        self.state.faults.add(times, Fault::Drop);
    }

    /// Ends the next `times` tunnels when the server has sent more than so many bytes.
    pub fn cut_off_after(&self, times: u64, bytes: u64) {
        self.state.faults.add(times, Fault::CutOff(bytes));
    }

    /// Ends the tunnels that are open.
    pub fn break_tunnels(&self) {
        self.state.breaking.notify_waiters();
    }

    /// Removes the faults that no request has met yet.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Returns the requests since the start, refused ones included.
    pub fn requests(&self) -> Vec<ProxyRequest> {
        self.state.requests()
    }

    /// Ends every tunnel, and accepts no connection any more.
    pub fn stop(&self) {
        // The sender is never used, only dropped.
        drop(locked(&self.stop).take());
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpProxy")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has printed itself.
            let _ = thread.join();
        }
    }
}

/// Runs a proxy on this thread, until the other end of `stopped` is dropped.
fn run(
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
    started: oneshot::Sender<Result<u16, Error>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime.context(|| "cannot start a runtime".into()) {
        Ok(runtime) => runtime,
        Err(error) => {
            // An error says that the caller has given up.
            let _ = started.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let listener = match listen().await {
            Ok((listener, port)) => {
                // An error says that the caller has given up; `stopped` says so too.
                let _ = started.send(Ok(port));
                listener
            }
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        let serving = accept(listener, |stream| {
            serve(Arc::clone(&state), tls.clone(), stream)
        });
        tokio::select! {
            () = serving => {}
            _ = stopped => {}
        }
    });
}

async fn listen() -> Result<(TcpListener, u16), Error> {
    let listening = || "cannot listen".into();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context(listening)?;
    let port = listener.local_addr().context(listening)?.port();
    Ok((listener, port))
}
