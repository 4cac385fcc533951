use std::io;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal;
use tokio::sync::watch;

/// Serves until SIGINT or SIGTERM, then takes no more connections and finishes the requests that
/// have begun.
///
/// A client that never finishes its own must not keep the process, hence `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    grace: Duration,
) -> io::Result<()> {
    let (stop, mut stopping) = watch::channel(false);
    tokio::spawn(async move {
        signal().await;
        tracing::info!("shutting down");
        stop.send_replace(true);
    });
    let mut draining = stopping.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = draining.wait_for(|stop| *stop).await;
    });
    let deadline = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        result = server => result,
        () = deadline => {
            tracing::warn!("gave up on requests that did not end");
            Ok(())
        }
    }
}

async fn signal() {
    let interrupt = async {
        signal::ctrl_c().await.expect("this platform has Ctrl-C");
    };
    #[cfg(unix)]
    let terminate = async {
        signal::unix::signal(signal::unix::SignalKind::terminate())
            .expect("Unix has SIGTERM")
            .recv()
            .await;
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
