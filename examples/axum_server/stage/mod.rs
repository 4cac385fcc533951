//! What only a stand-in for Neon can do, for the page: faults at the press of a button, the compute on a time line, and the
//! app's pool beside a stock one under the same load.
//!
//! It is there only if the server is started with the address of the stand-in's control, and served over loopback alone.

mod control;
mod load;
mod stock;
mod timeline;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::post;
use diesel_neon::{DatabaseUrl, Host, Pool};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::sleep;

pub(crate) use self::control::Control;
use self::control::ControlError;
use self::load::Load;
use self::stock::Stock;
use self::timeline::Timeline;
use crate::extract::Json;
use crate::origin::same_origin;
use crate::problem::Problem;
use crate::{App, Failure};

/// How long a wake-up takes that is slow, in milliseconds.
const SLOW_START: u64 = 4000;
/// How long PostgreSQL is down when it restarts.
const DOWN: Duration = Duration::from_secs(1);
/// More often than any test or person needs.
const ALWAYS: u64 = 1_000_000;
/// What Neon's proxy says when its control plane is busy.
const NO_WAKE: &str = "Control plane request failed: endpoint is temporarily unavailable. Check your quotas and/or contact our \
    support.";

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/stage", post(act))
        .route_layer(middleware::from_fn(same_origin))
}

/// A stand-in, and what is done in front of it.
pub(crate) struct Stage {
    control: Control,
    timeline: Timeline,
    load: Arc<Load>,
    /// Whether the app's pool looks after statements whose server is silent.
    looks_after_silence: bool,
    switches: watch::Sender<Switches>,
    /// Held while switches are set, so that the stand-in is told of one after another. It has how long a wake-up takes that is
    /// not slow, in milliseconds, once that is known.
    setting: Mutex<Option<u64>>,
}

/// What stays as it is until it is switched back.
#[derive(Clone, Copy, Default, PartialEq, Serialize)]
struct Switches {
    refuse_wakes: bool,
    slow_start: bool,
    cut_network: bool,
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Action {
    Suspend { how: How },
    RefuseWakes { on: bool },
    SlowStart { on: bool },
    Restart,
    CutNetwork { on: bool },
    Load { on: bool },
}

/// How the sessions of a suspended compute end.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Normal,
    Reset,
    Silent,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Reset => "reset",
            Self::Silent => "silent",
        }
    }
}

async fn act(State(app): State<App>, Json(action): Json<Action>) -> Result<StatusCode, Problem> {
    let Some(stage) = &app.stage else {
        let detail = "This server is not in front of a stand-in.";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    // A task of its own: what takes several orders is done to its end, whether or not the page waits for it.
    let stage = Arc::clone(stage);
    let acting = tokio::spawn(async move { stage.act(action).await });
    match acting.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "no stand-in");
            let detail = "The stand-in for Neon does not answer.";
            Err(Problem::new(StatusCode::BAD_GATEWAY, detail))
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "no order given");
            Err(Problem::internal())
        }
    }
}

impl Stage {
    /// Sets the stage for a pool, and for a stock one of the database's direct endpoint. Follows the stand-in until the
    /// runtime ends.
    pub(crate) fn new(
        control: Control,
        pool: Pool,
        url: &DatabaseUrl,
    ) -> Result<Arc<Self>, Failure> {
        let is_here = |host: &Host| host.address.is_some_and(|address| address.is_loopback());
        if !url.hosts().iter().all(is_here) {
            let words = "NEON_SIM_CONTROL is for the stand-in's own DATABASE_URL: its load is for no other database";
            return Err(Failure(words.into()));
        }
        let timeline = Timeline::default();
        let looks_after_silence = pool.policy().silence_threshold().is_some();
        let load = Load::new(pool, Stock::new(&url.direct())?, timeline.clock());
        let stage = Arc::new(Self {
            control,
            timeline,
            load,
            looks_after_silence,
            switches: watch::Sender::default(),
            setting: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&stage).follow());
        Ok(stage)
    }

    async fn follow(self: Arc<Self>) {
        loop {
            let note = |event: &Value| {
                if let Some(compute) = event["compute"].as_str() {
                    self.timeline.note(compute);
                }
            };
            if let Err(error) = self.control.follow(note).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "no stand-in");
            }
            self.timeline.note("unknown");
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn act(&self, action: Action) -> Result<(), ControlError> {
        match action {
            Action::Load { on } => {
                self.load.switch(on);
                Ok(())
            }
            Action::Suspend { how } => {
                self.timeline.mark(match how {
                    How::Normal => "suspended",
                    How::Reset => "suspended, sessions reset",
                    How::Silent => "suspended without a word",
                });
                let order = format!("suspend?suspension={}", how.name());
                self.control.order(&order).await
            }
            Action::Restart => {
                self.timeline.mark("restart");
                let order = format!("restart_postgres?milliseconds={}", DOWN.as_millis());
                self.control.order(&order).await
            }
            Action::RefuseWakes { on } => self.switch(|all| all.refuse_wakes = on).await,
            Action::SlowStart { on } => self.switch(|all| all.slow_start = on).await,
            Action::CutNetwork { on } => self.switch(|all| all.cut_network = on).await,
        }
    }

    /// Changes a switch, and tells the stand-in what is different then.
    async fn switch(&self, change: impl FnOnce(&mut Switches)) -> Result<(), ControlError> {
        let mut setting = self.setting.lock().await;
        let before = *self.switches.borrow();
        let mut after = before;
        change(&mut after);
        if after.slow_start != before.slow_start {
            let usual = match *setting {
                Some(usual) => usual,
                None => *setting.insert(self.cold_start().await?),
            };
            let milliseconds = if after.slow_start { SLOW_START } else { usual };
            let order = format!("set_cold_start?milliseconds={milliseconds}");
            self.control.order(&order).await?;
        }
        // The stand-in can only clear all faults together.
        let is_over = |before: bool, after: bool| before && !after;
        let clear = is_over(before.refuse_wakes, after.refuse_wakes)
            || is_over(before.cut_network, after.cut_network);
        if clear {
            self.control.order("clear_faults").await?;
        }
        if after.refuse_wakes && (clear || !before.refuse_wakes) {
            let message = NO_WAKE.replace(' ', "+");
            let order = format!("fail_wakes?times={ALWAYS}&message={message}");
            self.control.order(&order).await?;
        }
        if after.cut_network && (clear || !before.cut_network) {
            let hang = format!("hang_connections?times={ALWAYS}");
            for order in ["lose_requests", "lose_responses", &hang] {
                self.control.order(order).await?;
            }
        }
        if after.cut_network != before.cut_network {
            let now = if after.cut_network {
                "network cut"
            } else {
                "network mended"
            };
            self.timeline.mark(now);
        }
        self.switches.send_replace(after);
        Ok(())
    }

    /// Returns how long a wake-up takes as it is now, in milliseconds.
    async fn cold_start(&self) -> Result<u64, ControlError> {
        let state = self.control.state().await?;
        Ok(state["cold_start_ms"].as_u64().unwrap_or_default())
    }

    /// Tells what a listener has not seen yet.
    pub(crate) fn tell(&self, seen: &mut Seen, tell: &mut dyn FnMut(&'static str, Value)) {
        let switches = (*self.switches.borrow(), self.load.is_on());
        if seen.switches.replace(switches) != Some(switches) {
            let (faults, load) = switches;
            let mut on = serde_json::to_value(faults).expect("it has text for keys");
            on["load"] = load.into();
            on["looks_after_silence"] = self.looks_after_silence.into();
            tell("stage", on);
        }
        if let Some(compute) = self.timeline.news(&mut seen.notes) {
            tell("compute", compute);
        }
        if let Some(samples) = self.load.news(&mut seen.samples) {
            tell("load", samples);
        }
    }
}

/// What a listener has been told.
#[derive(Default)]
pub(crate) struct Seen {
    switches: Option<(Switches, bool)>,
    notes: Option<u64>,
    samples: Option<u64>,
}
