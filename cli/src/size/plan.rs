//! [`Plan`]: how many connections each instance's pool may have, and on which endpoint.

use std::time::Duration;

use diesel_neon::Endpoint;
use serde::Serialize;

use super::compute::{POOLER_CLIENTS, RESERVED, server_connections};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) instances: u32,
    pub(super) max_connections: u32,
    pub(super) load: Option<Load>,
    /// The pool's size where no load is known.
    pub(super) usual_size: u32,
}

/// The queries of all instances together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) per_second: f64,
    /// How long a connection is in use for one of them.
    pub(super) mean_time: Duration,
}

/// What is best done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) endpoint: Endpoint,
    pub(super) max_size: u32,
    pub(super) direct: Room,
    pub(super) pooled: Room,
    /// How many transactions the pooler runs at a time.
    pub(super) server_connections: u32,
    pub(super) busy: Option<Busy>,
    pub(super) findings: Vec<Finding>,
}

/// What an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Room {
    pub(super) connections: u32,
    /// The largest `max_size` with which all instances fit; zero if they do not.
    pub(super) max_size_at_most: u32,
}

/// How many connections are in use at a time, by Little's law.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Busy {
    pub(super) mean: f64,
    pub(super) with_margin: u32,
    pub(super) each_mean: f64,
    pub(super) each_with_margin: u32,
}

/// What does not go well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) code: &'static str,
    pub(super) meaning: String,
    pub(super) mend: String,
}

/// How bad a finding is; a failure is worse than a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Warning,
    Failure,
}

impl Plan {
    /// Plans for instances that a deploy replaces: old and new ones run together for a while. If twice the
    /// connections fit on the direct endpoint, the pooler is not needed.
    pub(super) fn of(demand: &Demand) -> Self {
        let instances = demand.instances;
        let busy = demand.load.map(|load| Busy::of(load, instances));
        let usual = || {
            demand
                .usual_size
                .min(POOLER_CLIENTS / 2 / instances.max(1))
                .max(1)
        };
        let wanted = busy.map_or_else(usual, |busy| busy.each_with_margin);
        let direct = Room::of(demand.max_connections.saturating_sub(RESERVED), instances);
        let pooled = Room::of(POOLER_CLIENTS, instances);
        let (endpoint, room) = match in_a_deploy(instances, wanted) <= u64::from(direct.connections)
        {
            true => (Endpoint::Direct, direct),
            false => (Endpoint::Pooled, pooled),
        };
        let mut plan = Self {
            endpoint,
            max_size: wanted.min(room.max_size_at_most).max(1),
            direct,
            pooled,
            server_connections: server_connections(demand.max_connections),
            busy,
            findings: Vec::new(),
        };
        plan.findings.extend(plan.too_little(instances));
        plan.findings.extend(plan.queue());
        plan.findings.extend(plan.deploy(instances));
        plan
    }

    /// Returns the worst of the findings.
    pub(super) fn worst(&self) -> Option<Status> {
        self.findings.iter().map(|finding| finding.status).max()
    }

    /// Finds that the instances, or their load, do not fit on any endpoint.
    fn too_little(&self, instances: u32) -> Option<Finding> {
        let most = self.pooled.max_size_at_most;
        if most == 0 {
            return Some(Finding {
                status: Status::Failure,
                code: "too-many-instances",
                meaning: format!(
                    "{instances} instances cannot have one connection each: the pooler takes {POOLER_CLIENTS} clients"
                ),
                mend: "run fewer instances, or send statements over HTTPS (http::HttpConnection), which needs no session"
                    .to_owned(),
            });
        }
        let busy = self.busy.filter(|busy| busy.each_with_margin > most)?;
        Some(Finding {
            status: Status::Failure,
            code: "load-too-large",
            meaning: format!(
                "the load needs {} connections on each instance, and the pooler has room for {most}",
                busy.each_with_margin
            ),
            mend: "make the queries shorter, or spread the load over several computes".to_owned(),
        })
    }

    /// Finds that more transactions run at a time than the pooler lets through.
    fn queue(&self) -> Option<Finding> {
        let busy = self.busy.filter(|_| self.endpoint == Endpoint::Pooled)?;
        let most = self.server_connections;
        let mend = "make the queries shorter, or take a larger compute".to_owned();
        if busy.mean >= f64::from(most) {
            return Some(Finding {
                status: Status::Failure,
                code: "server-connections",
                meaning: format!(
                    "the load keeps {} transactions running at a time, and the pooler runs {most} for one role in one \
                     database: the others wait, more and more of them, and fail after 120 s",
                    short(busy.mean)
                ),
                mend,
            });
        }
        (busy.with_margin > most).then(|| Finding {
            status: Status::Warning,
            code: "server-connections-tight",
            meaning: format!(
                "a burst needs {} transactions at a time, and the pooler runs {most} for one role in one database: \
                 the others wait",
                busy.with_margin
            ),
            mend,
        })
    }

    /// Finds that old and new instances do not fit beside each other.
    fn deploy(&self, instances: u32) -> Option<Finding> {
        let both = in_a_deploy(instances, self.max_size);
        let room = match self.endpoint {
            Endpoint::Direct => self.direct,
            _ => self.pooled,
        };
        let fits = both <= u64::from(room.connections) || room.max_size_at_most == 0;
        (!fits).then(|| Finding {
            status: Status::Warning,
            code: "deploy",
            meaning: format!(
                "while a deploy runs old and new instances together, they may open {both} connections, and the {} \
                 endpoint takes {}",
                self.endpoint, room.connections
            ),
            mend: match room.connections / instances / 2 {
                0 => "replace a part of the instances at a time".to_owned(),
                each => format!("set max_size to {each}, or replace a part of the instances at a time"),
            },
        })
    }
}

impl Room {
    fn of(connections: u32, instances: u32) -> Self {
        Self {
            connections,
            max_size_at_most: connections / instances.max(1),
        }
    }
}

impl Busy {
    fn of(load: Load, instances: u32) -> Self {
        let mean = load.per_second * load.mean_time.as_secs_f64();
        let each_mean = mean / f64::from(instances.max(1));
        Self {
            mean,
            with_margin: with_margin(mean),
            each_mean,
            each_with_margin: with_margin(each_mean),
        }
    }
}

/// Adds three standard deviations of what arrives at random; a pool has one connection at least.
fn with_margin(mean: f64) -> u32 {
    ((mean + 3.0 * mean.sqrt()).ceil() as u32).max(1)
}

/// Returns how many connections old and new instances may open together.
pub(super) fn in_a_deploy(instances: u32, max_size: u32) -> u64 {
    u64::from(instances)
        .saturating_mul(u64::from(max_size))
        .saturating_mul(2)
}

/// Renders a number as short as it can be understood.
pub(super) fn short(number: f64) -> String {
    match number {
        0.0..0.01 => "less than 0.01".to_owned(),
        0.01..0.1 => format!("{number:.2}"),
        0.1..10.0 => {
            let text = format!("{number:.1}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        }
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(instances: u32, max_connections: u32, load: Option<(f64, u64)>) -> Plan {
        Plan::of(&Demand {
            instances,
            max_connections,
            load: load.map(|(per_second, millis)| Load {
                per_second,
                mean_time: Duration::from_millis(millis),
            }),
            usual_size: 10,
        })
    }

    fn codes(plan: &Plan) -> Vec<(Status, &str)> {
        plan.findings
            .iter()
            .map(|finding| (finding.status, finding.code))
            .collect()
    }

    #[test]
    fn few_instances_fit_on_the_direct_endpoint_in_a_deploy_too() {
        let fits = plan(4, 104, None);
        assert_eq!((fits.endpoint, fits.max_size), (Endpoint::Direct, 10));
        assert_eq!(
            (fits.direct.connections, fits.direct.max_size_at_most),
            (97, 24)
        );
        assert_eq!(codes(&fits), []);

        let more = plan(5, 104, None);
        assert_eq!((more.endpoint, more.max_size), (Endpoint::Pooled, 10));
        assert_eq!(
            (more.pooled.max_size_at_most, more.server_connections),
            (2000, 93)
        );
        assert_eq!(codes(&more), []);
        // All seven are Neon's.
        assert_eq!(plan(1, 7, None).endpoint, Endpoint::Pooled);
    }

    #[test]
    fn a_pool_is_as_large_as_its_load() {
        // 300 × 20 ms = 6 at a time, 1.5 for each of 4: 1.5 + 3 × 1.22 = 5.2.
        let four = plan(4, 839, Some((300.0, 20)));
        let busy = four.busy.unwrap();
        assert_eq!((busy.mean, busy.with_margin), (6.0, 14));
        assert_eq!((busy.each_mean, busy.each_with_margin), (1.5, 6));
        assert_eq!((four.endpoint, four.max_size), (Endpoint::Direct, 6));
        // A function for each request.
        let functions = plan(300, 104, Some((100.0, 50)));
        assert_eq!(
            (functions.endpoint, functions.max_size),
            (Endpoint::Pooled, 1)
        );
        assert_eq!(codes(&functions), []);
        assert_eq!(plan(1, 104, Some((0.001, 1))).max_size, 1);
    }

    #[test]
    fn a_load_that_the_pooler_queues_is_told() {
        let tight = plan(20, 104, Some((800.0, 100)));
        assert_eq!(tight.endpoint, Endpoint::Pooled);
        assert_eq!(
            codes(&tight),
            [(Status::Warning, "server-connections-tight")]
        );
        let over = plan(20, 104, Some((1000.0, 100)));
        assert_eq!(codes(&over), [(Status::Failure, "server-connections")]);
        assert_eq!(over.worst(), Some(Status::Failure));
        assert!(
            over.findings[0].meaning.contains("100 transactions"),
            "{over:?}"
        );
        // It is far from what a larger compute runs.
        assert_eq!(codes(&plan(20, 839, Some((1000.0, 100)))), []);
    }

    #[test]
    fn what_fits_on_no_endpoint_is_told() {
        let many = plan(10_001, 4000, None);
        assert_eq!(codes(&many), [(Status::Failure, "too-many-instances")]);
        assert_eq!(many.max_size, 1);
        let all = plan(10_000, 4000, None);
        assert_eq!(codes(&all), [(Status::Warning, "deploy")]);
        assert_eq!(all.max_size, 1);
        let large = plan(1, 4000, Some((1e9, 60_000)));
        assert_eq!(
            codes(&large),
            [
                (Status::Failure, "load-too-large"),
                (Status::Failure, "server-connections"),
                (Status::Warning, "deploy"),
            ]
        );
        assert_eq!(large.max_size, 10_000);
    }

    #[test]
    fn a_deploy_that_does_not_fit_is_told_with_a_size_that_does() {
        let deploy = plan(900, 4000, Some((850_000.0, 4)));
        assert_eq!((deploy.endpoint, deploy.max_size), (Endpoint::Pooled, 10));
        assert_eq!(codes(&deploy), [(Status::Warning, "deploy")]);
        let mend = &deploy.findings[0].mend;
        assert!(mend.starts_with("set max_size to 5, "), "{mend}");
        // Without a load, less will do.
        let usual = plan(900, 4000, None);
        assert_eq!((usual.max_size, codes(&usual)), (5, vec![]));
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (0.0, "less than 0.01"),
            (0.013, "0.01"),
            (0.15, "0.1"),
            (6.0, "6"),
            (1.5, "1.5"),
            (9.99, "10"),
            (1234.5, "1234"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
