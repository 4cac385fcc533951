//! How the proxy wakes the compute for a client.

use tokio::time::sleep;

use super::backoff::pauses;
use super::shared::Shared;
use crate::control::compute::Busy;
use crate::control::faults::is_final;

/// Wakes the compute, and tries again after an error that may pass; others may wake it meanwhile.
pub(crate) async fn wake(shared: &Shared) -> Result<Busy, String> {
    shared.admit_wake()?;
    let try_once = || shared.compute.wake(Some(&shared.faults));
    for pause in pauses().take(shared.timing.wake_retries as usize) {
        match try_once().await {
            Err(message) if !is_final(&message) => sleep(pause).await,
            outcome => return outcome,
        }
    }
    try_once().await
}
