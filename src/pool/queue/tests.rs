use std::time::Duration;

use super::*;

type Pool = Queue<&'static str, &'static str>;

fn limits(max_size: u32) -> Limits {
    Limits {
        max_size,
        min_idle: 0,
        max_connecting: 100,
        connect: Duration::from_secs(10),
        check: Duration::from_secs(3),
    }
}

/// Returns a queue with these connections, all idle.
fn queue(max_size: u32, idle: &[&'static str]) -> Pool {
    let mut queue = Pool::new(limits(max_size));
    for connection in idle {
        queue.enter(Place::Connecting);
        assert!(matches!(
            queue.give(Place::Connecting, connection),
            Given::Idle
        ));
    }
    queue
}

/// Lets a caller wait, or returns what it is given.
fn poll(queue: &mut Pool, ticket: Ticket) -> Option<Served<&'static str, &'static str>> {
    polled(queue, ticket).0
}

/// Returns also how many connections the caller is to make.
fn polled(queue: &mut Pool, ticket: Ticket) -> (Option<Served<&'static str, &'static str>>, u32) {
    let polled = queue.poll(ticket, Instant::now(), Waker::noop());
    (polled.served, polled.due)
}

/// Returns the ticket of a caller that waits, and how many connections it is to make.
fn asking(queue: &mut Pool) -> (Ticket, u32) {
    let ticket = queue.ticket();
    let (served, due) = polled(queue, ticket);
    assert_eq!(served, None);
    (ticket, due)
}

/// Returns the ticket of a caller that waits.
fn caller(queue: &mut Pool) -> Ticket {
    asking(queue).0
}

fn give(queue: &mut Pool, from: Place, connection: &'static str) -> &'static str {
    match queue.give(from, connection) {
        Given::Idle => "idle",
        Given::Served(_) => "served",
        Given::Surplus(_) => "surplus",
    }
}

#[test]
fn the_connection_that_was_used_last_is_taken_first() {
    let mut queue = queue(2, &["old", "new"]);
    assert_eq!(queue.take(), Some("new"));
    assert_eq!(queue.take(), Some("old"));
    assert_eq!(queue.take(), None);
    assert_eq!((queue.at(Place::InUse), queue.idle()), (2, 0));
}

#[test]
fn callers_are_served_in_the_order_in_which_they_came_with_whatever_comes_first() {
    let mut queue = queue(3, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let (callers, due): (Vec<_>, Vec<_>) = (0..4).map(|_| asking(&mut queue)).unzip();
    assert_eq!(due, [1, 1, 0, 0]);
    assert_eq!(give(&mut queue, Place::InUse, "a"), "served");
    assert_eq!(give(&mut queue, Place::Connecting, "b"), "served");
    // Nobody overtakes.
    assert_eq!(queue.take(), None);
    assert_eq!(
        poll(&mut queue, callers[1]),
        Some(Served::Connection("b", Place::Connecting))
    );
    assert_eq!(
        poll(&mut queue, callers[0]),
        Some(Served::Connection("a", Place::InUse))
    );
    assert_eq!(poll(&mut queue, callers[2]), None);
    assert_eq!(queue.waiting(), 2);
}

#[test]
fn a_caller_whose_connection_was_dead_keeps_its_place() {
    let mut queue = queue(1, &[]);
    let (first, due) = asking(&mut queue);
    assert_eq!(due, 1);
    let second = caller(&mut queue);
    assert_eq!(give(&mut queue, Place::Connecting, "dead"), "served");
    assert!(poll(&mut queue, first).is_some());
    assert_eq!(queue.free(Place::InUse).len(), 1, "the other one is woken");
    assert_eq!(polled(&mut queue, first), (None, 1));
    assert_eq!(give(&mut queue, Place::Connecting, "new"), "served");
    assert_eq!(poll(&mut queue, second), None);
    assert!(poll(&mut queue, first).is_some());
}

#[test]
fn a_caller_that_quits_leaves_what_it_was_given() {
    let mut queue = queue(1, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let (first, second) = (caller(&mut queue), caller(&mut queue));
    assert_eq!(give(&mut queue, Place::InUse, "a"), "served");
    let quit = queue.quit(first).unused;
    assert_eq!(quit, Some(Served::Connection("a", Place::InUse)));
    assert_eq!(give(&mut queue, Place::InUse, "a"), "served");
    assert!(poll(&mut queue, second).is_some());
    assert_eq!(queue.quit(second).unused, None);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn connections_are_made_for_those_whom_nothing_else_is_about_to_serve() {
    let mut queue = queue(10, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let _ = queue.transfer(Place::InUse, Place::Checking);
    assert_eq!(asking(&mut queue).1, 0, "its check serves the caller");
    let (second, due) = asking(&mut queue);
    assert_eq!(due, 1);
    assert_eq!(polled(&mut queue, second), (None, 0), "it is under way");
    // A check that is late serves nobody, until it is answered.
    let woken = queue.transfer(Place::Checking, Place::Suspect);
    assert_eq!(woken.len(), 2);
    assert_eq!(polled(&mut queue, second), (None, 1));
}

#[test]
fn nobody_waits_beside_an_idle_connection_unless_for_a_check() {
    let mut queue = queue(3, &["c", "b", "a"]);
    let late = queue.ticket();
    // Another caller has given one back since this one has looked.
    assert_eq!(
        poll(&mut queue, late),
        Some(Served::Connection("a", Place::InUse))
    );
    let _ = queue.transfer(Place::InUse, Place::Checking);
    assert_eq!(asking(&mut queue).1, 0);
    assert_eq!(queue.idle(), 2);
    // Its check has failed.
    assert_eq!(queue.free(Place::Checking).len(), 1);
    assert_eq!((queue.idle(), queue.waiting()), (1, 0));
}

#[test]
fn whoever_is_woken_to_ask_and_goes_away_passes_it_on() {
    let mut queue = queue(1, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let first = caller(&mut queue);
    let second = caller(&mut queue);
    assert!(!queue.free(Place::InUse).is_empty());
    assert_eq!(queue.quit(first).wakers.len(), 1);
    assert_eq!(polled(&mut queue, second), (None, 1));
}

#[test]
fn max_size_counts_all_connections_that_are_or_will_be_of_use() {
    for (place, room) in [
        (Place::InUse, 1),
        (Place::Settling, 1),
        (Place::Checking, 1),
        (Place::Connecting, 1),
        (Place::Suspect, 2),
    ] {
        let mut queue = queue(2, &[]);
        queue.enter(place);
        let due: u32 = (0..5).map(|_| asking(&mut queue).1).sum();
        assert_eq!(due, room, "{place:?}");
    }
}

#[test]
fn suspects_are_replaced_up_to_twice_max_size() {
    let mut queue = queue(3, &[]);
    (0..4).for_each(|_| queue.enter(Place::Suspect));
    let due: u32 = (0..5).map(|_| asking(&mut queue).1).sum();
    assert_eq!(due, 2);
    assert_eq!(queue.free(Place::Suspect).len(), 5, "one more may be made");
}

#[test]
fn a_connection_that_was_replaced_is_closed_if_the_pool_is_full() {
    let mut queue = queue(1, &["late"]);
    assert_eq!(queue.take(), Some("late"));
    let _ = queue.transfer(Place::InUse, Place::Suspect);
    let (first, due) = asking(&mut queue);
    assert_eq!(due, 1);
    let _second = caller(&mut queue);
    assert_eq!(give(&mut queue, Place::Connecting, "new"), "served");
    assert!(poll(&mut queue, first).is_some());
    assert_eq!(give(&mut queue, Place::Suspect, "late"), "surplus");
    assert_eq!((queue.size(), queue.at(Place::InUse)), (1, 1));
}

#[test]
fn a_late_answer_serves_before_the_replacement_is_made() {
    let mut queue = queue(1, &["late"]);
    assert_eq!(queue.take(), Some("late"));
    let _ = queue.transfer(Place::InUse, Place::Suspect);
    let (first, due) = asking(&mut queue);
    assert_eq!(due, 1);
    assert_eq!(give(&mut queue, Place::Suspect, "late"), "served");
    assert!(poll(&mut queue, first).is_some());
    assert_eq!(give(&mut queue, Place::Connecting, "new"), "surplus");
}

#[test]
fn a_roll_takes_the_idle_connections_that_are_not_spared() {
    let mut queue = queue(3, &["a", "b", "c"]);
    let mut called = queue.take_all(Place::Suspect, |connection| *connection == "b");
    called.sort_unstable();
    assert_eq!(called, ["a", "c"]);
    assert_eq!(
        (queue.at(Place::Suspect), queue.idle(), queue.size()),
        (2, 1, 3)
    );
}

#[test]
fn a_failed_connect_is_told_to_those_who_depend_on_connects() {
    // In use, checking, and who is told of four that wait, if all are who no connection in use may serve.
    for (in_use, checking, told) in [
        (0, 0, &[0, 1, 2, 3][..]),
        (0, 1, &[]),
        (1, 0, &[]),
        (1, 2, &[]),
    ] {
        let mut queue = queue(10, &[]);
        (0..in_use).for_each(|_| queue.enter(Place::InUse));
        (0..checking).for_each(|_| queue.enter(Place::Checking));
        let callers: Vec<_> = (0..4).map(|_| caller(&mut queue)).collect();
        let wakers = queue.fail(|_, some_in_use| (!some_in_use).then_some("refused"));
        assert_eq!(wakers.len(), told.len());
        for (n, ticket) in callers.into_iter().enumerate() {
            let failed = poll(&mut queue, ticket) == Some(Served::Failed("refused"));
            assert_eq!(failed, told.contains(&n), "{in_use} {checking} {n}");
        }
    }
}

#[test]
fn no_more_connections_are_made_at_once_than_may_be() {
    let mut queue = Pool::new(Limits {
        max_connecting: 3,
        ..limits(10)
    });
    let due: u32 = (0..5).map(|_| asking(&mut queue).1).sum();
    assert_eq!(due, 3);
    assert_eq!(give(&mut queue, Place::Connecting, "a"), "served");
    assert_eq!(queue.connect(), 1);
    // After a refusal, one finds out for all.
    queue.note_refused(Instant::now());
    for left in [2, 1, 0] {
        let _ = queue.free(Place::Connecting);
        assert_eq!(queue.at(Place::Connecting), left);
        assert_eq!(queue.connect(), u32::from(left == 0));
    }
    assert!(queue.refused_beside_others().is_some());
    assert_eq!(give(&mut queue, Place::Connecting, "b"), "served");
    assert_eq!(queue.refused_beside_others(), None);
    assert_eq!(queue.connect(), 3);
}

#[test]
fn what_a_runtime_has_that_does_not_run_is_counted_out() {
    let now = Instant::now();
    let seconds = |n| now + Duration::from_secs(n);
    let mut queue = queue(2, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let checked = queue.open_slot(Place::InUse, now);
    assert!(
        queue
            .transfer_slot(checked, Place::Checking, now)
            .is_empty()
    );
    let _first = caller(&mut queue);
    let (_second, due) = asking(&mut queue);
    assert_eq!(due, 1);
    let made = queue.open_slot(Place::Connecting, now);
    assert!(queue.expire(seconds(2)).1.is_empty());
    assert_eq!(queue.expire(seconds(3)).1.len(), 2, "they ask for another");
    assert_eq!((queue.at(Place::Suspect), queue.connect()), (1, 1));
    let again = queue.open_slot(Place::Connecting, seconds(3));
    assert!(!queue.expire(seconds(10)).1.is_empty());
    assert_eq!((queue.at(Place::Stalled), queue.connecting()), (1, 2));
    // Both come after all.
    assert!(matches!(queue.give_slot(made, "b"), Given::Served(_)));
    assert!(matches!(queue.give_slot(again, "c"), Given::Served(_)));
    assert!(matches!(queue.give_slot(checked, "a"), Given::Surplus("a")));
    assert_eq!((queue.size(), queue.connecting()), (2, 0));
}

#[test]
fn what_a_caller_does_not_take_is_given_to_the_next() {
    let now = Instant::now();
    let mut queue = queue(1, &["a"]);
    assert_eq!(queue.take(), Some("a"));
    let (stuck, next) = (caller(&mut queue), caller(&mut queue));
    assert_eq!(give(&mut queue, Place::InUse, "a"), "served");
    let moment = |millis| now + Duration::from_millis(millis);
    assert!(queue.expire(moment(0)).1.is_empty());
    assert!(
        queue.expire(moment(900)).1.is_empty(),
        "it may just be late"
    );
    assert_eq!(queue.expire(moment(1000)).1.len(), 1);
    assert!(poll(&mut queue, next).is_some());
    assert_eq!(poll(&mut queue, stuck), None);
    assert_eq!(give(&mut queue, Place::InUse, "a"), "served");
    assert!(poll(&mut queue, stuck).is_some());
}

#[test]
fn a_failed_connect_that_is_worth_another_is_told_to_nobody() {
    let mut queue = queue(10, &[]);
    let (ticket, due) = asking(&mut queue);
    assert_eq!(due, 1);
    assert!(queue.fail(|_, _| None).is_empty());
    assert_eq!(
        queue.free(Place::Connecting).len(),
        1,
        "the caller is woken"
    );
    assert_eq!(polled(&mut queue, ticket), (None, 1));
}

#[test]
fn min_idle_is_made_beside_what_callers_need() {
    let mut queue = Pool::new(Limits {
        min_idle: 2,
        ..limits(5)
    });
    assert_eq!(queue.connect(), 2);
    assert_eq!(asking(&mut queue).1, 1);
    for (connection, given) in [("a", "served"), ("b", "idle"), ("c", "idle")] {
        assert_eq!(give(&mut queue, Place::Connecting, connection), given);
    }
    assert_eq!(queue.connect(), 0);
}

#[test]
fn a_queue_that_is_closed_gives_nothing() {
    let mut queue = queue(2, &["a", "b"]);
    assert_eq!(queue.take(), Some("b"));
    let _ = queue.transfer(Place::InUse, Place::Checking);
    let waiting = caller(&mut queue);
    let (idle, wakers) = queue.close();
    assert_eq!((idle, wakers.len()), (vec!["a"], 1));
    assert_eq!(poll(&mut queue, waiting), Some(Served::Closed));
    assert_eq!(give(&mut queue, Place::Checking, "b"), "surplus");
    assert_eq!(queue.connect(), 0);
    assert!(queue.is_empty());
}

#[test]
fn what_a_caller_lacks_is_told_by_its_place_in_the_line() {
    let mut queue = queue(10, &[]);
    for _ in 0..2 {
        queue.enter(Place::InUse);
    }
    queue.enter(Place::Checking);
    queue.enter(Place::Connecting);
    queue.limits.max_size = 4;
    let callers: Vec<_> = (0..3).map(|_| caller(&mut queue)).collect();
    let lacks = |queue: &Pool| {
        callers
            .iter()
            .map(|ticket| queue.lack(*ticket))
            .collect::<Vec<_>>()
    };
    let (first, second) = (Lack::Validating, Lack::Connecting);
    assert_eq!(lacks(&queue), [first, second, Lack::Exhausted]);
    queue.enter(Place::Suspect);
    assert_eq!(lacks(&queue), [first, first, second]);
}

#[test]
fn a_pool_of_which_few_connections_are_held_is_not_exhausted() {
    let mut queue = queue(3, &[]);
    queue.limits.max_connecting = 1;
    let callers: Vec<_> = (0..5).map(|_| caller(&mut queue)).collect();
    let lacks = |queue: &Pool| -> Vec<_> {
        let lack = |ticket: &Ticket| queue.lack(*ticket);
        callers.iter().map(lack).collect()
    };
    assert_eq!(queue.at(Place::Connecting), 1);
    assert_eq!(lacks(&queue), [Lack::Connecting; 5]);
    // Where one is held, the others are still to be made.
    queue.enter(Place::InUse);
    let (connecting, exhausted) = (Lack::Connecting, Lack::Exhausted);
    assert_eq!(lacks(&queue), [connecting; 5]);
    queue.enter(Place::InUse);
    let both = [connecting, exhausted, exhausted, exhausted, exhausted];
    assert_eq!(lacks(&queue), both);
    queue.leave(Place::InUse);
    queue.leave(Place::InUse);
    queue.leave(Place::Connecting);
    queue.enter(Place::Checking);
    queue.limits.max_size = 1;
    assert_eq!(lacks(&queue), [Lack::Validating; 5]);
}
