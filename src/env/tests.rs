use std::collections::HashMap;

use super::*;

const POOLED: &str = "postgresql://u:p@ep-a-1-pooler.x.aws.neon.tech/db?sslmode=require";
const DIRECT_A: &str = "postgresql://u:p@ep-a-1.x.aws.neon.tech/db?sslmode=require";
const DIRECT_B: &str = "postgresql://u:p@ep-b-2.x.aws.neon.tech/db?sslmode=require";

type Outcome = Result<Option<(String, Source)>, EnvError>;

fn environment(
    variables: &[(&'static str, &'static str)],
) -> impl Fn(&'static str) -> Outcome + use<> {
    layered(variables, &[])
}

/// Looks a variable up in the environment first, then in a file.
fn layered(
    variables: &[(&'static str, &'static str)],
    file: &[(&'static str, &'static str)],
) -> impl Fn(&'static str) -> Outcome + use<> {
    let values = |these: &[(&'static str, &'static str)]| -> HashMap<_, _> {
        these.iter().copied().collect()
    };
    let (variables, file) = (values(variables), values(file));
    move |name| {
        let here = variables
            .get(name)
            .map(|value| (*value, Source::Environment));
        let there = file.get(name).map(|value| (*value, in_file()));
        let found = here.or(there).filter(|(value, _)| !value.is_empty());
        Ok(found.map(|(value, source)| (value.to_owned(), source)))
    }
}

fn in_file() -> Source {
    Source::File("/app/.env".into())
}

fn host(found: &ResolvedUrl) -> String {
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
    assert_eq!(found.to_string(), "DATABASE_URL, set in the environment");
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
        assert_eq!(
            found.to_string(),
            format!("{expected}, set in the environment")
        );
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
    assert!(error.to_string().starts_with("DATABASE_URL cannot be used"));
    assert!(!format!("{error} {error:?}").contains("s3cr"));

    let companion = direct_url_from(&environment(&[("PGHOST_UNPOOLED", "h.example")]));
    assert_eq!(
        companion.unwrap_err(),
        EnvError::Companion { missing: "PGUSER" }
    );
}

#[test]
fn the_environment_counts_before_a_file() {
    let lookup = layered(&[("POSTGRES_URL", DIRECT_A)], &[("DATABASE_URL", DIRECT_B)]);
    assert_eq!(app_url_from(&lookup).unwrap().variable, "POSTGRES_URL");
    let lookup = layered(
        &[("DIRECT_URL", DIRECT_A)],
        &[("DATABASE_URL_UNPOOLED", DIRECT_B)],
    );
    assert_eq!(direct_url_from(&lookup).unwrap().variable, "DIRECT_URL");
    // The direct URL wins even if the app's URL is in the file: it was set for this process.
    let lookup = layered(&[("DIRECT_URL", DIRECT_A)], &[("DATABASE_URL", DIRECT_B)]);
    assert_eq!(direct_url_from(&lookup).unwrap().variable, "DIRECT_URL");
}

#[test]
fn a_direct_url_left_in_a_file_must_lead_where_the_apps_leads() {
    let staging = "postgresql://u:s3cret@ep-b-2.x.aws.neon.tech/db";
    for variable in DIRECT {
        let lookup = layered(
            &[("DATABASE_URL", POOLED)],
            &[("DATABASE_URL", staging), (variable, staging)],
        );
        let error = direct_url_from(&lookup).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "DATABASE_URL, set in the environment, leads to db on ep-a-1-pooler.x.aws.neon.tech:5432, but \
                 {variable}, set in /app/.env, to db on ep-b-2.x.aws.neon.tech:5432: set {variable} in the \
                 environment too, or set it to nothing there, so that it is derived from DATABASE_URL"
            )
        );
        assert!(!format!("{error:?}").contains("s3cr"));
        // The error's advice mends it.
        let lookup = layered(
            &[("DATABASE_URL", POOLED), (variable, "")],
            &[(variable, staging)],
        );
        let found = direct_url_from(&lookup).unwrap();
        assert_eq!(
            (host(&found).as_str(), found.derived),
            ("ep-a-1.x.aws.neon.tech", true)
        );
    }
    let parts = [
        ("PGHOST_UNPOOLED", "ep-b-2.x.aws.neon.tech"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGDATABASE", "db"),
    ];
    let error = direct_url_from(&layered(&[("DATABASE_URL", POOLED)], &parts)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("PGHOST_UNPOOLED, set in /app/.env, to db on ep-b-2"),
        "{error}"
    );

    for (app, direct) in [
        (
            "postgresql://u@ep-a.x.neon.tech/db",
            "postgresql://u@ep-a.x.neon.tech/other",
        ),
        (
            "postgresql://u@ep-a.x.neon.tech",
            "postgresql://u@ep-a.x.neon.tech/other",
        ),
        (
            "postgresql://u@127.0.0.1:5432/db",
            "postgresql://u@127.0.0.1:5433/db",
        ),
        (
            "postgresql://u@h.example/db?hostaddr=192.0.2.1",
            "postgresql://u@h.example/db?hostaddr=192.0.2.2",
        ),
        (
            "postgresql://u@h.example/db?options=endpoint%3Dep-a-pooler",
            "postgresql://u@h.example/db?options=endpoint%3Dep-b",
        ),
    ] {
        let error = direct_url_from(&layered(
            &[("DATABASE_URL", app)],
            &[("DIRECT_URL", direct)],
        ));
        assert!(
            matches!(error, Err(EnvError::DatabaseMismatch(_))),
            "{direct}: {error:?}"
        );
    }
    for (app, direct) in [
        (POOLED, DIRECT_A),
        (POOLED, POOLED),
        // Migrations may have a role of their own.
        (
            POOLED,
            "postgresql://owner:p@EP-A-1.x.aws.neon.tech:5432/db?connect_timeout=5",
        ),
        (
            "postgresql://u@h.example/db?options=endpoint%3Dep-a-pooler",
            "postgresql://u@h.example/db?options=endpoint%3Dep-a",
        ),
    ] {
        let found = direct_url_from(&layered(
            &[("DATABASE_URL", app)],
            &[("DIRECT_URL", direct)],
        ));
        assert_eq!(found.unwrap().variable, "DIRECT_URL");
    }
}

#[test]
fn the_parts_must_come_from_one_place() {
    let file = [
        ("PGHOST_UNPOOLED", "ep-b-2.x.aws.neon.tech"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
    ];
    let error = direct_url_from(&layered(&[("PGDATABASE", "db")], &file)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "PGHOST_UNPOOLED is set in /app/.env, but PGDATABASE in the environment: set them in one place, or \
         set DATABASE_URL_UNPOOLED"
    );
}

#[test]
fn the_transport_is_chosen_for_both_urls() {
    let with = |value| environment(&[("DATABASE_URL", POOLED), ("DIESEL_NEON_TRANSPORT", value)]);
    let app = app_url_from(&with("tcp")).unwrap();
    assert_eq!(app.url.transport(), TransportMode::Tcp);
    let unknown = app_url_from(&with("udp")).unwrap_err();
    assert!(matches!(
        unknown,
        EnvError::Transport {
            variable: "DATABASE_URL",
            source: crate::url::UrlError::InvalidValue { .. }
        }
    ));
    // A file does not override what a URL says that was set for this process.
    let says = "postgresql://u:p@ep-a-1-pooler.x.aws.neon.tech/db?transport=tcp";
    let file = [("DIESEL_NEON_TRANSPORT", "udp")];
    let app = app_url_from(&layered(&[("DATABASE_URL", says)], &file)).unwrap();
    assert_eq!(app.url.transport(), TransportMode::Tcp);
    app_url_from(&layered(&[("DATABASE_URL", POOLED)], &file)).unwrap_err();
    #[cfg(feature = "websocket")]
    for (value, mode) in [
        ("websocket", TransportMode::WebSocket),
        ("auto", TransportMode::Auto),
    ] {
        let app = app_url_from(&with(value)).unwrap();
        let direct = direct_url_from(&with(value)).unwrap();
        assert_eq!((app.url.transport(), direct.url.transport()), (mode, mode));
        assert_eq!(host(&direct), "ep-a-1.x.aws.neon.tech");
    }
    #[cfg(not(feature = "websocket"))]
    assert!(matches!(
        app_url_from(&with("auto")),
        Err(EnvError::Transport {
            source: crate::url::UrlError::MissingFeature { .. },
            ..
        })
    ));
}
