//! [`PostponedPeers`]: the addresses that refused a login last time, or were silent.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::address::Peer;
use crate::util::lock;

/// The peers to try last, and since when, the earliest first.
///
/// A race ends after two refusals, since the server itself may refuse. Two addresses that always refuse, such as
/// those of replicas that do not start, would otherwise keep a healthy one behind them from ever being tried, and
/// one that hangs would delay every connect.
#[derive(Debug, Default)]
pub(super) struct PostponedPeers(Mutex<Vec<(Peer, Instant)>>);

impl PostponedPeers {
    /// Moves the postponed peers behind the others, the latest last.
    pub(super) fn move_back(&self, peers: &mut [Peer]) {
        self.move_back_at(peers, Instant::now());
    }

    fn move_back_at(&self, peers: &mut [Peer], now: Instant) {
        let mut postponed = lock(&self.0);
        // What is never tried never says that it is well again.
        postponed.retain(|(_, since)| now.saturating_duration_since(*since) < FORGOTTEN);
        peers.sort_by_key(|peer| {
            let at = postponed.iter().position(|(known, _)| known == peer);
            at.map_or(0, |at| at + 1)
        });
    }

    /// Tries `peer` last from now on.
    pub(super) fn add(&self, peer: &Peer) {
        let mut postponed = lock(&self.0);
        postponed.retain(|(known, _)| known != peer);
        if postponed.len() == MOST {
            postponed.remove(0);
        }
        postponed.push((peer.clone(), Instant::now()));
    }

    /// Tries `peer` in its turn again.
    pub(super) fn remove(&self, peer: &Peer) {
        lock(&self.0).retain(|(known, _)| known != peer);
    }
}

/// More than the addresses of a name, which change over time.
const MOST: usize = 64;

/// How long a refusal or a silence counts: a server that starts or is restarted needs less.
const FORGOTTEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::address::{Address, Listener};
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer {
            name: "a".to_owned(),
            address: Address::Tcp(([127, 0, 0, 1], port).into()),
            listener: Listener::default(),
        }
    }

    fn order(postponed: &PostponedPeers, now: Instant) -> Vec<Peer> {
        let mut peers = vec![peer(1), peer(2), peer(3)];
        postponed.move_back_at(&mut peers, now);
        peers
    }

    #[test]
    fn a_postponed_address_is_tried_last_until_the_next_login_or_for_a_minute() {
        let postponed = PostponedPeers::default();
        postponed.add(&peer(2));
        postponed.add(&peer(1));
        let now = Instant::now();
        assert_eq!(order(&postponed, now), [peer(3), peer(2), peer(1)]);
        postponed.remove(&peer(2));
        assert_eq!(order(&postponed, now), [peer(2), peer(3), peer(1)]);
        assert_eq!(
            order(&postponed, now + FORGOTTEN),
            [peer(1), peer(2), peer(3)]
        );
    }
}
