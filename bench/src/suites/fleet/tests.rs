//! The simulation.

use std::time::Duration;

use diesel_neon::Policy;

use super::day::{Day, Job, LENGTH};
use super::neon::{COLD_START, WINDOW};
use super::policies::{Habits, bb8, deadpool, each_second, ours, sqlx};
use super::simulation::{Fleet, REST_OF_LOGIN, WORK, live};

fn arms() -> Vec<Habits> {
    let policy = Policy::builder().max_size(1).build().unwrap();
    vec![
        ours(&policy),
        bb8(1, 0),
        bb8(1, 1),
        deadpool(1),
        sqlx(1),
        each_second(1),
    ]
}

fn fleet(habits: Habits) -> Fleet {
    Fleet {
        instances: 300,
        most_open: 200,
        habits,
    }
}

fn nothing() -> Day {
    Day {
        peak: 0.0,
        night: 0.0,
        jobs: Vec::new(),
        restarts: Vec::new(),
    }
}

#[test]
fn without_requests_nobody_attempts_anything_and_the_compute_sleeps_all_day() {
    for habits in arms() {
        let keeps_one = habits.limits.min_idle > 0;
        let outcome = live(&fleet(habits), &nothing());
        let attempts: u32 = outcome.attempts.iter().sum();
        assert_eq!(attempts > 0, keeps_one);
        assert_eq!(outcome.slept == LENGTH, !keeps_one);
        assert_eq!(outcome.arrived, 0);
    }
}

#[test]
fn every_caller_is_served_or_fails_and_a_day_repeats_itself() {
    let day = Day {
        peak: 1.0,
        night: 0.001,
        jobs: vec![Job {
            at: Duration::from_secs(6 * 3600),
            spread: Duration::from_secs(1),
            requests: 3,
        }],
        restarts: vec![Duration::from_secs(13 * 3600)],
    };
    for habits in arms() {
        let fleet = fleet(habits);
        let outcome = live(&fleet, &day);
        assert!(outcome.arrived > 20_000);
        assert_eq!(outcome.served + outcome.failed, outcome.arrived);
        assert!(outcome.open.iter().all(|open| *open <= fleet.most_open));
        let job = &outcome.jobs[0];
        assert_eq!(job.waits.len() as u64 + job.failed, 900);
        // 300 log in while the compute wakes, and 200 of them have a place.
        assert!(outcome.refused > 0 && job.waits.len() >= 200);
        let again = live(&fleet, &day);
        assert_eq!(again.attempts, outcome.attempts);
    }
}

#[test]
fn one_request_wakes_the_compute_for_one_window() {
    let at = Duration::from_secs(3600);
    let job = Job {
        at,
        spread: Duration::ZERO,
        requests: 1,
    };
    let day = Day {
        jobs: vec![job],
        ..nothing()
    };
    let policy = Policy::builder().max_size(1).build().unwrap();
    let one = Fleet {
        instances: 1,
        ..fleet(ours(&policy))
    };
    let outcome = live(&one, &day);
    assert_eq!((outcome.wakes, outcome.served), (1, 1));
    let awake = LENGTH - outcome.slept;
    let took = COLD_START + REST_OF_LOGIN + WORK;
    assert_eq!(awake, WINDOW + took);
    assert!(outcome.jobs[0].waits[0] < took.as_secs_f64());
}
