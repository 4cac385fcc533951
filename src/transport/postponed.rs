//! [`RefusedPeers`]: the addresses that refused a login last time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::address::Peer;

/// The peers that refused their last login, and when, the earliest refusal first.
///
/// A race ends after two refusals, since the server itself may refuse. Two addresses that always refuse, such as
/// those of replicas that do not start, would otherwise keep a healthy one behind them from ever being tried.
#[derive(Debug, Default)]
pub(super) struct RefusedPeers(Mutex<Vec<(Peer, Instant)>>);

impl RefusedPeers {
    /// Moves the refused peers behind the others, the latest refusal last.
    pub(super) fn move_back(&self, peers: &mut [Peer]) {
        self.move_back_at(peers, Instant::now());
    }

    fn move_back_at(&self, peers: &mut [Peer], now: Instant) {
        let mut refused = self.lock();
        // What is never tried never says that it is well again.
        refused.retain(|(_, since)| now.saturating_duration_since(*since) < FORGOTTEN);
        peers.sort_by_key(|peer| {
            let at = refused.iter().position(|(refused, _)| refused == peer);
            at.map_or(0, |at| at + 1)
        });
    }

    /// Records whether `peer` has refused a login.
    pub(super) fn note(&self, peer: &Peer, has_refused: bool) {
        let mut refused = self.lock();
        refused.retain(|(known, _)| known != peer);
        if has_refused {
            if refused.len() == MOST {
                refused.remove(0);
            }
            refused.push((peer.clone(), Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Peer, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than the addresses of a name, which change over time.
const MOST: usize = 64;

/// How long a refusal counts: a server that starts or is restarted needs less.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::address::Address;
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer {
            name: "a".to_owned(),
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
        }
    }

    fn order(refused: &RefusedPeers, now: Instant) -> Vec<Peer> {
        let mut peers = vec![peer(1), peer(2), peer(3)];
        refused.move_back_at(&mut peers, now);
        peers
    }

    #[test]
    fn a_refusal_moves_its_address_back_until_the_next_login_or_for_a_minute() {
        let refused = RefusedPeers::default();
        refused.note(&peer(2), true);
        refused.note(&peer(1), true);
        let now = Instant::now();
        assert_eq!(order(&refused, now), [peer(3), peer(2), peer(1)]);
        refused.note(&peer(2), false);
        assert_eq!(order(&refused, now), [peer(2), peer(3), peer(1)]);
        assert_eq!(
            order(&refused, now + FORGOTTEN),
            [peer(1), peer(2), peer(3)]
        );
    }
}
