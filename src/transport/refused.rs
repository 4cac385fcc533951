//! [`RefusedPeers`]: the addresses that refused a login last time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::address::Peer;

/// The peers that refused their last login, the earliest refusal first.
///
/// A race ends after two refusals, since the server itself may refuse. Two addresses that always refuse, such as
/// those of replicas that do not start, would otherwise keep a healthy one behind them from ever being tried.
#[derive(Debug, Default)]
pub(super) struct RefusedPeers(Mutex<Vec<Peer>>);

impl RefusedPeers {
    /// Moves the refused peers behind the others, the latest refusal last.
    pub(super) fn move_back(&self, peers: &mut [Peer]) {
        let refused = self.lock();
        peers.sort_by_key(|peer| {
            let at = refused.iter().position(|refused| refused == peer);
            at.map_or(0, |at| at + 1)
        });
    }

    /// Records whether `peer` has refused a login.
    pub(super) fn note(&self, peer: &Peer, has_refused: bool) {
        let mut refused = self.lock();
        refused.retain(|known| known != peer);
        if has_refused {
            if refused.len() == MOST {
                refused.remove(0);
            }
            refused.push(peer.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than the addresses of a name, which change over time.
const MOST: usize = 64;
