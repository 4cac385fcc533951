//! What dashboards and tools print is understood, rendered for both drivers, and never leaks.

use std::time::Duration;

use diesel_neon::{
    ChannelBinding, DatabaseUrl, Encryption, Endpoint, HostName, Negotiation, Roots, UrlError,
};
use proptest::prelude::*;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs};

/// The strings as Neon's console, neonctl and the Vercel integration print them.
const PRINTED: [(&str, Endpoint); 8] = [
    // The console, connection pooling on and off.
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        Endpoint::Pooled,
    ),
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        Endpoint::Direct,
    ),
    // A newer region, with a cell's label in between.
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.c-2.us-east-2.aws.neon.tech/neondb?sslmode=require",
        Endpoint::Pooled,
    ),
    // The console's psql snippet.
    (
        "psql 'postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require'",
        Endpoint::Pooled,
    ),
    // neonctl connection-string --pooled --prisma
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require&connect_timeout=30&pool_timeout=30&pgbouncer=true",
        Endpoint::Pooled,
    ),
    // neonctl connection-string --prisma
    (
        "postgres://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require&connect_timeout=30",
        Endpoint::Direct,
    ),
    // Vercel's POSTGRES_PRISMA_URL
    (
        "postgres://default:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.us-east-1.aws.neon.tech/verceldb?pgbouncer=true&connect_timeout=15&sslmode=require",
        Endpoint::Pooled,
    ),
    // What Neon's guide on secure connections recommends.
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb?sslmode=verify-full&sslrootcert=system",
        Endpoint::Direct,
    ),
];

fn parse(url: &str) -> DatabaseUrl {
    DatabaseUrl::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

fn host(url: &DatabaseUrl) -> String {
    url.hosts()[0].name.to_string()
}

#[test]
fn what_neon_prints_is_taken_as_it_is() {
    for (printed, endpoint) in PRINTED {
        let url = parse(printed);
        assert_eq!(url.endpoint(), endpoint, "{printed}");
        assert!(url.is_neon());

        let config = url.to_tokio_postgres();
        assert_eq!(config.get_ssl_mode(), SslMode::Require);
        assert_eq!(config.get_ssl_negotiation(), SslNegotiation::Direct);
        assert_eq!(config.get_password(), Some(&b"npg_aB3dE5fG7hJ"[..]));
        assert!(matches!(
            url.encryption(),
            Encryption::Tls {
                roots: Roots::System,
                ..
            }
        ));

        let libpq = url.to_libpq();
        assert!(
            libpq.contains("sslmode=verify-full&sslrootcert="),
            "{libpq}"
        );
        for other in ["pgbouncer", "pool_timeout", "sslnegotiation"] {
            assert!(!libpq.contains(other), "{libpq}");
        }
    }
}

#[test]
fn other_orms_settings_are_left_out_and_listed() {
    let url = parse(
        "postgresql://u@localhost/db?pgbouncer=true&connection_limit=1&pool_timeout=10&schema=public",
    );
    assert_eq!(
        url.ignored(),
        ["pgbouncer", "connection_limit", "pool_timeout", "schema"]
    );
    assert_eq!(
        url.to_libpq(),
        "postgresql://u@localhost:5432/db?sslmode=disable"
    );
}

#[test]
fn only_the_endpoints_label_changes() {
    let pooled = parse(
        "postgresql://pooler.user:a-pooler.b@ep-a-1-pooler.c-pooler.aws.neon.tech/db-pooler?application_name=x-pooler",
    );
    let direct = pooled.direct();
    assert_eq!(host(&direct), "ep-a-1.c-pooler.aws.neon.tech");
    assert_eq!(direct.endpoint(), Endpoint::Direct);
    assert_eq!(direct.user(), Some("pooler.user"));
    assert_eq!(direct.database(), Some("db-pooler"));
    assert_eq!(
        direct.to_tokio_postgres().get_password(),
        Some(&b"a-pooler.b"[..])
    );
    assert_eq!(
        direct.to_tokio_postgres().get_application_name(),
        Some("x-pooler")
    );
    assert_eq!(direct.direct(), direct);
    assert_eq!(direct.pooled().unwrap(), pooled);
    assert_eq!(pooled.pooled().unwrap(), pooled);
}

#[test]
fn a_password_with_the_word_pooler_is_not_an_endpoint() {
    let url = parse("postgresql://u:x-pooler@ep-a-1.b.neon.tech/db");
    assert_eq!(url.endpoint(), Endpoint::Direct);
}

#[test]
fn the_endpoint_option_follows_the_host() {
    // Neon refuses a connection where the two differ.
    let url = parse("postgresql://u@ep-a-1-pooler.b.neon.tech/db?options=endpoint%3Dep-a-1-pooler");
    let direct = url.direct();
    assert_eq!(
        direct.to_tokio_postgres().get_options(),
        Some("endpoint=ep-a-1")
    );
    assert_eq!(direct.pooled().unwrap(), url);

    // With a bare address it is the only thing that tells.
    let url = parse("postgresql://u@192.0.2.7/db?options=endpoint%3Dep-a-1-pooler");
    assert_eq!(url.endpoint(), Endpoint::Pooled);
    assert_eq!(host(&url.direct()), "192.0.2.7");
    assert_eq!(url.direct().endpoint(), Endpoint::Direct);
}

#[test]
fn nothing_is_known_of_other_hosts_poolers() {
    for other in [
        "postgresql://u@localhost/db",
        "postgresql://u@db.example.com/db",
        "postgresql://u@192.0.2.7/db",
        "postgresql:///db?host=/run/postgresql",
    ] {
        assert!(
            matches!(parse(other).pooled(), Err(UrlError::NotAnEndpoint { .. })),
            "{other}"
        );
    }
}

#[test]
fn parameters_reach_both_drivers_in_their_units() {
    let url = parse(
        "postgresql://u:p@h.example:6543/db?hostaddr=192.0.2.1&options=-c%20search_path%3Da+b\
         &application_name=my%20app&connect_timeout=7&keepalives_idle=11&keepalives_interval=12\
         &keepalives_count=13&tcp_user_timeout=14500&target_session_attrs=read-write\
         &load_balance_hosts=random&sslnegotiation=direct&channel_binding=require",
    );
    let config = url.to_tokio_postgres();
    assert_eq!(config.get_ports(), [6543]);
    assert_eq!(config.get_hostaddrs()[0].to_string(), "192.0.2.1");
    assert_eq!(config.get_options(), Some("-c search_path=a+b"));
    assert_eq!(config.get_application_name(), Some("my app"));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(11));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(12))
    );
    assert_eq!(config.get_keepalives_retries(), Some(13));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(14_500))
    );
    assert_eq!(
        config.get_target_session_attrs(),
        TargetSessionAttrs::ReadWrite
    );
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(config.get_ssl_negotiation(), SslNegotiation::Direct);
    assert_eq!(url.connect_timeout(), Some(Duration::from_secs(7)));

    let libpq = url.to_libpq();
    for part in [
        "//u:p@h.example:6543/db?",
        "hostaddr=192.0.2.1",
        "options=-c%20search_path%3Da%2Bb",
        "connect_timeout=7",
        "tcp_user_timeout=14500",
        "target_session_attrs=read-write",
        "channel_binding=require",
    ] {
        assert!(libpq.contains(part), "{part} in {libpq}");
    }
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_default() {
    let config = parse("postgresql://u@h.example/db").to_tokio_postgres();
    assert!(config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(60));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(30))
    );
}

#[test]
fn several_hosts_and_sockets_are_understood() {
    let url = parse("postgresql://u@a.example:1,b.example,[2001:db8::1]:3/db");
    let ports: Vec<_> = url.hosts().iter().map(|host| host.port).collect();
    assert_eq!(ports, [1, 5432, 3]);
    assert_eq!(url.hosts()[2].name.to_string(), "2001:db8::1");
    assert_eq!(url.to_tokio_postgres().get_hosts().len(), 3);
    assert_eq!(parse(&url.to_libpq()).hosts(), url.hosts());

    for socket in [
        "postgresql://u@%2Frun%2Fpostgresql/db",
        "postgresql:///db?host=/run/postgresql&user=u",
    ] {
        let url = parse(socket);
        assert_eq!(
            url.hosts()[0].name,
            HostName::Unix("/run/postgresql".into())
        );
        assert_eq!(url.encryption(), &Encryption::Plain);
        assert_eq!(
            url.to_tokio_postgres().get_hosts(),
            [Host::Unix("/run/postgresql".into())]
        );
        assert_eq!(parse(&url.to_libpq()).hosts(), url.hosts());
    }
}

#[test]
fn tls_is_enforced_beyond_loopback() {
    for mode in ["disable", "allow", "prefer"] {
        for host in [
            "ep-a-1.b.neon.tech",
            "db.example.com",
            "192.0.2.1",
            "localhost,db.example.com",
            "neon.localhost",
        ] {
            let error = DatabaseUrl::parse(&format!("postgresql://u@{host}/db?sslmode={mode}"));
            let error = error.unwrap_err();
            assert!(matches!(error, UrlError::Insecure { .. }), "{error}");
            assert!(error.to_string().contains("sslmode=verify-full"));
        }
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "%2Ftmp"] {
            let url = parse(&format!("postgresql://u@{host}/db?sslmode={mode}"));
            assert_eq!(url.encryption(), &Encryption::Plain);
        }
    }
    for mode in ["", "?sslmode=require", "?sslmode=verify-ca", "?ssl=true"] {
        let url = parse(&format!("postgresql://u@db.example.com/db{mode}"));
        assert_eq!(
            url.encryption(),
            &Encryption::Tls {
                roots: Roots::System,
                channel_binding: ChannelBinding::Prefer,
                negotiation: Negotiation::Postgres,
            }
        );
    }
    // A tunnel's address does not make a remote name local.
    let tunnel = "postgresql://u@ep-a-1.b.neon.tech/db?hostaddr=127.0.0.1";
    assert!(matches!(parse(tunnel).encryption(), Encryption::Tls { .. }));
}

#[test]
fn tls_on_loopback_is_had_by_asking() {
    assert!(matches!(
        parse("postgresql://u@localhost/db?sslmode=verify-full&sslrootcert=/tmp/ca.pem").encryption(),
        Encryption::Tls {
            roots: Roots::File(path),
            ..
        } if path.ends_with("ca.pem")
    ));
    for (parameter, key) in [
        ("channel_binding=require", "channel_binding"),
        ("sslnegotiation=direct", "sslnegotiation"),
    ] {
        assert_eq!(
            DatabaseUrl::parse(&format!("postgresql://u@localhost/db?{parameter}")),
            Err(UrlError::NeedsTls { key })
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (url, message) in [
        ("mysql://u@h/db", "does not start with postgresql://"),
        ("host=localhost user=u", "does not start with postgresql://"),
        ("postgresql://", "names no host"),
        ("postgresql:///db", "names no host"),
        (
            "postgresql://u@h.example/db?sslmod=require",
            "unknown parameter `sslmod`",
        ),
        ("postgresql://u@h.example/db?sslmode=on", "`sslmode`"),
        ("postgresql://u@h.example/db?sslcert=a.pem", "`sslcert`"),
        (
            "postgresql://u@h.example/db?connect_timeout=soon",
            "`connect_timeout`",
        ),
        ("postgresql://u@h.example/db?hostaddr=h", "`hostaddr`"),
        (
            "postgresql://u@a.example,b.example/db?port=1,2,3",
            "2 hosts, but 3 in `port`",
        ),
        (
            "postgresql://u@h.example/db?client_encoding=LATIN1",
            "`client_encoding`",
        ),
        ("postgresql://u@h.example:port/db", "percent-encode"),
        ("postgresql://u@h.example/%FF", "database name"),
        ("postgresql://u@h.example/db?sslmode", "percent-encode"),
        ("postgresql://u@%2Ftmp,h.example/db", "`host`"),
    ] {
        let error = DatabaseUrl::parse(url).unwrap_err().to_string();
        assert!(error.contains(message), "{url}: {error}");
    }
}

#[test]
fn an_unencoded_password_is_an_error_that_does_not_repeat_it() {
    for url in [
        "postgresql://u:s3cret/tail@h.example/db",
        "postgresql://u:s3cret?tail@h.example/db",
        "postgresql://u:s3cret#tail@h.example/db",
        "postgresql://u:12?s3cret=tail@h.example/db",
        "postgresql://u:12/s3cret@h.example/db",
        "postgresql://u:s3cret@x/y@h.example/db",
    ] {
        let error = DatabaseUrl::parse(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_password_survives_and_never_shows(password in "\\PC{6,24}") {
        // Long enough not to stand in the rest by chance.
        let password = format!("#{password}#");
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let url = parse(&format!(
            "postgresql://u:{encoded}@ep-a-1-pooler.b.neon.tech/db?sslrootcert=/ca.pem&channel_binding=require",
        ));
        for url in [&url, &url.direct(), &parse(&url.to_libpq())] {
            let config = url.to_tokio_postgres();
            prop_assert_eq!(config.get_password(), Some(password.as_bytes()));
        }
        for shown in [format!("{url}"), format!("{url:?}"), format!("{:?}", url.to_tokio_postgres())] {
            prop_assert!(!shown.contains(&password));
            prop_assert!(!shown.contains(&encoded.to_string()));
        }
        prop_assert!(url.to_string().contains("u:***@"));
    }

    #[test]
    fn what_is_rendered_for_libpq_reads_the_same(
        user in "\\PC{1,12}",
        database in "\\PC{1,12}",
        options in "\\PC{1,12}",
        port in 1_u16..,
    ) {
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let url = parse(&format!(
            "postgresql://{}@h.example:{port}/{}?sslrootcert=/ca.pem&options={}&tcp_user_timeout=1",
            encode(&user), encode(&database), encode(&options),
        ));
        prop_assert_eq!(url.user(), Some(user.as_str()));
        prop_assert_eq!(&parse(&url.to_libpq()), &url);
        prop_assert_eq!(parse(&url.to_libpq()).to_libpq(), url.to_libpq());
    }

    #[test]
    fn garbage_is_an_error_not_a_panic(text in "\\PC{0,40}") {
        let _ = DatabaseUrl::parse(&text);
        let _ = DatabaseUrl::parse(&format!("postgresql://{text}"));
        let _ = DatabaseUrl::parse(&format!("postgresql://h.example/{text}"));
        let _ = DatabaseUrl::parse(&format!("postgresql://h.example/?{text}"));
    }
}
