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
        ended: true,
        runtime_ended: true,
        check_cancelled: true,
        abandoned: true,
        in_transaction: true,
        generation_ended: true,
        past_deadline: true,
    };
    type Clear = fn(&mut Known);
    let reasons: [(EvictReason, Clear); 8] = [
        (EvictReason::PoolClosed, |known| known.pool_closed = false),
        (EvictReason::Abandoned, |known| known.abandoned = false),
        (ended.clone(), |known| known.ended = false),
        (EvictReason::RuntimeEnded, |known| {
            known.runtime_ended = false;
        }),
        (EvictReason::CheckCancelled, |known| {
            known.check_cancelled = false;
        }),
        (EvictReason::InTransaction, |known| {
            known.in_transaction = false;
        }),
        (EvictReason::Generation, |known| {
            known.generation_ended = false;
        }),
        (EvictReason::Lifetime, |known| known.past_deadline = false),
    ];
    for (reason, clear) in reasons {
        assert_eq!(known.verdict(|| ended.clone()), Err(reason));
        clear(&mut known);
    }
    assert_eq!(known.verdict(|| ended), Ok(()));
}

#[test]
fn only_a_quiet_a_busy_a_suspect_or_a_doubtful_connection_is_asked() {
    let (short, long) = (Duration::from_millis(499), Duration::from_millis(500));
    for (died_after_login, is_busy, is_in_doubt, quiet, asked) in [
        (0, false, false, Duration::ZERO, false),
        (0, false, false, short, false),
        (0, false, false, long, true),
        (0, false, true, Duration::ZERO, true),
        (0, true, false, Duration::ZERO, true),
        (1, false, false, Duration::ZERO, true),
    ] {
        let case = (died_after_login, is_busy, is_in_doubt, quiet);
        let must = must_ask(died_after_login, is_busy, is_in_doubt, quiet, long);
        assert_eq!(must, asked, "{case:?}");
    }
    assert!(must_ask(0, false, false, Duration::ZERO, Duration::ZERO));
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
