//! Faults on request.

use std::time::Duration;

use super::neon_sim::NeonSim;
use crate::control::faults::Direction;
use crate::control::websocket_fault::WebSocketFault;

impl NeonSim {
    /// Makes the next `times` tries to wake the compute fail with this message.
    ///
    /// As with Neon's proxy, a client is refused with a message that may pass only after some more tries, see
    /// [`Builder::wake_retries`](crate::Builder::wake_retries), and with a final one at once; everyone else is refused
    /// with that for [`Builder::wake_error_cache_ttl`](crate::Builder::wake_error_cache_ttl).
    pub fn fail_wakes(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.fail_wakes(times, message.into());
    }

    /// Refuses the next `times` connections with the right password with this message.
    pub fn refuse_connections(&self, times: u64, message: impl Into<String>) {
        self.parts.faults.refuse(times, message.into());
    }

    /// Never answers the next `times` connections again after the right password.
    pub fn hang_connections(&self, times: u64) {
        self.parts.faults.hang(times);
    }

    /// Loses what the clients of the sessions that are open send from now on: the server never hears of it.
    pub fn lose_requests(&self) {
        self.parts.faults.lose(Direction::ToServer);
    }

    /// Loses what the server sends from now on in the sessions that are open: it does what it is told, and the clients
    /// never hear of it.
    pub fn lose_responses(&self) {
        self.parts.faults.lose(Direction::ToClient);
    }

    /// Makes the next `times` WebSockets meet this fault.
    pub fn disturb_websockets(&self, times: u64, fault: WebSocketFault) {
        self.parts.faults.disturb_websockets(times, fault);
    }

    /// Changes how long a suspended compute takes to wake, see [`Builder::cold_start`](crate::Builder::cold_start), for
    /// wake-ups that begin from now on.
    pub fn set_cold_start(&self, cold_start: Duration) {
        self.parts.compute.set_cold_start(cold_start);
    }

    /// Removes the faults that no connection has met yet, and forgets the error of a wake-up.
    pub fn clear_faults(&self) {
        self.parts.faults.clear();
    }

    /// Delays every byte by this time in each direction from now on, on open connections too.
    ///
    /// A round trip takes twice as long. The resolution is a millisecond.
    pub fn set_latency(&self, latency: Duration) {
        self.parts.latency.set(latency);
    }

    /// Holds back what answers a client's flights from its `first` on, until [`release_answers`](Self::release_answers):
    /// the client is heard and served meanwhile.
    ///
    /// Flights are counted from 1 in each connection, as [`EndpointCounters`](crate::EndpointCounters) does.
    pub fn hold_answers(&self, first: u64) {
        self.parts.latency.hold(Some(first));
    }

    /// Lets all answers go that were held back.
    pub fn release_answers(&self) {
        self.parts.latency.hold(None);
    }
}
