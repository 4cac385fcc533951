//! Which environment variable serves which role.
//!
//! | role | variables, the first that is set wins |
//! |---|---|
//! | the app | `DATABASE_URL`, `POSTGRES_URL` |
//! | migrations, the `diesel` CLI, `LISTEN` | `DATABASE_URL_UNPOOLED`, `POSTGRES_URL_NON_POOLING`, `DIRECT_URL`, `PGHOST_UNPOOLED` with `PGUSER`, `PGPASSWORD`, `PGDATABASE` (and `PGPORT`), else the app's without its `-pooler` |
//!
//! These are the names that Neon's console, `neonctl env pull`, the Vercel integration and Prisma
//! users write. An empty variable counts as unset, since dashboards and CI systems leave such ones
//! behind; `POSTGRES_URL_NO_SSL` is never used.

use std::env::VarError;
use std::fmt;
use std::path::PathBuf;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::url::{DatabaseUrl, Endpoint, UrlError};

/// The URL for the app, as it is given: pooled or direct.
///
/// # Errors
///
/// [`EnvError`] says which variables were looked at, or which one cannot be used.
pub fn app_url() -> Result<Found, EnvError> {
    app_url_from(&process)
}

/// The URL that leads to Postgres itself, never to the pooler.
///
/// # Errors
///
/// [`EnvError`] says which variables were looked at, or which one cannot be used.
pub fn direct_url() -> Result<Found, EnvError> {
    direct_url_from(&process)
}

/// Sets what a `.env` file in this folder, or the nearest one above it, has and the environment has
/// not; does nothing where there is none.
///
/// Call it first thing in `main`, as the examples and the `diesel` CLI do; [`Pool::from_env`] leaves it
/// to you, since a library should not read files that nobody named.
///
/// [`Pool::from_env`]: crate::Pool::from_env
///
/// # Errors
///
/// [`EnvError::DotEnv`] where the file cannot be read or understood.
pub fn load_dotenv() -> Result<Option<PathBuf>, EnvError> {
    match dotenvy::dotenv() {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.not_found() => Ok(None),
        // The parse error quotes the line, which may hold a password.
        Err(dotenvy::Error::LineParse(_, at)) => Err(EnvError::DotEnv {
            reason: format!("a line cannot be understood from its byte {at} on; quote its value"),
        }),
        Err(error) => Err(EnvError::DotEnv {
            reason: error.to_string(),
        }),
    }
}

/// A URL, and where it was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// The URL.
    pub url: DatabaseUrl,
    /// The variable that it was read from.
    pub variable: &'static str,
    /// Whether `-pooler` had to be taken off what the variable says.
    pub derived: bool,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.variable)?;
        if self.derived {
            f.write_str(" without its -pooler")?;
        }
        Ok(())
    }
}

/// The environment does not say, or not usably, where the database is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// None of the variables is set.
    #[error(
        "no database URL in the environment: looked at {}; set DATABASE_URL to the connection string \
         from Neon's console, or put it into a .env file",
        .looked_at.join(", ")
    )]
    Missing {
        /// The variables that are unset or empty.
        looked_at: Vec<&'static str>,
    },
    /// A variable is set to something that is not a usable URL.
    #[error("{variable}: {source}")]
    Url {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        source: UrlError,
    },
    /// A variable is not UTF-8.
    #[error("{variable} is not UTF-8")]
    NotUtf8 {
        /// The variable.
        variable: &'static str,
    },
    /// `PGHOST_UNPOOLED` is set, but one that must go with it is not.
    #[error(
        "PGHOST_UNPOOLED is set, but {missing} is not: set it too, or set DATABASE_URL_UNPOOLED"
    )]
    Companion {
        /// The variable that is missing.
        missing: &'static str,
    },
    /// The `.env` file cannot be used.
    #[error("the .env file: {reason}")]
    DotEnv {
        /// Why not.
        reason: String,
    },
}

const APP: [&str; 2] = ["DATABASE_URL", "POSTGRES_URL"];
const DIRECT: [&str; 3] = [
    "DATABASE_URL_UNPOOLED",
    "POSTGRES_URL_NON_POOLING",
    "DIRECT_URL",
];
const HOST: &str = "PGHOST_UNPOOLED";

type Lookup<'a> = &'a dyn Fn(&'static str) -> Result<Option<String>, EnvError>;

fn process(variable: &'static str) -> Result<Option<String>, EnvError> {
    match std::env::var(variable) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(EnvError::NotUtf8 { variable }),
    }
}

fn app_url_from(lookup: Lookup<'_>) -> Result<Found, EnvError> {
    match first_of(&APP, lookup)? {
        Some(found) => Ok(found),
        None => Err(EnvError::Missing {
            looked_at: APP.to_vec(),
        }),
    }
}

fn direct_url_from(lookup: Lookup<'_>) -> Result<Found, EnvError> {
    let found = match first_of(&DIRECT, lookup)? {
        Some(found) => Some(found),
        None => match from_parts(lookup)? {
            Some(found) => Some(found),
            None => first_of(&APP, lookup)?,
        },
    };
    let Some(found) = found else {
        return Err(EnvError::Missing {
            looked_at: [&DIRECT[..], &[HOST], &APP].concat(),
        });
    };
    // Also a variable that should be direct: the pooler's URL pasted there is a common slip.
    Ok(Found {
        url: found.url.direct(),
        derived: found.url.endpoint() == Endpoint::Pooled,
        ..found
    })
}

fn first_of(variables: &[&'static str], lookup: Lookup<'_>) -> Result<Option<Found>, EnvError> {
    for variable in variables.iter().copied() {
        if let Some(text) = lookup(variable)? {
            return parse(variable, &text).map(Some);
        }
    }
    Ok(None)
}

/// The Vercel integration's variables for drivers that take no URL.
fn from_parts(lookup: Lookup<'_>) -> Result<Option<Found>, EnvError> {
    let Some(host) = lookup(HOST)? else {
        return Ok(None);
    };
    let companion = |missing| lookup(missing)?.ok_or(EnvError::Companion { missing });
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let text = format!(
        "postgresql://{}:{}@{host}:{}/{}",
        encode(&companion("PGUSER")?),
        encode(&companion("PGPASSWORD")?),
        lookup("PGPORT")?.as_deref().unwrap_or("5432"),
        encode(&companion("PGDATABASE")?),
    );
    parse(HOST, &text).map(Some)
}

fn parse(variable: &'static str, text: &str) -> Result<Found, EnvError> {
    match DatabaseUrl::parse(text) {
        Ok(url) => Ok(Found {
            url,
            variable,
            derived: false,
        }),
        Err(source) => Err(EnvError::Url { variable, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const POOLED: &str = "postgresql://u:p@ep-a-1-pooler.x.aws.neon.tech/db?sslmode=require";
    const DIRECT_A: &str = "postgresql://u:p@ep-a-1.x.aws.neon.tech/db?sslmode=require";
    const DIRECT_B: &str = "postgresql://u:p@ep-b-2.x.aws.neon.tech/db?sslmode=require";

    fn environment(
        variables: &[(&'static str, &'static str)],
    ) -> impl Fn(&'static str) -> Result<Option<String>, EnvError> + use<> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        move |name| {
            Ok(variables
                .get(name)
                .filter(|value| !value.is_empty())
                .map(|value| (*value).to_owned()))
        }
    }

    fn host(found: &Found) -> String {
        found.url.hosts()[0].name.to_string()
    }

    #[test]
    fn the_app_takes_the_url_that_it_is_given() {
        let found = app_url_from(&environment(&[
            ("DATABASE_URL", POOLED),
            ("POSTGRES_URL", DIRECT_B),
        ]))
        .unwrap();
        assert_eq!(host(&found), "ep-a-1-pooler.x.aws.neon.tech");
        assert_eq!(found.to_string(), "DATABASE_URL");
    }

    #[test]
    fn empty_counts_as_unset() {
        let found = app_url_from(&environment(&[
            ("DATABASE_URL", ""),
            ("POSTGRES_URL", DIRECT_B),
        ]));
        assert_eq!(found.unwrap().variable, "POSTGRES_URL");
    }

    #[test]
    fn the_url_without_tls_is_never_used() {
        let error = app_url_from(&environment(&[("POSTGRES_URL_NO_SSL", DIRECT_B)])).unwrap_err();
        assert_eq!(
            error,
            EnvError::Missing {
                looked_at: vec!["DATABASE_URL", "POSTGRES_URL"]
            }
        );
    }

    #[test]
    fn the_direct_url_is_looked_up_in_order() {
        let all = [
            ("DATABASE_URL_UNPOOLED", DIRECT_B),
            ("POSTGRES_URL_NON_POOLING", DIRECT_B),
            ("DIRECT_URL", DIRECT_B),
            ("PGHOST_UNPOOLED", "ep-c-3.x.aws.neon.tech"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "p@:/?#%"),
            ("PGDATABASE", "db"),
            ("DATABASE_URL", POOLED),
        ];
        for (skip, expected) in [
            (0, "DATABASE_URL_UNPOOLED"),
            (1, "POSTGRES_URL_NON_POOLING"),
            (2, "DIRECT_URL"),
            (3, "PGHOST_UNPOOLED"),
            (7, "DATABASE_URL without its -pooler"),
        ] {
            let found = direct_url_from(&environment(&all[skip..])).unwrap();
            assert_eq!(found.to_string(), expected);
            assert_eq!(found.url.endpoint(), Endpoint::Direct);
        }
        let parts = direct_url_from(&environment(&all[3..])).unwrap();
        assert_eq!(
            parts.url.to_tokio_postgres().get_password(),
            Some(&b"p@:/?#%"[..])
        );
    }

    #[test]
    fn a_pooled_url_in_a_direct_variable_is_made_direct() {
        let found = direct_url_from(&environment(&[("DIRECT_URL", POOLED)])).unwrap();
        assert_eq!(host(&found), "ep-a-1.x.aws.neon.tech");
        assert!(found.derived);
    }

    #[test]
    fn an_app_url_that_is_direct_serves_both_roles() {
        let found = direct_url_from(&environment(&[("DATABASE_URL", DIRECT_A)])).unwrap();
        assert!(!found.derived);
        assert_eq!(host(&found), "ep-a-1.x.aws.neon.tech");
    }

    #[test]
    fn errors_name_the_variables_and_hold_no_secret() {
        let missing = direct_url_from(&environment(&[])).unwrap_err().to_string();
        for variable in DIRECT.iter().chain(&APP).chain(&[HOST]) {
            assert!(missing.contains(variable), "{missing}");
        }

        let error = app_url_from(&environment(&[(
            "DATABASE_URL",
            "postgresql://u:s3cr/et@host/db",
        )]))
        .unwrap_err();
        assert!(error.to_string().starts_with("DATABASE_URL: "));
        assert!(!format!("{error} {error:?}").contains("s3cr"));

        let companion = direct_url_from(&environment(&[("PGHOST_UNPOOLED", "h.example")]));
        assert_eq!(
            companion.unwrap_err(),
            EnvError::Companion { missing: "PGUSER" }
        );
    }
}
