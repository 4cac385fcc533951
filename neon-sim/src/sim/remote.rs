//! The stand-in in the hands of another process.

use std::sync::Arc;

use super::assembly::listen;
use super::neon_sim::NeonSim;
use crate::error::Error;
use crate::protocol::scram;
use crate::remote::listener::{Remote, serve_control};

impl NeonSim {
    /// Takes orders over HTTP on a port of 127.0.0.1 from now on, for a program in another process; 0 is any port that is
    /// free. Returns the address that all paths begin with. It has a secret in it: whoever knows it may do anything here.
    ///
    /// `GET …/state` returns the compute's state and the counters in JSON, and `GET …/events` a line of JSON for each
    /// [`Event`](crate::Event), behind one with the state. `POST` does what the method of that name does:
    ///
    /// | path | parameters |
    /// |---|---|
    /// | `/suspend` | `suspension`: `normal`, `reset` or `silent` |
    /// | `/wake`, `/lose_requests`, `/lose_responses`, `/clear_faults` | |
    /// | `/fail_wakes`, `/refuse_connections` | `times`, `message` |
    /// | `/hang_connections` | `times` |
    /// | `/restart_postgres`, `/set_cold_start` | `milliseconds` |
    ///
    /// ```sh
    /// curl -X POST "$NEON_SIM_CONTROL/suspend?suspension=silent"
    /// ```
    ///
    /// # Errors
    ///
    /// When the port cannot be had, or the servers are shared with other test databases.
    pub async fn serve_control(&self, port: u16) -> Result<String, Error> {
        self.must_own("serve_control")?;
        let key = hex(&scram::random::<16>());
        let remote = Arc::new(Remote {
            key: key.clone(),
            compute: Arc::clone(&self.parts.compute),
            faults: Arc::clone(&self.parts.faults),
            cluster: Arc::clone(&self.parts.ground.cluster),
            direct: Arc::clone(&self.parts.direct),
            pooled: Arc::clone(&self.parts.pooled),
            events: self.parts.events.clone(),
        });
        let serving = async move {
            let (listener, port) = listen(port).await?;
            tokio::spawn(serve_control(remote, listener));
            Ok::<_, Error>(port)
        };
        let port = self.inside(serving).await??;
        Ok(format!("http://127.0.0.1:{port}/{key}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
