//! Which URLs the environment gives, and what is in them.

use std::env;

use diesel_neon::env::{EnvError, ResolvedUrl, Source, app_url, direct_url, load_dotenv};
use diesel_neon::{Encryption, Endpoint, HostName, RootCertificates, UrlError};

use super::report::{Check, EndpointSummary, Finding, Role};
use super::websocket::Way;

/// A URL to look at, and the roles that it serves.
pub(crate) struct Target {
    pub(crate) found: ResolvedUrl,
    pub(crate) summary: EndpointSummary,
}

impl Target {
    /// Returns the role that names its checks.
    pub(crate) fn role(&self) -> Role {
        self.summary.roles[0]
    }

    pub(crate) fn serves(&self, role: Role) -> bool {
        self.summary.roles.contains(&role)
    }

    fn new(role: Role, found: ResolvedUrl) -> Self {
        let file = match &found.source {
            Source::File(path) => Some(path.display().to_string()),
            _ => None,
        };
        let summary = EndpointSummary {
            roles: vec![role],
            kind: found.url.endpoint().to_string(),
            variable: found.variable,
            file,
            derived: found.derived,
            url: found.url.to_string(),
        };
        Self { found, summary }
    }
}

/// Returns the URLs to look at, equal ones once, and what is wrong with the environment. A `way` takes the place of the
/// URLs' own.
pub(super) fn targets(way: Option<Way>) -> (Vec<Target>, Vec<Check>) {
    let mut checks = Vec::new();
    if let Err(error) = load_dotenv() {
        let finding = Finding::new(
            "dotenv-invalid",
            "nothing that stands in it counts",
            "mend that line, or take it out",
        );
        let finding = finding.with_error(format!("{error:?}"));
        checks.push(Check::failure(
            "environment",
            "the .env file cannot be used",
            finding,
        ));
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut failures: Vec<EnvError> = Vec::new();
    for (role, found) in [(Role::App, app_url()), (Role::Direct, direct_url())] {
        match found.and_then(|found| over(found, way)) {
            Ok(found) => match targets.first_mut() {
                Some(first) if first.found.url == found.url => {
                    first.summary.roles.push(role);
                    checks.extend(misnamed(&found));
                }
                _ => {
                    checks.extend(misnamed(&found).filter(|_| role == Role::Direct));
                    targets.push(Target::new(role, found));
                }
            },
            // One variable may fail both roles.
            Err(error) if failures.contains(&error) => {}
            Err(error @ EnvError::Missing { .. })
                if failures
                    .iter()
                    .any(|e| matches!(e, EnvError::Missing { .. })) =>
            {
                failures.push(error);
            }
            Err(error) => {
                let (summary, finding) = unusable(role, &error);
                let mut check = Check::failure("environment", summary, finding);
                check.endpoint = Some(role);
                checks.push(check);
                failures.push(error);
            }
        }
    }
    (targets, checks)
}

fn over(found: ResolvedUrl, way: Option<Way>) -> Result<ResolvedUrl, EnvError> {
    let url = match way {
        Some(way) => way.url(&found.url),
        None => Ok(found.url.clone()),
    };
    let variable = found.variable;
    let mut found = found;
    found.url = url.map_err(|source| EnvError::Url { variable, source })?;
    Ok(found)
}

/// Warns of a pooled URL in a variable for the direct one.
fn misnamed(found: &ResolvedUrl) -> Option<Check> {
    let is_the_apps = ["DATABASE_URL", "POSTGRES_URL"].contains(&found.variable);
    (found.derived && !is_the_apps).then(|| {
        let mut check = Check::warning(
            "environment",
            format!("{} holds a pooled URL", found.variable),
            Finding::new(
                "pooled-direct-url",
                "migrations need a session of their own, which the pooler does not give; diesel-neon takes \
                 the -pooler off, other tools do not",
                format!(
                    "set {} to the connection string that the console shows with pooling switched off",
                    found.variable
                ),
            ),
        );
        check.endpoint = Some(Role::Direct);
        check
    })
}

fn unusable(role: Role, error: &EnvError) -> (String, Finding) {
    let role = match role {
        Role::App => "app",
        Role::Direct => "direct",
    };
    let (code, meaning, mend) = match error {
        EnvError::Missing { .. } => (
            "url-missing",
            "nothing says where the database is",
            "set DATABASE_URL to the connection string from Neon's console, or put it into a .env file",
        ),
        EnvError::Url { source, .. } => match source {
            UrlError::Insecure { .. } => (
                "sslmode-weak",
                "the password and the data would go over the network unprotected",
                "use sslmode=verify-full (require means the same here)",
            ),
            UrlError::UnknownParameter { .. } | UrlError::HiddenParameter => (
                "parameter-unknown",
                "neither libpq nor this crate knows the parameter: leaving it out could change what is meant",
                "remove it, or correct its spelling",
            ),
            UrlError::UnsupportedParameter { .. } => (
                "parameter-unsupported",
                "libpq knows the parameter, this crate cannot honour it",
                "remove it",
            ),
            UrlError::InvalidValue { .. } | UrlError::Count { .. } | UrlError::NeedsTls { .. } => (
                "parameter-invalid",
                "a parameter has a value that it cannot have",
                "correct it as the error says",
            ),
            UrlError::Malformed => (
                "url-invalid",
                "the URL cannot be read",
                "copy the connection string from Neon's console again; percent-encode special characters in \
                 the password",
            ),
            _ => (
                "url-invalid",
                "the URL cannot be read",
                "correct it as the error says, or copy the connection string from Neon's console again",
            ),
        },
        EnvError::Companion { .. } => (
            "variable-missing",
            "the PG… variables are used together",
            "set it too, or set DATABASE_URL_UNPOOLED",
        ),
        EnvError::DatabaseMismatch(_) => (
            "different-databases",
            "the app's URL was overridden and the direct one was not: migrations would change another \
             database than the app uses",
            "override both, or set the direct one to nothing for this command, so that it is derived",
        ),
        EnvError::MixedSources { .. } => (
            "variables-scattered",
            "the PG… variables are used together, and these were not meant for each other",
            "set them in one place, or set DATABASE_URL_UNPOOLED",
        ),
        _ => (
            "variable-unusable",
            "the variable cannot be read",
            "set it again",
        ),
    };
    let finding = Finding::new(code, meaning, mend).with_error(format!("{error:?}"));
    (format!("the {role} URL cannot be used"), finding)
}

/// The parameters that libpq does not know.
const OWN_PARAMETERS: [&str; 5] = [
    "allow_plaintext_to_private_network",
    "https_port",
    "keepalives_retries",
    "pipeline_login",
    "transport",
];

/// Returns what the URL's parameters mean to this crate, and to other tools that get the same URL.
pub(crate) fn parameters(target: &Target) -> Vec<Check> {
    let url = &target.found.url;
    let keys = raw_parameters(target.found.variable);
    let names = |keys: &[(String, String)]| -> Vec<String> {
        keys.iter().map(|(key, _)| key.clone()).collect()
    };
    let alien: Vec<_> = keys
        .iter()
        .filter(|(key, _)| url.ignored().contains(key))
        .cloned()
        .collect();
    let chokes: Vec<_> = keys
        .iter()
        .filter(|(key, value)| {
            let alone = format!("postgresql://h/?{key}={value}");
            alone.parse::<tokio_postgres::Config>().is_err()
        })
        .cloned()
        .collect();

    let mut details = Vec::new();
    if !chokes.is_empty() {
        details.push(format!(
            "tokio-postgres by itself would refuse: {}; diesel-neon translates",
            shown(&chokes)
        ));
    }
    let not_libpqs = |key: &str| {
        OWN_PARAMETERS.contains(&key) || url.ignored().iter().any(|ignored| ignored == key)
    };
    let refused: Vec<_> = keys
        .iter()
        .filter(|(key, _)| not_libpqs(key))
        .cloned()
        .collect();
    if refused.len() > alien.len() {
        details.push(format!(
            "libpq (psql, the diesel CLI) by itself would refuse: {}; diesel-neon translates",
            shown(&refused)
        ));
    }
    let recent: Vec<_> = keys
        .iter()
        .filter_map(|(key, value)| libpq_since(key, value))
        .collect();
    if !recent.is_empty() {
        details.push(format!(
            "needs a recent libpq elsewhere: {}",
            recent.join(", ")
        ));
    }
    if keys.iter().any(|(key, _)| key == "tcp_user_timeout") {
        details.push("tcp_user_timeout is in milliseconds here as in libpq; tokio-postgres by itself reads seconds".to_owned());
    }
    let summary = match keys.len() {
        0 => "none".to_owned(),
        _ => names(&keys).join(", "),
    };
    let mut check = if alien.is_empty() {
        Check::ok("parameters", summary)
    } else {
        Check::warning(
            "parameters",
            format!("ignored here: {}", url.ignored().join(", ")),
            Finding::new(
                "parameter-alien",
                "they are settings of other ORMs; libpq (psql, the diesel CLI) refuses a URL that has them",
                "remove them from this URL; or reach those tools through diesel-neon diesel and \
                 diesel-neon url, which leave them out",
            ),
        )
    };
    check.details = details;
    let check = check
        .fact("given", names(&keys))
        .fact("ignored", url.ignored().to_vec())
        .fact("tokio_postgres_refuses", names(&chokes))
        .fact("libpq_refuses", names(&refused));
    [Some(check), encryption(target, &keys)]
        .into_iter()
        .flatten()
        .collect()
}

fn encryption(target: &Target, keys: &[(String, String)]) -> Option<Check> {
    let url = &target.found.url;
    let given = keys
        .iter()
        .find(|(key, _)| key == "sslmode" || key == "ssl");
    let given = given.map(|(_, value)| value.as_str());
    Some(match url.encryption() {
        Encryption::Plain => {
            let reach = match url.allows_plaintext_to_private_network() {
                true => "plain text, on this machine and to private addresses",
                false => "plain text, on this machine only",
            };
            Check::ok("sslmode", reach).fact("sslmode", given)
        }
        Encryption::Tls { roots, .. } => {
            let roots = match roots {
                RootCertificates::System => "the system's roots".to_owned(),
                RootCertificates::File(path) => format!("the roots in {}", path.display()),
                _ => "other roots".to_owned(),
            };
            let check = match given {
                // The PG… variables have no sslmode.
                None if target.found.variable != "PGHOST_UNPOOLED" => Check::warning(
                    "sslmode",
                    "none given: verify-full here",
                    Finding::new(
                        "sslmode-missing",
                        "other tools fall back to prefer, which verifies nobody and gives in to plain text",
                        "add sslmode=verify-full to the URL",
                    ),
                ),
                Some(mode) if mode != "verify-full" => Check::ok(
                    "sslmode",
                    format!("{mode}, which means verify-full here, with {roots}"),
                ),
                _ => Check::ok("sslmode", format!("verify-full, with {roots}")),
            };
            check.fact("sslmode", given)
        }
        _ => return None,
    })
}

/// Returns the endpoint as the server will take it from the URL.
pub(crate) fn endpoint(target: &Target) -> Check {
    let url = &target.found.url;
    let host = url.hosts().first();
    let label = host.and_then(|host| match &host.name {
        HostName::Tcp(name) if name.parse::<std::net::IpAddr>().is_err() => name
            .split('.')
            .next()
            .filter(|label| label.starts_with("ep-")),
        _ => None,
    });
    let kind = url.endpoint();
    let summary = match (label, kind) {
        (Some(label), _) => format!("{label}, {kind}, from the host name"),
        (None, Endpoint::Pooled) => "pooled, from the endpoint option".to_owned(),
        (None, Endpoint::Direct) => "not Neon's, or not told from the host name".to_owned(),
    };
    Check::ok("endpoint", summary)
        .fact(
            "endpoint",
            label.map(|label| label.trim_end_matches("-pooler")),
        )
        .fact("kind", kind.to_string())
}

/// Returns the query's parameters as they stand in the variable. The URL has been parsed, so no key is a secret.
fn raw_parameters(variable: &str) -> Vec<(String, String)> {
    let text = match env::var(variable) {
        Ok(text) if variable != "PGHOST_UNPOOLED" => text,
        _ => return Vec::new(),
    };
    let query = match text.trim().split_once('?') {
        Some((_, query)) => query.trim_end_matches(['\'', '"']),
        None => return Vec::new(),
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Joins the names of parameters; values are shown only if they cannot be secrets.
fn shown(pairs: &[(String, String)]) -> String {
    let shown = pairs.iter().map(|(key, value)| match key.as_str() {
        "sslmode" => format!("sslmode={value}"),
        _ => key.clone(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn libpq_since(key: &str, value: &str) -> Option<String> {
    let since = match (key, value) {
        ("sslnegotiation", _) => 17,
        ("sslrootcert", "system") | ("load_balance_hosts", _) => 16,
        ("channel_binding", _) => 13,
        _ => return None,
    };
    Some(format!("{key} ({since})"))
}
