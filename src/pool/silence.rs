//! A statement that waits is looked after: on a direct endpoint a sibling asks what its server process does, and behind a
//! pooler the siblings' silence counts.
//!
//! The background task looks at the clock of each connection that is in use. What it asks is asked in a task of its own,
//! by an idle connection, or by one that is made for it, and then serves whoever waits. The others are asked as well, as
//! after any check, if the answer is late or a statement is found lost: to ask them because of a statement that is merely
//! long would keep them from growing idle.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryResult;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::activity::{self, Activity, Doing, Sent};
use super::check::{Examined, fail};
use super::connections::{Connections, Slot, wake};
use super::entry::PoolEntry;
use super::evict::EvictReason;
use super::leak::CheckoutRecord;
use super::queue::Place;
use crate::connect::Establish;
use crate::query::DatabaseErrorExt;
use crate::session::{Condemned, ServerProcess, Verdict};
use crate::util::clock::Moment;
use crate::util::lock;

/// A statement whose server has been silent for long.
struct Silent {
    record: Arc<CheckoutRecord>,
    silence: Duration,
    process: Option<ServerProcess>,
    /// How many responses the session has had: with one more, another statement waits.
    responses: u64,
}

impl<C: Establish> Connections<C> {
    /// Looks at all connections in use, and begins to ask about those whose servers are silent.
    pub(super) fn look_after(self: &Arc<Self>, threshold: Duration) {
        let now = Moment::now();
        let is_due = self.state.leaks.any_held(|record| {
            let silence = observe(record, &now, threshold);
            lock(&record.episode).is_due(silence)
        });
        if is_due && self.looks.begin() {
            let look = Look(Arc::clone(self));
            tokio::spawn(async move { look.run(threshold).await });
        }
    }

    /// Returns the statements whose servers are silent.
    fn silent(&self, threshold: Duration) -> Vec<Silent> {
        let now = Moment::now();
        let records = self.state.leaks.records().into_iter();
        let held = records.filter(|record| record.is_held());
        let silent = held.map(|record| Silent {
            silence: observe(&record, &now, threshold),
            process: record.session.status.process(),
            responses: record.session.status.responses(),
            record,
        });
        silent
            .filter(|silent| silent.silence >= threshold)
            .collect()
    }

    /// Takes an idle connection that is to ask.
    fn take_sibling(self: &Arc<Self>) -> Option<(Slot<C>, PoolEntry<C>)> {
        loop {
            let taken = self.queue().take()?;
            match self.examine(taken, false) {
                Examined::Fit(taken) | Examined::Doubtful(taken) => {
                    let mut slot = Slot::new(self, Place::InUse);
                    let entry = taken.into_entry();
                    slot.transfer_to_check(&entry);
                    return Some((slot, entry));
                }
                Examined::Evicted => {}
                Examined::Refused(_) => return None,
            }
        }
    }

    /// Makes a connection that is to ask, if there is room for one more.
    async fn make_sibling(self: &Arc<Self>) -> Option<(Slot<C>, PoolEntry<C>)> {
        if !self.queue().connect_one() {
            return None;
        }
        let slot = Slot::new(self, Place::Connecting);
        // That there is none is nobody's failure: those who wait have connects of their own.
        let entry = self.made().await.ok()?;
        Some((slot, entry))
    }

    /// Has another connection made in the place of one that is dead, whoever holds it.
    fn give_up(&self, record: &CheckoutRecord) {
        let mut queue = self.queue();
        let wakers = match record.give_up() {
            true => queue.transfer(Place::InUse, Place::Suspect),
            false => Vec::new(),
        };
        drop(queue);
        wake(wakers);
    }

    /// Returns whether the siblings of a connection show that it is dead: one that was heard from not long before it has
    /// not answered since, and none that is as old has been heard from.
    fn siblings_are_dead(&self, silent: &Silent) -> bool {
        let Some((found_at, quiet)) = self.state.health.silent_death() else {
            return false;
        };
        let (now, status) = (Moment::now(), &silent.record.session.status);
        let lately = status.silent_for(&found_at).saturating_add(LATELY);
        let is_evidence = now.since(&found_at) < silent.silence && quiet <= lately;
        let lives = |record: &Arc<CheckoutRecord>| {
            now.since(&record.born) > silent.silence
                && record.session.status.silent_for(&now) < silent.silence
        };
        is_evidence && !self.state.leaks.records().iter().any(lives)
    }
}

/// The one look of a pool that is under way, until it is dropped.
struct Look<C: Establish>(Arc<Connections<C>>);

impl<C: Establish> Look<C> {
    async fn run(self, threshold: Duration) {
        let connections = &self.0;
        let silent = connections.silent(threshold);
        let has_known = silent.iter().any(|silent| silent.process.is_some());
        for Silent {
            record, silence, ..
        } in &silent
        {
            lock(&record.episode).postpone(*silence);
            tracing::debug!(silence = ?silence, "a statement waits in silence");
        }
        // The statements themselves stay with their callers meanwhile.
        drop(silent);
        if let Some((slot, entry)) = connections.take_sibling() {
            let (late, bound) = (
                connections.state.late(),
                connections.state.policy.validation_timeout(),
            );
            // It goes on when it is late, and its end is known then.
            let asking = tokio::spawn(ask(slot, entry, threshold, false));
            let patience = if has_known { late } else { bound.max(late) };
            if let Ok(Ok(Some(_))) = timeout(patience, asking).await {
                return;
            }
        }
        let silent = connections.silent(threshold);
        let is_worthwhile =
            |silent: &Silent| silent.process.is_some() || connections.siblings_are_dead(silent);
        if !silent.iter().any(is_worthwhile) || !connections.looks.may_make(&Moment::now()) {
            return;
        }
        let found = match connections.make_sibling().await {
            Some((slot, entry)) => ask(slot, entry, threshold, true).await,
            None => None,
        };
        let has_found = found.is_some_and(|found| found > 0);
        connections.looks.set_made(&Moment::now(), has_found);
    }
}

impl<C: Establish> Drop for Look<C> {
    fn drop(&mut self) {
        self.0.looks.end();
    }
}

/// Has a connection ask about all statements that are silent, ends those that are lost, and gives the connection on.
/// Returns how many were lost; `None` if it has no answer.
async fn ask<C: Establish>(
    slot: Slot<C>,
    mut entry: PoolEntry<C>,
    threshold: Duration,
    is_new: bool,
) -> Option<u32> {
    let connections = Arc::clone(slot.connections());
    // Nothing is late before.
    entry.session().status.until_logged_in().await;
    let (state, began) = (&connections.state, Moment::now());
    let silent = connections.silent(threshold);
    let answer = {
        let mut asking = pin!(inquire(&connections, &mut entry, &silent));
        match timeout(state.late(), &mut asking).await {
            Ok(answer) => answer,
            Err(_) => {
                connections.call_roll_behind(&slot, &began);
                asking.await
            }
        }
    };
    state.stats.checked(answer.is_ok());
    let has_one_server = state.connector.has_one_server();
    let activities = match answer {
        Ok(activities) => activities,
        Err(reason) => {
            fail(slot, entry, &reason, &began);
            return None;
        }
    };
    state.health.record_check_passed();
    let (mut lost, mut unanswered) = (0, None);
    for silent in &silent {
        let verdict = match silent.process {
            Some(process) => {
                let known = activities.iter().find(|activity| activity.is_of(&process));
                let doing =
                    known.map_or(Doing::Busy, |known| known.doing(&process, has_one_server));
                let concluded =
                    conclude(&connections, &mut entry, silent, &process, doing, threshold).await;
                unanswered = concluded.asker;
                concluded.verdict
            }
            None if is_new && connections.siblings_are_dead(silent) => cut_off(silent).await,
            None => None,
        };
        if let Some(verdict) = verdict {
            connections.give_up(&silent.record);
            lost += 1;
            tracing::warn!(verdict = ?verdict, silence = ?silent.silence, "a statement is lost");
        }
        if unanswered.is_some() {
            break;
        }
    }
    match unanswered {
        // Others are asked about in the next look.
        Some(reason) => fail(slot, entry, &reason, &began),
        None => {
            slot.give(entry);
            if lost > 0 {
                connections.call_roll(&began);
            }
        }
    }
    Some(lost)
}

/// Asks what the processes do, or whether the server answers at all if none is known.
async fn inquire<C: Establish>(
    connections: &Connections<C>,
    entry: &mut PoolEntry<C>,
    silent: &[Silent],
) -> Result<Vec<Activity>, EvictReason> {
    let known: Vec<_> = silent.iter().filter_map(|silent| silent.process).collect();
    if known.is_empty() {
        return connections.state.ping(entry).await.map(|()| Vec::new());
    }
    let bound = connections.state.policy.validation_timeout();
    match timeout(bound, activity::ask(entry, &known)).await {
        Ok(Ok(activities)) => Ok(activities),
        Ok(answer) => or_lost(answer),
        Err(_) => Err(EvictReason::NoAnswer { bound }),
    }
}

/// Returns what the server told: nothing if it may not, or why it cannot.
fn or_lost(answer: QueryResult<Vec<Activity>>) -> Result<Vec<Activity>, EvictReason> {
    match answer {
        Ok(activities) => Ok(activities),
        Err(error) if error.is_connection_lost() => Err(EvictReason::CheckFailed {
            sqlstate: error.sqlstate().map(str::to_owned),
            message: error.to_string(),
        }),
        Err(error) => {
            tracing::debug!(error = %error, "the server does not tell what its processes do");
            Ok(Vec::new())
        }
    }
}

/// How the look at one statement has ended.
#[derive(Default)]
struct Concluded {
    /// `None` if the statement waits on.
    verdict: Option<Verdict>,
    /// Why the connection that asked is of no use any more.
    asker: Option<EvictReason>,
}

/// Ends a statement that is lost, as what its process does shows. One that the process runs waits on, and so does one
/// that it has finished a moment ago: its answer may be under way.
async fn conclude<C: Establish>(
    connections: &Connections<C>,
    entry: &mut PoolEntry<C>,
    silent: &Silent,
    process: &ServerProcess,
    doing: Doing,
    threshold: Duration,
) -> Concluded {
    match doing {
        Doing::Busy => return Concluded::default(),
        Doing::Idle(idle) if idle < threshold => return Concluded::default(),
        Doing::Idle(_) | Doing::Gone => {}
    }
    let Some(condemned) = condemn(silent).await else {
        return Concluded::default();
    };
    if doing == Doing::Gone {
        condemned.end(Verdict::ProcessGone);
        return Concluded {
            verdict: Some(Verdict::ProcessGone),
            asker: None,
        };
    }
    let bound = connections.state.policy.validation_timeout();
    let (asked_at, asked) = (Instant::now(), Moment::now());
    let ended = match timeout(bound, activity::ask_and_end(entry, process)).await {
        Ok(answer) => or_lost(answer),
        Err(_) => Err(EvictReason::NoAnswer { bound }),
    };
    let sent = sent(&silent.record, condemned.is_alone(), asked_at, &asked);
    let (known, asker) = match ended {
        Ok(activities) => (activities.into_iter().next(), None),
        Err(reason) => (None, Some(reason)),
    };
    let verdict = match known {
        Some(known) if !known.may_run() => {
            let verdict = known.verdict(process, &sent);
            condemned.end(verdict);
            verdict
        }
        // It has begun meanwhile, or nobody can tell.
        _ => {
            condemned.cancel(Verdict::ProcessIdle);
            Verdict::ProcessIdle
        }
    };
    Concluded {
        verdict: Some(verdict),
        asker,
    }
}

/// Returns when the statement of a connection was sent that is condemned.
fn sent(record: &CheckoutRecord, is_alone: bool, asked_at: Instant, asked: &Moment) -> Sent {
    let (now, status) = (Moment::now(), &record.session.status);
    let held_for = record.since().map(|since| now.since(&since));
    Sent {
        // If nothing has come since the checkout, no statement of it has an answer.
        at_most: held_for.filter(|held_for| status.silent_for(&now) > *held_for),
        heard: status.silent_for(asked),
        in_transaction: status.in_transaction() && !status.bounds.may_have_chained(),
        is_alone,
        asked_at,
    }
}

/// Takes the session of a silent statement from its caller, unless something has come. On the session's own runtime, which
/// may not have been driven: once it is, it knows what has come.
async fn condemn(silent: &Silent) -> Option<Condemned> {
    let (session, silence) = (silent.record.session.clone(), silent.silence);
    let responses = silent.responses;
    let (tell, told) = oneshot::channel();
    silent.record.session.runtime().spawn(async move {
        yield_now().await;
        if !tell.is_closed() {
            // If nobody listens any more, the session ends without a verdict.
            let _ = tell.send(session.condemn(silence, responses));
        }
    });
    timeout(PATIENCE, told).await.ok()?.ok()?
}

/// Ends a statement whose process is not known.
async fn cut_off(silent: &Silent) -> Option<Verdict> {
    let verdict = Verdict::SiblingsDead;
    if silent.record.session.cut_off(verdict, silent.silence) {
        return Some(verdict);
    }
    condemn(silent).await?.cancel(verdict);
    Some(verdict)
}

/// Notes what is seen of a connection in use, and returns how long its server is silent while it owes a response.
fn observe(record: &CheckoutRecord, now: &Moment, threshold: Duration) -> Duration {
    let (session, status) = (&record.session, &record.session.status);
    let still = status.still_for(now);
    lock(&record.episode).observe(session.unanswered(), still, now, threshold)
}

/// A connection that has idled for long may have died of that alone: what lies between forgets connections after a minute or
/// more.
const LATELY: Duration = Duration::from_secs(30);

/// How long a runtime may take to run a task.
const PATIENCE: Duration = Duration::from_secs(1);
