//! The bounds of a queue, and how many connections are to be made within them. Pure.

use std::time::Duration;

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_size: u32,
    pub(crate) min_idle: u32,
    /// How many connections may be made at the same time.
    pub(crate) max_connecting: u32,
    /// A connect that takes longer has no runtime that runs it.
    pub(crate) connect: Duration,
    /// A check, or an unfinished statement, that takes longer has none either.
    pub(crate) check: Duration,
}

/// What a pool has, and what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) waiting: u32,
    pub(crate) idle: u32,
    pub(crate) checking: u32,
    pub(crate) connecting: u32,
    /// The connections that are or will be of use.
    pub(crate) usable: u32,
    /// All connections that exist or are being made, those of no use too.
    pub(crate) all: u32,
    /// Whether the server refuses connections for good.
    pub(crate) is_refused: bool,
}

impl Limits {
    /// Returns how many connections are to be made: one for each caller that nothing else is about to serve, and those that
    /// `min_idle` asks for.
    pub(crate) fn due(&self, demand: &Demand) -> u32 {
        let short_of_idle = self.min_idle.saturating_sub(demand.idle);
        let wanted = demand.waiting.saturating_add(short_of_idle);
        let expected = demand.checking + demand.connecting;
        let room = self
            .max_size
            .saturating_sub(demand.usable + demand.connecting);
        // Suspects are replaced at once, but a server that is only slow does not see ever more connections.
        let most = self.max_size.saturating_mul(2);
        let room = room.min(most.saturating_sub(demand.all));
        let at_once = match demand.is_refused {
            // One finds out for all.
            true => 1,
            false => self.max_connecting,
        };
        let room = room.min(at_once.saturating_sub(demand.connecting));
        wanted.saturating_sub(expected).min(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_connect_at_once_as_wait_as_there_is_room_for_and_as_may() {
        let limits = Limits {
            max_size: 10,
            min_idle: 0,
            max_connecting: 4,
            connect: Duration::ZERO,
            check: Duration::ZERO,
        };
        let nobody = Demand {
            waiting: 0,
            idle: 0,
            checking: 0,
            connecting: 0,
            usable: 0,
            all: 0,
            is_refused: false,
        };
        assert_eq!(limits.due(&nobody), 0);
        let crowd = Demand {
            waiting: 50,
            ..nobody
        };
        assert_eq!(limits.due(&crowd), 4);
        let under_way = Demand {
            connecting: 3,
            all: 3,
            ..crowd
        };
        assert_eq!(limits.due(&under_way), 1);
        let nearly_full = Demand {
            usable: 8,
            all: 8,
            ..crowd
        };
        assert_eq!(limits.due(&nearly_full), 2);
        let refused = Demand {
            is_refused: true,
            ..crowd
        };
        assert_eq!(limits.due(&refused), 1);
        let checked_soon = Demand {
            waiting: 2,
            checking: 2,
            usable: 2,
            all: 2,
            ..nobody
        };
        assert_eq!(limits.due(&checked_soon), 0);
    }
}
