//! From a request to what it orders.

use std::borrow::Cow;
use std::time::Duration;

use url::form_urlencoded;

use crate::control::event::Suspension;

/// What a POST asks for: a method of [`NeonSim`](crate::NeonSim), by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Suspend(Suspension),
    Wake,
    FailWakes { times: u64, message: String },
    RefuseConnections { times: u64, message: String },
    HangConnections { times: u64 },
    LoseRequests,
    LoseResponses,
    RestartPostgres { down: Duration },
    SetColdStart(Duration),
    ClearFaults,
}

impl Order {
    /// Reads an order; returns nothing for a name that none has, and an error in words for a parameter that does not fit.
    pub(super) fn parse(name: &str, query: &str) -> Option<Result<Self, String>> {
        let parameters = Parameters(query);
        let order = match name {
            "suspend" => parameters.suspension().map(Self::Suspend),
            "wake" => Ok(Self::Wake),
            "fail_wakes" => parameters
                .times_and_message()
                .map(|(times, message)| Self::FailWakes { times, message }),
            "refuse_connections" => parameters
                .times_and_message()
                .map(|(times, message)| Self::RefuseConnections { times, message }),
            "hang_connections" => parameters
                .number("times")
                .map(|times| Self::HangConnections { times }),
            "lose_requests" => Ok(Self::LoseRequests),
            "lose_responses" => Ok(Self::LoseResponses),
            "restart_postgres" => parameters
                .milliseconds()
                .map(|down| Self::RestartPostgres { down }),
            "set_cold_start" => parameters.milliseconds().map(Self::SetColdStart),
            "clear_faults" => Ok(Self::ClearFaults),
            _ => return None,
        };
        Some(order)
    }
}

/// The parameters behind the `?` of a request.
struct Parameters<'a>(&'a str);

impl Parameters<'_> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut pairs = form_urlencoded::parse(self.0.as_bytes());
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        let number = self.value(name).and_then(|value| value.parse().ok());
        number.ok_or_else(|| format!("`{name}` is a whole number"))
    }

    fn milliseconds(&self) -> Result<Duration, String> {
        self.number("milliseconds").map(Duration::from_millis)
    }

    fn times_and_message(&self) -> Result<(u64, String), String> {
        let times = self.number("times")?;
        let message = self.value("message").ok_or("`message` is missing")?;
        Ok((times, message.into_owned()))
    }

    fn suspension(&self) -> Result<Suspension, String> {
        match self.value("suspension").as_deref() {
            None | Some("normal") => Ok(Suspension::Normal),
            Some("reset") => Ok(Suspension::Reset),
            Some("silent") => Ok(Suspension::Silent),
            Some(_) => Err("`suspension` is `normal`, `reset` or `silent`".into()),
        }
    }
}
