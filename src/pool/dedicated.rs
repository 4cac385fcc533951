//! [`Pool::dedicated`]: a connection outside of the pool.

use tokio::runtime::Handle;

use super::Pool;
use super::error::PoolError;
use super::setup::{Setup, Target};
use crate::connect::{ConnectError, ConnectSlot, Connector, Establish};
use crate::query::DatabaseErrorExt;
use crate::url::Endpoint;

impl<C: Establish> Pool<C> {
    /// Makes a connection of its own on the direct endpoint, for `LISTEN`, advisory locks and other state of a session.
    ///
    /// It leads where [`PoolBuilder::direct_url`](crate::PoolBuilder::direct_url) says, else to the pool's URL without
    /// its `-pooler`, under the policy's `connect_timeout` with the retries of the pool's own connects, and with the
    /// same verified TLS. It gets the pool's instrumentation; the hooks do not run.
    ///
    /// The connection is the caller's alone. It counts neither towards `max_size` nor in [`Status`](crate::Status), has
    /// no deadline, and stays open until it is dropped: [`close`](Self::close) neither ends it nor waits for it. While it
    /// idles it keeps no compute awake, and is lost when the compute is suspended: connect again then, and read what
    /// the notifications in between would have told.
    ///
    /// ```no_run
    /// # use diesel_async::SimpleAsyncConnection;
    /// # use diesel_neon::Pool;
    /// # use diesel_neon::futures_util::StreamExt;
    /// # async fn example(pool: &Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut listener = pool.dedicated().await?;
    /// listener.batch_execute("LISTEN jobs").await?;
    /// let mut notifications = std::pin::pin!(listener.notifications_stream()?);
    /// while let Some(notification) = notifications.next().await {
    ///     println!("{}", notification?.payload);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`PoolError::NoDirectEndpoint`] if a pooler is in front of the server and the URL does not tell the way past it,
    /// [`PoolError::Connect`] if connecting fails, [`PoolError::Closed`] if the pool is closed.
    pub async fn dedicated(&self) -> Result<C, PoolError> {
        if self.is_closed() {
            return Err(PoolError::Closed);
        }
        if Handle::try_current().is_err() {
            return Err(PoolError::NoRuntime);
        }
        let url = &self.connections.direct_url;
        let no_direct_endpoint = || PoolError::NoDirectEndpoint {
            host: url.hosts()[0].name.to_string(),
        };
        if url.endpoint() == Endpoint::Pooled {
            return Err(no_direct_endpoint());
        }
        let connector = Connector::new(url, self.policy()).map_err(PoolError::Tls)?;
        let setup = Setup {
            instrumentation: self.connections.setup.instrumentation.clone(),
            after_connect: None,
        };
        let target = Target::new(url);
        let making = setup.begin(&target);
        let connected = Box::pin(connector.connect(
            ConnectSlot::Common,
            None,
            |session| making.set_up(session),
            |_| {},
        ));
        let (mut connection, session) = connected
            .await
            .inspect_err(|error| making.fail(error))
            .map_err(PoolError::Connect)?;
        let told = session.status.backend_pid();
        match target.is_direct(&mut connection, told).await {
            Ok(true) => Ok(connection),
            Ok(false) => Err(no_direct_endpoint()),
            Err(error) => {
                let error = ConnectError::of_server_error(error.to_string(), error.sqlstate());
                Err(PoolError::Connect(error))
            }
        }
    }
}
