//! [`Line`]: values in the order of their tickets.

use std::collections::VecDeque;

use super::Ticket;

/// Values in the order of their tickets.
///
/// Nearly all come at the end and leave at the front, for which this is cheaper than a tree, and allocates nothing.
#[derive(Debug)]
pub(super) struct Line<V>(VecDeque<(Ticket, V)>);

impl<V> Line<V> {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many tickets are before this one.
    pub(super) fn ahead_of(&self, ticket: Ticket) -> usize {
        match self.0.back() {
            Some((last, _)) if *last < ticket => self.len(),
            _ => self.0.partition_point(|(other, _)| *other < ticket),
        }
    }

    /// Inserts the value of a ticket, and returns the one that it had.
    #[inline]
    pub(super) fn insert(&mut self, ticket: Ticket, value: V) -> Option<V> {
        if self.0.back().is_none_or(|(last, _)| *last < ticket) {
            self.0.push_back((ticket, value));
            return None;
        }
        let at = self.ahead_of(ticket);
        match self.0.get_mut(at) {
            Some((other, earlier)) if *other == ticket => {
                return Some(std::mem::replace(earlier, value));
            }
            _ => self.0.insert(at, (ticket, value)),
        }
        None
    }

    #[inline]
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<V> {
        let (first, _) = self.0.front()?;
        if *first == ticket {
            return self.pop_first().map(|(_, value)| value);
        }
        let at = self.ahead_of(ticket);
        let (other, _) = self.0.get(at)?;
        if *other != ticket {
            return None;
        }
        self.0.remove(at).map(|(_, value)| value)
    }

    #[inline]
    pub(super) fn pop_first(&mut self) -> Option<(Ticket, V)> {
        let first = self.0.pop_front();
        // A crowd has left.
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = VecDeque::new();
        }
        first
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &V)> {
        self.0.iter().map(|(ticket, value)| (*ticket, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

/// For how many values the memory is kept when all have left.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_leave_in_the_order_of_their_tickets_whenever_they_came() {
        let mut line = Line::new();
        for ticket in [3, 5, 1, 4] {
            assert_eq!(line.insert(ticket, ticket * 10), None);
        }
        assert_eq!(line.insert(4, 41), Some(40));
        assert_eq!((line.ahead_of(4), line.ahead_of(9)), (2, 4));
        assert_eq!(
            (line.remove(2), line.remove(3), line.remove(3)),
            (None, Some(30), None)
        );
        let left: Vec<_> = std::iter::from_fn(|| line.pop_first()).collect();
        assert_eq!(left, [(1, 10), (4, 41), (5, 50)]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_crowd_leaves_little_memory_behind() {
        for leaves_at_front in [true, false] {
            let mut line = Line::new();
            for ticket in 0..5000 {
                line.insert(ticket, ());
            }
            for ticket in 0..5000 {
                match leaves_at_front {
                    true => drop(line.pop_first()),
                    false => drop(line.remove(4999 - ticket)),
                }
            }
            assert!(line.is_empty());
            assert!(line.0.capacity() <= KEPT);
        }
    }
}
