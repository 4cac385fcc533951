//! `/events`: what changes at the pool and, in front of a stand-in, on the stage, as server-sent events.
//!
//! They tell what this process knows, and never ask the database: a page that is open keeps no compute awake.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use diesel_neon::{Pool, Status};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::App;
use crate::problem::Problem;
use crate::stage::{Seen, Stage};

/// How many pages are told at a time.
const LISTENERS: usize = 16;
/// How often there is something new to tell.
const PAUSE: Duration = Duration::from_millis(250);

/// What listeners have in common.
#[derive(Clone)]
pub(crate) struct Events {
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    lifetime: Duration,
    /// Whether the database's own words are told.
    with_words: bool,
}

impl Events {
    /// Prepares answers that end after `lifetime`, or when the server stops. A browser then asks again by itself; so no
    /// answer takes longer than a request may.
    pub(crate) fn new(
        stopping: watch::Receiver<bool>,
        lifetime: Duration,
        with_words: bool,
    ) -> Self {
        Self {
            places: Arc::new(Semaphore::new(LISTENERS)),
            stopping,
            lifetime,
            with_words,
        }
    }
}

pub(crate) async fn events(State(app): State<App>) -> Result<Response, Problem> {
    let Ok(place) = Arc::clone(&app.events.places).try_acquire_owned() else {
        return Err(Problem::unavailable("Too many pages are open."));
    };
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener {
        until: Instant::now() + app.events.lifetime,
        pool: app.pool,
        stage: app.stage,
        events: app.events,
        ticks,
        begun: false,
        told: None,
        seen: Seen::default(),
        _place: place,
    };
    let body = Body::from_stream(stream::unfold(listener, Listener::next));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    Ok((headers, body).into_response())
}

/// A page that is told what is new to it.
struct Listener {
    pool: Pool,
    stage: Option<Arc<Stage>>,
    events: Events,
    ticks: Interval,
    until: Instant,
    begun: bool,
    told: Option<Told>,
    seen: Seen,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<String, Infallible>, Self)> {
        loop {
            tokio::select! {
                // An error says that the server has stopped.
                _ = self.events.stopping.wait_for(|stop| *stop) => return None,
                _ = self.ticks.tick() => {}
            }
            if Instant::now() >= self.until {
                return None;
            }
            let news = self.news();
            if !news.is_empty() {
                return Some((Ok(news), self));
            }
        }
    }

    fn news(&mut self) -> String {
        let mut news = String::new();
        let begins = !std::mem::replace(&mut self.begun, true);
        if begins {
            // How long a browser waits before it asks again, in milliseconds.
            news.push_str("retry: 250\n\n");
        }
        let status = self.pool.status();
        let told = Told::new(&status, self.events.with_words);
        if self.told.as_ref() != Some(&told) {
            let ages = Ages {
                last_failed_ms: status.last_failed.map(milliseconds),
                check_failed_ms: status.check_failed.map(milliseconds),
                told: &told,
            };
            event(&mut news, "pool", &ages);
            self.told = Some(told);
        }
        match &self.stage {
            Some(stage) => stage.tell(&mut self.seen, &mut |name, data| {
                event(&mut news, name, &data)
            }),
            // The page may still show the one of the server that was here before.
            None if begins => event(&mut news, "stage", &None::<()>),
            None => {}
        }
        news
    }
}

/// Adds an event with this data.
fn event(news: &mut String, name: &str, data: &impl Serialize) {
    let data = serde_json::to_string(data).expect("it has text for keys");
    // Writing to a string does not fail, and JSON has no line ends of its own.
    let _ = write!(news, "event: {name}\ndata: {data}\n\n");
}

/// What is told of the pool when any of it has changed.
#[derive(PartialEq, Serialize)]
struct Told {
    max_size: u32,
    size: u32,
    idle: u32,
    in_use: u32,
    checking: u32,
    suspect: u32,
    settling: u32,
    connecting: u32,
    waiting: usize,
    checks: [u64; 3],
    opened: u64,
    failed: u64,
    cold_starts: u64,
    last_connect_ms: u64,
    closed: String,
    last_failure: Option<String>,
    check_failure: Option<String>,
}

/// What else is told then. By itself it would change all the time.
#[derive(Serialize)]
struct Ages<'a> {
    last_failed_ms: Option<u64>,
    check_failed_ms: Option<u64>,
    #[serde(flatten)]
    told: &'a Told,
}

impl Told {
    fn new(status: &Status, with_words: bool) -> Self {
        let words = |said: String| match with_words {
            true => said,
            false => "the server's log says why".to_owned(),
        };
        Self {
            max_size: status.max_size,
            size: status.size,
            idle: status.idle,
            in_use: status.in_use,
            checking: status.checking,
            suspect: status.suspect,
            settling: status.settling,
            connecting: status.connecting,
            waiting: status.waiting,
            checks: [
                status.checks.passed,
                status.checks.failed,
                status.checks.skipped,
            ],
            opened: status.connects.opened,
            failed: status.connects.failed,
            cold_starts: status.connects.cold_starts,
            last_connect_ms: milliseconds(status.connects.last),
            closed: status.closed.to_string(),
            last_failure: status
                .last_failure
                .as_ref()
                .map(|e| words(format!("{e:?}"))),
            check_failure: status.check_failure.as_ref().map(|r| words(r.to_string())),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}
