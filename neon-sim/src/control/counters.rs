//! The counters of what clients do.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the stand-in started.
///
/// Subtract earlier counters to get the counts in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Counts of the direct endpoint.
    pub direct: EndpointCounters,
    /// Counts of the pooled endpoint.
    pub pooled: EndpointCounters,
    /// How often the compute has woken.
    pub wakes: u64,
    /// How often the compute has been suspended.
    pub suspensions: u64,
    /// How long the compute has been suspended, the current suspension included.
    pub time_suspended: Duration,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            direct: self.direct - earlier.direct,
            pooled: self.pooled - earlier.pooled,
            wakes: self.wakes - earlier.wakes,
            suspensions: self.suspensions - earlier.suspensions,
            time_suspended: self.time_suspended.saturating_sub(earlier.time_suspended),
        }
    }
}

macro_rules! endpoint_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one endpoint.
        ///
        /// Messages and bytes count from a session's first ReadyForQuery on; bytes are those of the PostgreSQL
        /// protocol, without TLS and WebSocket.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct EndpointCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl EndpointCounters {
            /// Returns each count with its name.
            pub(crate) fn by_name(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl Sub for EndpointCounters {
            type Output = Self;

            fn sub(self, earlier: Self) -> Self {
                Self {
                    $($name: self.$name - earlier.$name,)*
                }
            }
        }

        /// The live counters of one endpoint.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Count,)*
        }

        impl Tally {
            pub(crate) fn read(&self) -> EndpointCounters {
                EndpointCounters {
                    $($name: self.$name.0.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

endpoint_counters! {
    /// Connections that asked for this endpoint, established or not.
    attempts,
    /// Connections that became sessions.
    connections,
    /// Round trips of the attempts, with TLS and authentication, without TCP's own.
    ///
    /// Together with `flights` these are the round trips to a first row: what a client sends without waiting for an answer
    /// takes none.
    handshake_flights,
    /// Round trips of the sessions: a client's bytes count as one if the server has sent something since its last.
    ///
    /// Bytes count as they pass the socket, under TLS, before or after the delay that
    /// [`NeonSim::set_latency`](crate::NeonSim::set_latency) adds. Without one, a client that writes a flight in several
    /// pieces may find it counted as more.
    flights,
    /// Bytes from the client.
    bytes_in,
    /// Bytes to the client.
    bytes_out,
    /// Connections that SQL over HTTPS came on.
    ///
    /// All their round trips are `flights`. With HTTP/2 a request is one if an answer has been given since the last that was.
    https_connections,
    /// Requests of SQL over HTTPS.
    requests,
    /// Query and Execute messages, and statements in requests.
    statements,
    /// Parse messages that name their statement.
    named_parses,
    /// Cancel requests for sessions of this endpoint.
    cancels,
    /// Terminate messages.
    terminates,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
