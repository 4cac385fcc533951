//! The findings so far.

use super::Doctor;
use super::environment::Target;
use super::report::{Check, Role, Status};

impl Doctor<'_> {
    pub(super) fn put(&mut self, mut check: Check) {
        check.tame(&self.secrets);
        self.page.check(&check);
        self.checks.push(check);
    }

    pub(super) fn skip(&mut self, role: Option<Role>, names: &[&'static str], why: &str) {
        self.page.skipped(names, why);
        for name in names {
            let mut check = Check::skipped(name, why);
            check.endpoint = role;
            self.checks.push(check);
        }
    }

    /// Skips the checks of an endpoint that come after the one that has `failed`.
    pub(super) fn skip_behind(&mut self, target: &Target, failed: &str, why: &str) {
        let names = EVERYTHING
            .iter()
            .skip_while(|name| **name != failed)
            .skip(1);
        let names = names.filter(|name| match **name {
            "connections" => target.serves(Role::App),
            "migrations" => target.serves(Role::Direct),
            _ => true,
        });
        let names: Vec<_> = names.copied().collect();
        self.skip(Some(target.role()), &names, why);
    }

    pub(super) fn last_failed(&self, name: &str) -> bool {
        let last = self.checks.last();
        last.is_some_and(|check| check.check == name && check.status == Status::Failure)
    }

    pub(super) fn know(&mut self, target: &Target) {
        if let Some(password) = target.found.url.password() {
            let is_a_name =
                [target.found.url.user(), target.found.url.database()].contains(&Some(password));
            if !is_a_name {
                self.secrets.push(password.to_owned());
            }
        }
    }
}

/// The checks of one endpoint, in the order in which they are made.
pub(super) const EVERYTHING: &[&str] = &[
    "parameters",
    "sslmode",
    "dns",
    "tcp",
    "tls",
    "endpoint",
    "authentication",
    "start",
    "server",
    "round-trip",
    "connections",
    "pooler",
    "statements",
    "activity",
    "migrations",
];
