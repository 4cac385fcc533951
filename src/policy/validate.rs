//! Derives the settings that were not set, and checks them against one another.

use std::time::Duration;

use super::Policy;
use super::builder::PolicyBuilder;
use super::error::PolicyError;

impl PolicyBuilder {
    /// Derives the settings that were not set, and checks all against one another.
    ///
    /// # Errors
    ///
    /// Returns a [`PolicyError`] that names the settings that contradict.
    pub fn build(self) -> Result<Policy, PolicyError> {
        let policy = Policy::derive(&self);

        for (setting, value) in [
            (
                "suspend_after",
                policy.suspend_after.unwrap_or(Duration::MAX),
            ),
            ("max_lifetime", policy.max_lifetime),
            ("idle_timeout", policy.idle_timeout),
            ("checkout_timeout", policy.checkout_timeout),
            ("connect_timeout", policy.connect_timeout),
            ("validation_timeout", policy.validation_timeout),
            (
                "silence_threshold",
                policy.silence_threshold.unwrap_or(Duration::MAX),
            ),
            (
                "response_timeout",
                policy.response_timeout.unwrap_or(Duration::MAX),
            ),
        ] {
            if value.is_zero() {
                return Err(PolicyError::Zero { setting });
            }
        }
        // The default lifetime is 4/5 of the window, which must be longer than the least lifetime accordingly.
        for (setting, value, least) in [
            (
                "suspend_after",
                policy.suspend_after.unwrap_or(Duration::MAX),
                LEAST_LIFETIME / 4 * 5,
            ),
            ("max_lifetime", policy.max_lifetime, LEAST_LIFETIME),
        ] {
            if value < least {
                return Err(PolicyError::TooShort {
                    setting,
                    value,
                    least,
                });
            }
        }
        for (setting, value) in [
            ("max_size", policy.max_size),
            ("max_connecting", policy.max_connecting),
            ("retry_attempts", policy.retry_attempts),
        ] {
            if value == 0 {
                return Err(PolicyError::Zero { setting });
            }
        }
        for (setting, value) in [
            ("max_size", policy.max_size),
            ("max_connecting", policy.max_connecting),
        ] {
            if value > MOST_CONNECTIONS {
                return Err(PolicyError::TooMany {
                    setting,
                    value,
                    most: MOST_CONNECTIONS,
                });
            }
        }
        if policy.min_idle > 0 && policy.suspend_after.is_some() {
            return Err(PolicyError::KeepsAwake {
                setting: "min_idle",
            });
        }
        if policy.min_idle > policy.max_size {
            return Err(PolicyError::MoreThanMaxSize {
                setting: "min_idle",
            });
        }

        let below = |setting, value, limit_setting, limit| match value < limit {
            true => Ok(()),
            false => Err(PolicyError::NotBelow {
                setting,
                value,
                limit_setting,
                limit,
            }),
        };
        let at_most = |setting, value, limit_setting, limit| match value <= limit {
            true => Ok(()),
            false => Err(PolicyError::Above {
                setting,
                value,
                limit_setting,
                limit,
            }),
        };
        if let Some(window) = policy.suspend_after {
            below("max_lifetime", policy.max_lifetime, "suspend_after", window)?;
            below(
                "validation_bypass",
                policy.validation_bypass,
                "suspend_after",
                window,
            )?;
        }
        at_most(
            "idle_timeout",
            policy.idle_timeout,
            "max_lifetime",
            policy.max_lifetime,
        )?;
        at_most(
            "connect_timeout",
            policy.connect_timeout,
            "checkout_timeout",
            policy.checkout_timeout,
        )?;
        at_most(
            "validation_timeout",
            policy.validation_timeout,
            "checkout_timeout",
            policy.checkout_timeout,
        )?;
        Ok(policy)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::derive(&PolicyBuilder::default())
    }
}

impl Policy {
    fn derive(set: &PolicyBuilder) -> Self {
        let suspend_after = set.suspend_after.unwrap_or(Some(DEFAULT_WINDOW));
        let max_lifetime = set.max_lifetime.unwrap_or(match suspend_after {
            Some(window) => window / 5 * 4,
            None => Duration::from_secs(30 * 60),
        });
        let connect_timeout = set.connect_timeout.unwrap_or(match set.checkout_timeout {
            Some(timeout) => DEFAULT_CONNECT.min(timeout),
            None => DEFAULT_CONNECT,
        });
        let checkout_timeout = set
            .checkout_timeout
            .unwrap_or(DEFAULT_CHECKOUT.max(connect_timeout));
        Self {
            suspend_after,
            max_lifetime,
            idle_timeout: set.idle_timeout.unwrap_or(match suspend_after {
                Some(window) => (window / 2).min(max_lifetime),
                None => Duration::from_secs(10 * 60).min(max_lifetime),
            }),
            max_size: set.max_size.unwrap_or(10),
            checkout_timeout,
            connect_timeout,
            validation_timeout: set
                .validation_timeout
                .unwrap_or(DEFAULT_VALIDATION.min(connect_timeout)),
            validation_bypass: set
                .validation_bypass
                .unwrap_or((max_lifetime / 10).min(Duration::from_millis(500))),
            max_connecting: set.max_connecting.unwrap_or(4),
            min_idle: set.min_idle.unwrap_or(0),
            retry_attempts: set.retry_attempts.unwrap_or(5),
            retry_budget: set.retry_budget.unwrap_or(checkout_timeout),
            slow_checkout_threshold: set
                .slow_checkout_threshold
                .unwrap_or(Some(Duration::from_secs(2))),
            leak_detection_threshold: set
                .leak_detection_threshold
                .unwrap_or(Some(Duration::from_secs(60))),
            silence_threshold: set.silence_threshold,
            response_timeout: set.response_timeout,
            named_statements: set.named_statements,
            statement_cache: set.statement_cache.unwrap_or(DEFAULT_STATEMENTS),
        }
    }
}

/// With a shorter lifetime than its login takes, each connection would be replaced at once.
const LEAST_LIFETIME: Duration = Duration::from_millis(100);
/// The permits that a semaphore of tokio's can have on machines of 32 bits.
const MOST_CONNECTIONS: u32 = u32::MAX >> 3;
const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
const DEFAULT_CONNECT: Duration = Duration::from_secs(15);
const DEFAULT_CHECKOUT: Duration = Duration::from_secs(30);
const DEFAULT_VALIDATION: Duration = Duration::from_secs(2);
const DEFAULT_STATEMENTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn everything_follows_from_the_window() {
        let policy = Policy::default();
        assert_eq!(policy, Policy::builder().build().unwrap());
        assert_eq!(policy.max_lifetime(), secs(240));
        assert_eq!(policy.idle_timeout(), secs(150));

        let minute = Policy::builder().suspend_after(secs(60)).build().unwrap();
        assert_eq!(minute.max_lifetime(), secs(48));
        assert_eq!(minute.idle_timeout(), secs(30));

        let never = Policy::builder().never_suspends().build().unwrap();
        assert_eq!(never.max_lifetime(), secs(1800));
        assert_eq!(never.idle_timeout(), secs(600));
    }

    #[test]
    fn any_window_gives_a_policy_that_holds() {
        for millis in [125, 500, 999, 60_000, 300_000, 604_800_000] {
            let window = Duration::from_millis(millis);
            let policy = Policy::builder().suspend_after(window).build().unwrap();
            assert!(policy.max_lifetime() < window);
            assert!(policy.idle_timeout() <= policy.max_lifetime());
            assert!(policy.validation_bypass() < window);
        }
    }

    #[test]
    fn a_longer_connect_timeout_lengthens_what_contains_it() {
        let policy = Policy::builder().or_connect_timeout(Some(secs(45))).build();
        assert_eq!(policy.unwrap().checkout_timeout(), secs(45));
        let set = Policy::builder()
            .connect_timeout(secs(5))
            .or_connect_timeout(Some(secs(45)));
        assert_eq!(set.build().unwrap().connect_timeout(), secs(5));
    }

    #[test]
    fn a_shorter_checkout_timeout_shortens_what_it_contains() {
        let set = Policy::builder().checkout_timeout(secs(1));
        let policy = set.or_connect_timeout(Some(secs(30))).build().unwrap();
        assert_eq!(policy.connect_timeout(), secs(1));
        assert_eq!(policy.validation_timeout(), secs(1));
        assert_eq!(set.build().unwrap().connect_timeout(), secs(1));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let message = |builder: PolicyBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(
            message(Policy::builder().max_lifetime(secs(300))),
            "max_lifetime (300s) must be below suspend_after (300s)"
        );
        assert_eq!(
            message(Policy::builder().idle_timeout(secs(241))),
            "idle_timeout (241s) must not be above max_lifetime (240s)"
        );
        assert_eq!(
            message(
                Policy::builder()
                    .checkout_timeout(secs(10))
                    .connect_timeout(secs(15))
            ),
            "connect_timeout (15s) must not be above checkout_timeout (10s)"
        );
        assert_eq!(
            message(Policy::builder().max_size(0)),
            "max_size must be more than zero"
        );
        for (builder, setting) in [
            (Policy::builder().max_size(u32::MAX), "max_size"),
            (Policy::builder().max_connecting(1 << 29), "max_connecting"),
        ] {
            let message = message(builder);
            assert!(message.starts_with(setting), "{message}");
            assert!(message.contains("at most 536870911"), "{message}");
        }
        let most = (1 << 29) - 1;
        let most = Policy::builder().max_size(most).max_connecting(most);
        most.build().unwrap();
        let short =
            "must be at least 100ms: connections would be over before they can be handed out";
        let moment = Duration::from_micros(7);
        let lifetime = Policy::builder().max_lifetime(moment).idle_timeout(moment);
        assert_eq!(message(lifetime), format!("max_lifetime (7µs) {short}"));
        let window = Policy::builder().suspend_after(Duration::from_millis(120));
        assert_eq!(
            message(window),
            format!("suspend_after (120ms) {}", short.replace("100", "125"))
        );
        assert_eq!(
            message(Policy::builder().validation_bypass(secs(400))),
            "validation_bypass (400s) must be below suspend_after (300s)"
        );
    }

    #[test]
    fn what_keeps_a_compute_awake_is_refused_where_it_could_sleep() {
        let error = Policy::builder().min_idle(1).build().unwrap_err();
        assert!(error.to_string().contains("never_suspends"), "{error}");
        let awake = Policy::builder().min_idle(1).never_suspends();
        assert_eq!(awake.build().unwrap().min_idle(), 1);
        awake.min_idle(11).build().unwrap_err();
    }
}
