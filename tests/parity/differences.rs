//! The intended differences, as `docs/differences.md` lists them.

use crate::subject::Outcome;

/// A heading of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    RolledBackCommit,
    KeptOuter,
    FailedLoad,
    NamedRepeat,
    ForgottenName,
    StalePlan,
    MissingBind,
    ZeroByte,
}

impl Difference {
    pub const ALL: [Self; 8] = [
        Self::RolledBackCommit,
        Self::KeptOuter,
        Self::FailedLoad,
        Self::NamedRepeat,
        Self::ForgottenName,
        Self::StalePlan,
        Self::MissingBind,
        Self::ZeroByte,
    ];

    pub fn heading(self) -> &'static str {
        match self {
            Self::RolledBackCommit => "A COMMIT that the server answers with ROLLBACK is an error",
            Self::KeptOuter => {
                "A nested transaction whose error is swallowed leaves the outer one usable"
            }
            Self::FailedLoad => "A load that fails is told to instrumentation as failed",
            Self::NamedRepeat => "What Diesel does not cache is cached if it comes again",
            Self::ForgottenName => "A name that the server has forgotten is given again",
            Self::StalePlan => "A stale plan is made anew",
            Self::MissingBind => "A bind parameter that is missing is found by the server",
            Self::ZeroByte => "What cannot be sent says why",
        }
    }

    /// Returns whether the two connections are in different states behind the difference.
    pub fn parts(self) -> bool {
        use Difference::*;
        matches!(self, KeptOuter | ForgottenName | StalePlan | MissingBind)
    }
}

/// Returns the intended difference of two outcomes, if they differ; `Err` if they should not.
pub fn between(ours: &Outcome, theirs: &Outcome) -> Result<Vec<Difference>, ()> {
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    let mut found = Vec::new();
    let told = |outcome: &Outcome, text: &str| format!("{outcome:?}").contains(text);

    if told(&theirs, MISSING) && told(&ours, "requires 1") {
        // The server has got the statement and the transaction has failed, so that all that follows differs.
        return Ok(vec![Difference::MissingBind]);
    }
    if theirs.result.contains(FORGOTTEN) && !ours.result.contains(FORGOTTEN) {
        return Ok(vec![Difference::ForgottenName]);
    }
    if told(&theirs, STALE) && !told(&ours, STALE) {
        return Ok(vec![Difference::StalePlan]);
    }
    let release = |event: &String| event.starts_with("fail RELEASE SAVEPOINT");
    let kept = ours.events.iter().position(release);
    let rolls_back = kept.and_then(|at| ours.events.get(at + 1));
    let follows = kept.and_then(|at| theirs.events.get(at + 1));
    if rolls_back.is_some_and(|event| event.starts_with("rollback ")) && rolls_back != follows {
        return Ok(vec![Difference::KeptOuter]);
    }
    if told(&theirs, UNSENT) && told(&ours, ZERO) {
        found.push(Difference::ZeroByte);
        ours = ours.with(|text| text.replace(ZERO, UNSENT));
    }
    let before = ours.events.len();
    ours.events
        .retain(|event| !event.starts_with("cache ") || theirs.events.contains(event));
    if ours.events.len() < before {
        found.push(Difference::NamedRepeat);
    }
    // `AsyncPgConnection` finishes a load before its first row; ours fails with the error that the caller gets.
    if ours.events.len() == theirs.events.len() {
        for (ours, theirs) in ours.events.iter_mut().zip(&mut theirs.events) {
            let finished = theirs.strip_prefix("finish ");
            let failed = finished.is_some_and(|sql| ours.starts_with(&format!("fail {sql}: ")));
            if failed {
                found.push(Difference::FailedLoad);
                ours.clone_from(theirs);
            }
        }
    }
    if ours.result.contains(ROLLED_BACK) && !theirs.result.starts_with("error") {
        found.push(Difference::RolledBackCommit);
        theirs.result.clone_from(&ours.result);
    }
    match ours == theirs {
        true => Ok(found),
        false => Err(()),
    }
}

const MISSING: &str = "expected 1 parameters but got 0";
const FORGOTTEN: &str = "prepared statement \"s";
const STALE: &str = "cached plan must not change result type";
const UNSENT: &str = "error encoding message to server";
const ZERO: &str = "a statement cannot contain a zero byte";
const ROLLED_BACK: &str = "the transaction is rolled back: a statement in it had failed";
