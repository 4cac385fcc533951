//! The runtime that outlives every stand-in of the process.

use std::future::pending;
use std::sync::Mutex;
use std::thread;

use tokio::runtime::{self, Handle};

use crate::error::{Context, Error};
use crate::sync::locked;

/// Returns a runtime that runs on a thread of its own, from its first use until the process ends.
pub(crate) fn home() -> Result<Handle, Error> {
    static HOME: Mutex<Option<Handle>> = Mutex::new(None);
    let mut home = locked(&HOME);
    if let Some(home) = &*home {
        return Ok(home.clone());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(|| "cannot start a runtime".into())?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("neon-sim-home".into())
        .spawn(move || runtime.block_on(pending::<()>()))
        .context(|| "cannot start a thread".into())?;
    *home = Some(handle.clone());
    Ok(handle)
}

/// Runs a future there; whoever gives it up does not end it.
pub(crate) async fn at_home<T: Send + 'static>(
    future: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    home()?.spawn(future).await.map_err(|_| Error::Stopped)?
}
