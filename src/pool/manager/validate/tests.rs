use std::future::{pending, ready};

use futures_util::FutureExt;

use super::*;
use crate::connect::ConnectErrorKind;

fn check_failed(sqlstate: &str, message: &str) -> EvictReason {
    EvictReason::CheckFailed {
        sqlstate: Some(sqlstate.to_owned()),
        message: message.to_owned(),
    }
}

const NO_ANSWER: EvictReason = EvictReason::NoAnswer {
    bound: Duration::ZERO,
};

#[test]
fn the_first_reason_to_evict_is_told() {
    let ended = check_failed("57P01", "gone");
    let mut known = Known {
        pool_closed: true,
        ended: Some(ended.clone()),
        check_cancelled: true,
        abandoned: true,
        in_transaction: true,
        generation_ended: true,
        past_deadline: true,
    };
    type Clear = fn(&mut Known);
    let reasons: [(EvictReason, Clear); 7] = [
        (EvictReason::PoolClosed, |known| known.pool_closed = false),
        (ended, |known| known.ended = None),
        (EvictReason::CheckCancelled, |known| {
            known.check_cancelled = false;
        }),
        (EvictReason::Abandoned, |known| known.abandoned = false),
        (EvictReason::InTransaction, |known| {
            known.in_transaction = false;
        }),
        (EvictReason::Generation, |known| {
            known.generation_ended = false;
        }),
        (EvictReason::Lifetime, |known| known.past_deadline = false),
    ];
    for (reason, clear) in reasons {
        assert_eq!(known.clone().verdict(), Err(reason));
        clear(&mut known);
    }
    assert_eq!(known.verdict(), Ok(()));
}

#[test]
fn only_a_quiet_a_busy_or_a_doubtful_connection_is_asked() {
    let (short, long) = (Duration::from_millis(499), Duration::from_millis(500));
    for (died_after_login, is_busy, quiet, asked) in [
        (0, false, Duration::ZERO, false),
        (0, false, short, false),
        (0, false, long, true),
        (0, true, Duration::ZERO, true),
        (1, false, Duration::ZERO, true),
    ] {
        let case = (died_after_login, is_busy, quiet);
        assert_eq!(
            must_ask(died_after_login, is_busy, quiet, long),
            asked,
            "{case:?}"
        );
    }
    assert!(must_ask(0, false, Duration::ZERO, Duration::ZERO));
}

/// What each of the futures of [`race`] has come to.
#[derive(Clone, Debug)]
struct Script {
    ping: Option<Result<(), EvictReason>>,
    generation_ended: bool,
    late: bool,
    connect: Option<Option<&'static str>>,
    was_busy: bool,
}

const SILENCE: Script = Script {
    ping: None,
    generation_ended: false,
    late: false,
    connect: None,
    was_busy: false,
};

fn play(script: Script) -> Option<Outcome<&'static str>> {
    async fn step<T>(value: Option<T>) -> T {
        match value {
            Some(value) => value,
            None => pending().await,
        }
    }
    race(
        step(script.ping),
        step(script.generation_ended.then_some(())),
        step(script.late.then_some(())),
        step(script.connect),
        script.was_busy,
    )
    .now_or_never()
}

#[test]
fn the_first_to_answer_is_handed_out() {
    let replaced = Script {
        late: true,
        connect: Some(Some("new")),
        ..SILENCE
    };
    let failed = Some(Err(NO_ANSWER));
    let answered = Some(Ok(()));
    let cases = [
        (SILENCE, None),
        (replaced.clone(), Some(Outcome::Replaced("new"))),
        // Nothing connects before the answer is late, and nothing replaces a connection that was busy.
        (
            Script {
                late: false,
                ..replaced.clone()
            },
            None,
        ),
        (
            Script {
                was_busy: true,
                ..replaced.clone()
            },
            None,
        ),
        // A failed connect proves nothing: the answer decides.
        (
            Script {
                connect: Some(None),
                ..replaced.clone()
            },
            None,
        ),
        (
            Script {
                ping: answered.clone(),
                connect: Some(None),
                ..replaced.clone()
            },
            Some(Outcome::Answered),
        ),
        // An answer counts before anything else.
        (
            Script {
                ping: answered,
                generation_ended: true,
                ..replaced.clone()
            },
            Some(Outcome::Answered),
        ),
        (
            Script {
                ping: failed,
                generation_ended: true,
                ..replaced.clone()
            },
            Some(Outcome::Failed(NO_ANSWER)),
        ),
        (
            Script {
                generation_ended: true,
                ..replaced
            },
            Some(Outcome::GenerationEnded),
        ),
    ];
    for (script, outcome) in cases {
        assert_eq!(play(script.clone()), outcome, "{script:?}");
    }
}

#[test]
fn nothing_connects_before_the_answer_is_late() {
    let began = Cell::new(false);
    let connect = async {
        began.set(true);
        Some(())
    };
    let outcome = race(pending(), pending(), pending(), connect, false).now_or_never();
    assert_eq!((outcome, began.get()), (None, false));
    let connect = async {
        began.set(true);
        Some(())
    };
    let outcome = race(pending(), pending(), ready(()), connect, false).now_or_never();
    assert_eq!((outcome, began.get()), (Some(Outcome::Replaced(())), true));
}

#[test]
fn siblings_are_evicted_with_a_connection_that_is_dead_or_replaced() {
    for (outcome, was_busy, evicts) in [
        (Outcome::Answered, false, false),
        (Outcome::Answered, true, false),
        (Outcome::GenerationEnded, false, false),
        (Outcome::Failed(NO_ANSWER), false, true),
        (Outcome::Failed(NO_ANSWER), true, false),
        (Outcome::Replaced(()), false, true),
    ] {
        assert_eq!(
            outcome.evicts_siblings(was_busy),
            evicts,
            "{outcome:?} {was_busy}"
        );
    }
}

#[test]
fn only_a_final_error_right_behind_the_login_is_told_at_once() {
    let gone = check_failed("3D000", "database \"shelf\" does not exist");
    for (reason, is_unproven, told) in [
        (gone.clone(), true, Some(ConnectErrorKind::Database)),
        (gone, false, None),
        (
            check_failed("57P03", "the database system is starting up"),
            true,
            None,
        ),
        (NO_ANSWER, true, None),
        (EvictReason::Abandoned, true, None),
    ] {
        let refusal = final_refusal(&reason, is_unproven);
        assert_eq!(refusal.map(|error| error.kind()), told, "{reason:?}");
    }
}
