//! `DatabaseUrl` understands the URLs of dashboards and tools, renders them for both drivers, and leaks none.

use std::time::Duration;

use diesel_neon::{
    ChannelBinding, DatabaseUrl, Encryption, Endpoint, HostName, RootCertificates, SslNegotiation,
    TransportMode, UrlError,
};
use proptest::prelude::*;
use tokio_postgres::config::{self, Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

/// The strings as Neon's console, neonctl and the Vercel integration print them.
const PRINTED: [(&str, Endpoint); 8] = [
    // Neon's console, with connection pooling on and off.
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        Endpoint::Pooled,
    ),
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
        Endpoint::Direct,
    ),
    // A newer region has a cell's label in the host's name.
    (
        "postgresql://neondb_owner:npg_aB3dE5fG7hJ@ep-cool-darkness-a1b2c3d4-pooler.c-2.us-east-2.aws.neon.tech/neondb?sslmode=require",
        Endpoint::Pooled,
    ),
    // The psql snippet of Neon's console.
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
    // Neon's guide on secure connections.
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
        assert_eq!(config.get_ssl_negotiation(), config::SslNegotiation::Direct);
        assert_eq!(config.get_password(), Some(&b"npg_aB3dE5fG7hJ"[..]));
        assert!(matches!(
            url.encryption(),
            Encryption::Tls {
                roots: RootCertificates::System,
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
        "postgresql://u@localhost/db?pgbouncer=true&connection_limit=1&pool_timeout=10&schema=public\
         &supa=base-pooler.x&uselibpqcompat=true&sslaccept=strict",
    );
    assert_eq!(
        url.ignored(),
        [
            "pgbouncer",
            "connection_limit",
            "pool_timeout",
            "schema",
            "supa",
            "uselibpqcompat",
            "sslaccept",
        ]
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
    // Neon refuses a connection if the two differ.
    let url = parse("postgresql://u@ep-a-1-pooler.b.neon.tech/db?options=endpoint%3Dep-a-1-pooler");
    let direct = url.direct();
    assert_eq!(
        direct.to_tokio_postgres().get_options(),
        Some("endpoint=ep-a-1")
    );
    assert_eq!(direct.pooled().unwrap(), url);

    // With a bare address only the option names the endpoint.
    let url = parse("postgresql://u@192.0.2.7/db?options=endpoint%3Dep-a-1-pooler");
    assert_eq!(url.endpoint(), Endpoint::Pooled);
    assert_eq!(host(&url.direct()), "192.0.2.7");
    assert_eq!(url.direct().endpoint(), Endpoint::Direct);
}

#[cfg(feature = "url")]
#[test]
fn a_url_that_configuration_has_parsed_already_is_taken() {
    let given = "postgresql://app:p%40ss@EP-quiet-lake-123456.eu-central-1.aws.neon.tech/db?sslmode=require";
    let parsed = url::Url::parse(given).unwrap();
    let url = DatabaseUrl::try_from(&parsed).unwrap();
    assert_eq!(url.to_libpq(), parse(given).to_libpq());
    assert_eq!(url.password(), Some("p@ss"));
    let insecure = url::Url::parse("postgresql://app@example.com/db?sslmode=disable").unwrap();
    let error = DatabaseUrl::try_from(&insecure).unwrap_err();
    assert!(matches!(error, UrlError::Insecure { .. }), "{error}");
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
    assert_eq!(config.get_ssl_negotiation(), config::SslNegotiation::Direct);
    assert_eq!(url.connect_timeout(), Some(Duration::from_secs(7)));

    let retries = parse("postgresql://u:p@h.example/db?keepalives_retries=5");
    assert_eq!(
        retries.to_tokio_postgres().get_keepalives_retries(),
        Some(5)
    );
    assert!(retries.to_libpq().contains("keepalives_count=5"));

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
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(15));
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
        assert!(
            matches!(
                url.encryption(),
                Encryption::Tls {
                    roots: RootCertificates::System,
                    channel_binding: ChannelBinding::Prefer,
                    negotiation: SslNegotiation::Postgres,
                    ..
                }
            ),
            "{:?}",
            url.encryption()
        );
    }
    // A tunnel's address does not make a remote name local, but plain text ends on this machine.
    let tunnel = "postgresql://u@db.example.com/db?hostaddr=127.0.0.1";
    assert!(matches!(parse(tunnel).encryption(), Encryption::Tls { .. }));
    let tunnel = parse(&format!("{tunnel}&sslmode=disable"));
    assert_eq!(tunnel.encryption(), &Encryption::Plain);
}

#[test]
fn the_address_that_is_dialled_decides_on_plain_text_not_the_name() {
    let remote = [
        "postgresql://u:p@localhost/db?hostaddr=203.0.113.5",
        "postgresql://u:p@127.0.0.1/db?hostaddr=203.0.113.5",
        "postgresql://u:p@127.0.0.1/db?hostaddr=192.168.0.5",
        "postgresql://u:p@[::1]/db?hostaddr=2001:db8::5",
        "postgresql://u:p@localhost,localhost/db?hostaddr=127.0.0.1,203.0.113.5",
        "postgresql://u:p@localhost,203.0.113.5/db?user=u",
        "postgresql://u:p@localhost,127.0.0.1,db.example.com/db?user=u",
        "postgresql:///db?host=localhost&hostaddr=203.0.113.5",
        "postgresql:///db?hostaddr=203.0.113.5",
        "postgresql://u:p@0.0.0.0/db?user=u",
        "postgresql://u:p@localhost/db?hostaddr=::ffff:203.0.113.5",
    ];
    for url in remote {
        assert!(
            matches!(parse(url).encryption(), Encryption::Tls { .. }),
            "{url}"
        );
        assert!(
            parse(url).to_libpq().contains("sslmode=verify-full"),
            "{url}"
        );
        for mode in ["disable", "allow", "prefer"] {
            let error = DatabaseUrl::parse(&format!("{url}&sslmode={mode}")).unwrap_err();
            assert!(matches!(error, UrlError::Insecure { .. }), "{url}: {error}");
        }
    }
    let error = DatabaseUrl::parse(&format!("{}&sslmode=disable", remote[0])).unwrap_err();
    assert!(error.to_string().contains("203.0.113.5"), "{error}");

    for url in [
        "postgresql://u:p@localhost/db?hostaddr=127.0.0.1",
        "postgresql://u:p@localhost/db?hostaddr=::1",
        "postgresql://u:p@localhost/db?hostaddr=::ffff:127.0.0.1",
        "postgresql://u:p@localhost,[::1],127.0.0.2/db",
        "postgresql:///db?hostaddr=127.0.0.1",
    ] {
        assert_eq!(parse(url).encryption(), &Encryption::Plain, "{url}");
        assert!(parse(url).to_libpq().contains("sslmode=disable"), "{url}");
    }
}

#[test]
fn a_name_is_held_to_loopback_where_it_leads() {
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    for url in [
        "postgresql://u@localhost/db",
        "postgresql://u@localhost,127.0.0.1/db?sslmode=disable",
    ] {
        let url = parse(url);
        for loopback in ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(url.check_address(address(loopback)), Ok(()));
        }
        for other in [
            "203.0.113.5",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "2001:db8::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            let error = url.check_address(address(other)).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, UrlError::PlaintextAddress { .. }));
            assert!(text.contains(&address(other).to_string()), "{text}");
            assert!(text.contains("sslmode=verify-full"), "{text}");
        }
    }
    let tls = parse("postgresql://u@localhost/db?sslmode=require");
    assert_eq!(tls.check_address(address("203.0.113.5")), Ok(()));
}

#[test]
fn a_sockets_folder_has_no_address() {
    for url in [
        "postgresql:///db?host=/tmp&hostaddr=203.0.113.5",
        "postgresql:///db?host=/tmp&hostaddr=127.0.0.1",
        "postgresql://%2Ftmp/db?hostaddr=203.0.113.5&sslmode=disable",
        "postgresql:///db?host=/tmp,/run&hostaddr=127.0.0.1,127.0.0.1",
    ] {
        assert_eq!(
            DatabaseUrl::parse(url),
            Err(UrlError::SocketWithAddress),
            "{url}"
        );
    }
}

/// A compose file's URL needs an explicit permission.
#[test]
fn plain_text_to_a_private_network_is_had_by_naming_the_risk() {
    const PARAMETER: &str = "allow_plaintext_to_private_network";
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let in_code = DatabaseUrl::parse_allowing_plaintext_to_private_network;

    let compose = "postgresql://u:p@postgres:5432/db?sslmode=disable";
    let refused = DatabaseUrl::parse(compose).unwrap_err();
    assert!(matches!(refused, UrlError::Insecure { .. }), "{refused}");
    assert!(refused.to_string().contains(PARAMETER), "{refused}");

    let by_parameter = parse(&format!("{compose}&{PARAMETER}=true"));
    assert_eq!(in_code(compose), Ok(by_parameter.clone()));
    assert_eq!(by_parameter.encryption(), &Encryption::Plain);
    for near in [
        "172.18.0.2",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.3.4",
        "fd00::1",
        "fe80::1",
        "127.0.0.1",
        "::1",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(by_parameter.check_address(address(near)), Ok(()), "{near}");
    }
    for public in [
        "203.0.113.5",
        "172.32.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "2001:db8::1",
        "::ffff:203.0.113.5",
        "::",
    ] {
        let error = by_parameter.check_address(address(public)).unwrap_err();
        assert!(matches!(error, UrlError::PlaintextAddress { .. }));
        assert!(!error.to_string().contains(PARAMETER), "{error}");
    }

    // The permission only widens `sslmode`, and never as far as a public address.
    for url in [
        "postgresql://u:p@postgres/db",
        "postgresql://u:p@10.0.0.1/db",
        "postgresql://u:p@postgres/db?sslmode=require",
    ] {
        assert!(
            matches!(in_code(url).unwrap().encryption(), Encryption::Tls { .. }),
            "{url}"
        );
    }
    for url in [
        "postgresql://u:p@203.0.113.5/db?sslmode=disable",
        "postgresql://u:p@postgres/db?sslmode=disable&hostaddr=203.0.113.5",
        "postgresql://u:p@10.0.0.1,203.0.113.5/db?sslmode=prefer",
    ] {
        let error = in_code(url).unwrap_err();
        assert!(matches!(error, UrlError::Insecure { .. }), "{url}: {error}");
        assert!(!error.to_string().contains(PARAMETER), "{error}");
    }
    assert!(matches!(
        DatabaseUrl::parse(&format!("{compose}&{PARAMETER}=yes")),
        Err(UrlError::InvalidValue { .. })
    ));
    assert!(DatabaseUrl::parse(&format!("{compose}&{PARAMETER}=false")).is_err());

    // Display shows the permission, and parses to the same URL.
    let shown = by_parameter.to_string();
    assert!(
        shown.contains("sslmode=disable") && shown.contains(PARAMETER),
        "{shown}"
    );
    assert_eq!(parse(&shown.replace("***", "p")), by_parameter);
    // libpq would connect to any address that the name resolves to.
    let libpq = by_parameter.to_libpq();
    assert!(
        libpq.contains("sslmode=verify-full") && !libpq.contains(PARAMETER),
        "{libpq}"
    );
    for known in [
        "postgresql://u:p@10.0.0.1/db?sslmode=disable",
        "postgresql://u:p@postgres/db?sslmode=disable&hostaddr=10.0.0.1",
    ] {
        let libpq = in_code(known).unwrap().to_libpq();
        assert!(
            libpq.contains("sslmode=disable") && !libpq.contains(PARAMETER),
            "{libpq}"
        );
    }
}

#[test]
fn tls_on_loopback_is_had_by_asking() {
    assert!(matches!(
        parse("postgresql://u@localhost/db?sslmode=verify-full&sslrootcert=/tmp/ca.pem").encryption(),
        Encryption::Tls {
            roots: RootCertificates::File(path),
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
        ("postgresql://u@h.example:port/db", "a port"),
        ("postgresql://u@h.example:5432:5433/db", "a port"),
        ("postgresql://u@h.example:0/db", "a port"),
        ("postgresql://u@h.example:65536/db", "a port"),
        ("postgresql://u@h.example/db?port=0", "a port"),
        ("postgresql://u@h.example/db?port=x", "a port"),
        ("postgresql://u@h.example/%FF", "database name"),
        ("postgresql://u@h.example/db?sslmode", "no `=`"),
        ("postgresql://u@h.example/db?options=endpoint=ep-a", "%3D"),
        ("postgresql://u@[::1/db", "brackets"),
        ("postgresql://u@[::1]5432/db", "brackets"),
        ("postgresql://u@[h.example]/db", "brackets"),
        ("postgresql://u@::1/db", "brackets"),
        ("postgresql://u@2001:db8::1/db", "brackets"),
        ("postgresql://u@[fe80::1%25eth0]/db", "zone"),
        ("postgresql://u@[fe80::1%eth0]/db", "zone"),
        ("postgresql:///db?host=fe80::1%25eth0", "zone"),
        (
            "postgresql:///db?host=h.example&hostaddr=fe80::1%25eth0",
            "zone",
        ),
        ("postgresql:///db?host=h.example:5433", "`port`"),
        ("postgresql://u@h.example/db#top", "fragment"),
        ("postgresql://u@h.example/db?options=a#top", "fragment"),
        (
            "postgresql://u@h.example/db?sslmode=require&amp;user=a",
            "&amp;",
        ),
        ("postgresql://u@bücher.example/db", "xn--"),
        ("postgresql://u@b%C3%BCcher.example/db", "xn--"),
        (
            "postgresql://u@h example/db",
            "host in the database URL has a space",
        ),
        (
            "postgresql://u:a b@h.example/db",
            "password in the database URL has a space",
        ),
        (
            "postgresql://u:a\tb@h.example/db",
            "password in the database URL has a space",
        ),
        (
            "postgresql://u:a\nb@h.example/db",
            "password in the database URL has a space",
        ),
        (
            "postgresql://u@h.example/a b",
            "database name in the database URL has a space",
        ),
        (
            "postgresql://u:a%00b@h.example/db",
            "password in the database URL has a %00",
        ),
        (
            "postgresql://u:a%zzb@h.example/db",
            "password in the database URL has a `%`",
        ),
        ("postgresql://u:a%@h.example/db", "%25"),
        ("psql 'postgresql://u@h.example/db' -c 'SELECT 1'", "alone"),
        ("psql postgresql://u@h.example/db -c 'SELECT 1'", "alone"),
        ("psql -U u 'postgresql://h.example/db'", "alone"),
        ("'postgresql://u@h.example/db", "quotation"),
        ("postgresql://u@h.example/db?user=", "`user`"),
        (
            "postgresql://u@h.example/db?sslaccept=accept_invalid_certs",
            "`sslaccept`",
        ),
        (
            "postgresql://u@h.example/db?scram_client_key=a",
            "`scram_client_key`",
        ),
        (
            "postgresql://u@h.example/db?sslkeylogfile=a",
            "`sslkeylogfile`",
        ),
        (
            "postgresql://u@h.example/db?oauth_issuer=a",
            "`oauth_issuer`",
        ),
        (
            "postgresql://u@h.example/db?connect_timeout=9223372036854775807",
            "`connect_timeout`",
        ),
        (
            "postgresql://u@h.example/db?tcp_user_timeout=9223372036854775807",
            "`tcp_user_timeout`",
        ),
        ("postgresql://u@%2Ftmp,h.example/db", "`host`"),
    ] {
        let error = DatabaseUrl::parse(url).unwrap_err();
        let is_of_the_password = error == UrlError::Malformed;
        assert!(!is_of_the_password, "{url}");
        let error = error.to_string();
        assert!(error.contains(message), "{url}: {error}");
    }
}

#[test]
fn query_and_authority_are_put_together_as_libpq_does() {
    for (url, host, port) in [
        (
            "postgresql://u@h.example:6543/?host=x.example",
            "x.example",
            6543,
        ),
        (
            "postgresql://u@h.example:6543/?port=6544",
            "h.example",
            6544,
        ),
        ("postgresql://u@h.example:6543/?port=", "h.example", 5432),
        ("postgresql:///db?host=::1", "::1", 5432),
        ("postgresql:///db?host=2001:db8::1&port=7", "2001:db8::1", 7),
        ("postgresql://[2001:DB8::1]:7/db", "2001:db8::1", 7),
        ("psql \"postgresql://h.example/db\"", "h.example", 5432),
        ("psql postgresql://h.example/db", "h.example", 5432),
    ] {
        let url = parse(url);
        assert_eq!(
            (self::host(&url).as_str(), url.hosts()[0].port),
            (host, port)
        );
    }
    for (url, database) in [
        ("postgresql://h.example/a/../b", "a/../b"),
        ("postgresql://h.example/..", ".."),
        ("postgresql://h.example/%2e%2e/b", "../b"),
        ("postgresql://h.example//a", "/a"),
    ] {
        assert_eq!(parse(url).database(), Some(database));
    }
    let url = parse("postgresql://u:a%09%0Ab@h.example/db?password=");
    assert_eq!(url.password(), None);
    let url = parse("postgresql://u:a%09%0Ab@h.example/db");
    assert_eq!(url.password(), Some("a\t\nb"));
}

#[test]
fn the_way_to_the_server_is_read_and_libpq_is_not_told() {
    let at = |query: &str| {
        DatabaseUrl::parse(&format!(
            "postgresql://u:p@ep-a-1.eu.aws.neon.tech/db?{query}"
        ))
    };
    let url = at("").unwrap();
    assert_eq!(
        (url.transport(), url.https_port()),
        (TransportMode::Tcp, 443)
    );
    let url = at("transport=tcp&https_port=8443").unwrap();
    assert_eq!(url.https_port(), 8443);
    assert!(
        url.to_string().contains("transport=tcp&https_port=8443"),
        "{url}"
    );
    let libpq = url.to_libpq();
    assert!(!libpq.contains("transport") && !libpq.contains("https_port"));
    for wrong in [
        "transport=udp",
        "transport=",
        "https_port=0",
        "https_port=65536",
    ] {
        let error = at(wrong).unwrap_err();
        assert!(
            matches!(error, UrlError::InvalidValue { .. }),
            "{wrong}: {error}"
        );
    }
    let websocket = at("transport=websocket");
    let over_socket = DatabaseUrl::parse("postgresql://u@/db?host=/run/postgres&transport=auto");
    if cfg!(feature = "websocket") {
        assert_eq!(websocket.unwrap().transport(), TransportMode::WebSocket);
        assert!(matches!(over_socket, Err(UrlError::InvalidValue { .. })));
    } else {
        for refused in [websocket, over_socket] {
            assert!(matches!(refused, Err(UrlError::MissingFeature { .. })));
        }
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
        "postgresql://u:x@s3cret@h.example/db",
        "postgresql://u:a@b/c?s3cret=d@h.example/db",
        "postgresql://u:a@b?s3cret=d@h.example/db",
        "postgresql://u:a?s3cret=b",
        "postgresql://h.example/db?password=a&s3cret=b",
        "postgresql://h.example/db?password=a&s3cret",
        "postgresql://h.example/db?password=a=s3cret",
        "postgresql://h.example/db?password=a&s3cret=b&user=u",
        "postgresql://h.example/db?user=u&password=a%26b&\"s3cret=b",
        "postgresql://u:s3cret",
        "postgresql://u:s3cret,x@h.example:s3cret/db",
    ] {
        let error = DatabaseUrl::parse(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_password_survives_and_never_shows(password in "\\PC{6,24}") {
        // Long enough not to be in the rest by chance.
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

    /// No error shows a piece of an unencoded password, wherever the URL is split because of it.
    #[test]
    fn no_error_shows_a_piece_of_an_unencoded_password(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "s3cret", "S3CRET", "/", "?", "#", "&", "=", "@", ":", "%", "%00", ",", "[", "]", " ", "\t", "'", "\"",
            "&amp;", "ä", "\\", "x", "port=", "sslmode=", "password=",
        ]), 1..9),
        after in prop::sample::select(vec!["", "&user=u", "&sslmode=disable"]),
    ) {
        let password = format!("s3cret{}s3cret", pieces.concat());
        for url in [
            format!("postgresql://u:{password}@h.example/db"),
            format!("postgresql://u:{password}@h.example/db?application_name=a{after}"),
            format!("postgresql://h.example/db?password={password}{after}"),
            format!("psql 'postgresql://u:{password}@h.example/db'"),
        ] {
            if let Err(error) = DatabaseUrl::parse(&url) {
                let shown = format!("{error} {error:?}").to_lowercase();
                prop_assert!(!shown.contains("s3cret"), "{}: {}", url, shown);
            }
        }
    }

    #[test]
    fn garbage_is_an_error_not_a_panic(text in "\\PC{0,40}") {
        let _ = DatabaseUrl::parse(&text);
        let _ = DatabaseUrl::parse(&format!("postgresql://{text}"));
        let _ = DatabaseUrl::parse(&format!("postgresql://h.example/{text}"));
        let _ = DatabaseUrl::parse(&format!("postgresql://h.example/?{text}"));
    }
}
