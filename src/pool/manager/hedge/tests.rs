use std::cell::Cell;
use std::future::{pending, ready};

use futures_util::FutureExt;

use super::*;

const NO_ANSWER: EvictReason = EvictReason::NoAnswer {
    bound: Duration::ZERO,
};

/// What each of the futures of [`race`] has come to.
#[derive(Clone, Debug)]
struct Script {
    ping: Option<Result<(), EvictReason>>,
    generation_ended: bool,
    late: bool,
    connect: Option<Option<()>>,
    was_busy: bool,
}

const SILENCE: Script = Script {
    ping: None,
    generation_ended: false,
    late: false,
    connect: None,
    was_busy: false,
};

fn play(script: Script) -> Option<Outcome> {
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
        connect: Some(Some(())),
        ..SILENCE
    };
    let failed = Some(Err(NO_ANSWER));
    let answered = Some(Ok(()));
    let cases = [
        (SILENCE, None),
        (replaced.clone(), Some(Outcome::Replaced)),
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
    assert_eq!((outcome, began.get()), (Some(Outcome::Replaced), true));
}
