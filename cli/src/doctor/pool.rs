//! The numbers of a pool with these settings.

use std::time::Duration;

use diesel_neon::Policy;

use super::Doctor;
use super::environment::Target;
use super::report::{Check, Finding, Status};
use crate::duration::Window;

impl Doctor<'_> {
    pub(super) fn pool(&mut self, target: &Target) {
        let policy = self.policy(target);
        let seconds = |duration: Duration| format!("{} s", duration.as_secs_f64());
        let window = match policy.suspend_after() {
            Some(window) => format!("the compute is suspended after {}", seconds(window)),
            None => "the compute is never suspended".to_owned(),
        };
        let check = Check::ok("pool", window)
            .detail(format!(
                "at most {} connections; each lives for {} at most, {} when idle",
                policy.max_size(),
                seconds(policy.max_lifetime()),
                seconds(policy.idle_timeout())
            ))
            .detail(format!(
                "a connect, cold start and retries included, may take {}; a caller waits for {} at most",
                seconds(policy.connect_timeout()),
                seconds(policy.checkout_timeout())
            ))
            .detail(format!(
                "a connection that was quiet for {} is checked before it is handed out, which may take {}",
                seconds(policy.validation_bypass()),
                seconds(policy.validation_timeout())
            ))
            .detail("an idle pool sends nothing, so the compute can sleep")
            .fact("suspend_after_seconds", policy.suspend_after().map(|d| d.as_secs_f64()))
            .fact("max_size", policy.max_size())
            .fact("max_lifetime_seconds", policy.max_lifetime().as_secs_f64())
            .fact("idle_timeout_seconds", policy.idle_timeout().as_secs_f64())
            .fact("connect_timeout_seconds", policy.connect_timeout().as_secs_f64())
            .fact("checkout_timeout_seconds", policy.checkout_timeout().as_secs_f64());
        let short = policy.connect_timeout() < COLD_START;
        self.put(match short {
            true => check.found(
                Status::Warning,
                Finding::new(
                    "connect-timeout-short",
                    "a cold start happens inside connect_timeout, and may take longer than that",
                    "set connect_timeout to 15 in the URL, or leave it out",
                ),
            ),
            false => check,
        });
        let minimum = Duration::from_secs(60);
        if policy
            .suspend_after()
            .is_some_and(|window| window < minimum)
        {
            self.put(Check::warning(
                "pool",
                "suspend_after is below 60 s",
                Finding::new(
                    "window-short",
                    "Neon has no shorter window; the pool would only reconnect more often",
                    "use the value from the console, at least 60s",
                ),
            ));
        }
    }

    /// Returns the policy of a pool with these settings and this URL.
    pub(super) fn policy(&self, target: &Target) -> Policy {
        let mut builder = Policy::builder();
        if let Some(max_size) = self.options.max_size {
            builder = builder.max_size(max_size);
        }
        match self.options.suspend_after {
            Some(Window::After(window)) => builder = builder.suspend_after(window),
            Some(Window::Never) => builder = builder.never_suspends(),
            None => {}
        }
        if let Some(timeout) = target.found.url.connect_timeout() {
            builder = builder.connect_timeout(timeout);
        }
        // These settings cannot contradict each other: the others are derived from them.
        builder.build().unwrap_or_default()
    }

    pub(super) fn limit(&self, target: &Target) -> Duration {
        let default = || self.policy(target).connect_timeout();
        self.options.timeout.unwrap_or_else(default)
    }
}

/// Neon's guide asks for ten seconds at least; within less than this even ordinary cold starts fail.
const COLD_START: Duration = Duration::from_secs(5);
