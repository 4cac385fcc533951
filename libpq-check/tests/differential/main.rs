//! Every URL that `DatabaseUrl` accepts means what libpq's own parser makes of it.

mod meaning;

use std::cell::Cell;
use std::io::Write;
use std::sync::LazyLock;

use diesel_neon::{DatabaseUrl, Encryption};
use libpq_check::Libpq;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::string::string_regex;
use proptest::test_runner::{Config, TestRunner};

use self::meaning::{ours, theirs};

/// The variable that says that this machine is known to have no libpq.
const WITHOUT: &str = "DIESEL_NEON_WITHOUT_LIBPQ";

static LIBPQ: LazyLock<Libpq> = LazyLock::new(|| match Libpq::load() {
    Ok(libpq) => libpq,
    Err(error) => {
        assert!(
            std::env::var_os(WITHOUT).is_some(),
            "libpq cannot be loaded ({error}): run `make setup`, or set {WITHOUT}=1 to do without it"
        );
        // libtest does not capture this, and the exit keeps these tests from being reported as passed.
        let _ = writeln!(
            std::io::stderr(),
            "\nMISSING: libpq; the URL parser was NOT compared with it"
        );
        std::process::exit(0);
    }
});

/// Returns whether `DatabaseUrl` accepts `url`; fails if it does and libpq refuses the URL or understands it otherwise.
fn is_accepted(url: &str) -> Result<bool, TestCaseError> {
    let Ok(parsed) = DatabaseUrl::parse(url) else {
        return Ok(false);
    };
    let set = LIBPQ.parse(url.trim()).and_then(|set| theirs(&set));
    let set =
        set.map_err(|error| TestCaseError::fail(format!("{url:?}: libpq refuses: {error}")))?;
    prop_assert_eq!(&ours(&parsed), &set, "{:?}", url);

    // libpq understands the rendered URL in the same way, except for the file name of a socket.
    let rendered = parsed.to_libpq();
    let set = LIBPQ.parse(&rendered);
    let set = set.map_err(|error| TestCaseError::fail(format!("{rendered}: {error}")))?;
    let plain = *parsed.encryption() == Encryption::Plain;
    let mode: &[u8] = if plain { b"disable" } else { b"verify-full" };
    prop_assert_eq!(set.get("sslmode").map(Vec::as_slice), Some(mode));
    let set = theirs(&set).map_err(|error| TestCaseError::fail(format!("{rendered}: {error}")))?;
    for (name, address, _) in set.hosts.iter().filter(|_| plain) {
        let address = address.or(name.parse().ok());
        let is_near = match address {
            Some(address) => address.to_canonical().is_loopback(),
            None => name == "localhost" || name.starts_with('/'),
        };
        prop_assert!(is_near, "{:?} is plain text to {}", rendered, name);
    }
    prop_assert_eq!(&ours(&parsed), &set, "{:?} as {:?}", url, rendered);
    Ok(true)
}

/// Runs `test` on `cases` generated values, and returns for how many it returned `true`: the URL was accepted.
fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<bool, TestCaseError>,
) -> u32 {
    let accepted = Cell::new(0);
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    };
    let result = TestRunner::new(config).run(&strategy, |value| {
        accepted.set(accepted.get() + u32::from(test(value)?));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("libpq {}: {error}", LIBPQ.version()));
    accepted.get()
}

/// URLs, each with whether it must be accepted; diesel-neon's own tests check the text of each error.
const NAMED: [(&str, bool); 66] = [
    ("postgresql://u@h.example:6543/?host=x.example", true),
    ("postgresql://u@h.example:6543/?port=6544", true),
    ("postgresql://u@h.example/?port=6544", true),
    ("postgresql://u@h.example:6543/?port=", true),
    (
        "postgresql://u@a.example:1,b.example:2/?host=x.example",
        false,
    ),
    (
        "postgresql://u@a.example:1,b.example:2/?host=x.example,y.example",
        true,
    ),
    ("postgresql://u@a.example,b.example:2/", true),
    ("postgresql://u@a.example:1,b.example/", true),
    ("postgresql://u@a.example,b.example/?port=7", true),
    ("postgresql://u@a.example,b.example/?port=7,", true),
    ("postgresql:///db?host=::1", true),
    ("postgresql:///db?host=2001:db8::1,::1&port=1,2", true),
    ("postgresql:///db?host=h.example:5433", false),
    ("postgresql:///db?host=[::1]", false),
    ("postgresql://[::1]/db", true),
    ("postgresql://[2001:DB8::1]:7/db", true),
    ("postgresql://[::1", false),
    ("postgresql://[::1]x/db", false),
    ("postgresql://[]/db", false),
    ("postgresql://::1/db", false),
    ("postgresql://2001:db8::1/db", false),
    ("postgresql://[fe80::1%25eth0]/db", false),
    ("postgresql://h.example:5432:5433/db", false),
    ("postgresql://h.example:0/db", false),
    ("postgresql://h.example:65536/db", false),
    ("postgresql://h.example:/db", true),
    ("postgresql://h.example/?port=0", false),
    ("postgresql://h.example", true),
    ("postgresql://h.example?user=u", true),
    ("postgresql://h.example/a/../b", true),
    ("postgresql://h.example/a/./b", true),
    ("postgresql://h.example/..", true),
    ("postgresql://h.example/%2e%2e/b", true),
    ("postgresql://h.example//a", true),
    ("postgresql://h.example/a\\b", true),
    ("postgresql://u:a\tb@h.example/db", false),
    ("postgresql://u:a\nb@h.example/db", false),
    ("postgresql://u:a%09%0Ab@h.example/db", true),
    ("postgresql://u:a%00b@h.example/db", false),
    ("postgresql://u:%zz@h.example/db", false),
    ("postgresql://u:a%4@h.example/db", false),
    ("postgresql://u:a%@h.example/db", false),
    ("postgresql://u:a:b@h.example/db", true),
    ("postgresql://u:@h.example/db", true),
    ("postgresql://:p@h.example/db", true),
    ("postgresql://@h.example/db", true),
    ("postgresql://u:a@b@h.example/db", false),
    ("postgresql://u:ä@h.example/ö?application_name=ü", true),
    ("postgresql://u:a+b@h.example/a+b?options=a+b", true),
    ("postgresql://u:p@h.example/db?options=a=b", false),
    ("postgresql://u:p@h.example/db?options", false),
    ("postgresql://u:p@h.example/db?options=a&", true),
    ("postgresql://u:p@h.example/db?&options=a", false),
    ("postgresql://u:p@h.example/db?options=a&&user=v", false),
    ("postgresql://u:p@h.example/db?", true),
    ("postgresql://u:p@h.example/db?%6fptions=a", true),
    (
        "postgresql://u:p@h.example/db?user=v&password=&dbname=",
        true,
    ),
    (
        "postgresql://u:p@h.example/db?user=a&user=b&hostaddr=",
        true,
    ),
    ("postgresql://u:p@h.example/db?ssl=true", true),
    ("postgresql://u:p@H.Example/db", true),
    ("postgresql://a.example,,b.example/db", false),
    ("postgresql://h.example/db#fragment", false),
    ("postgresql://%2Ftmp%2Cx/db", false),
    ("postgresql://%2Ftmp:7/db", true),
    ("postgresql://u@%2Ftmp%2Fx/db", true),
    ("postgresql:///db?host=/tmp", true),
];

#[test]
fn named_urls_mean_what_they_mean_to_libpq() {
    for (url, accepted) in NAMED {
        let found = is_accepted(url).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            found,
            accepted,
            "{url:?}: {:?}",
            DatabaseUrl::parse(url).err()
        );
    }
}

/// The parts of well-formed URLs, each percent-encoded or not, in every place that they may take.
#[test]
fn well_formed_urls_are_accepted_and_mean_the_same() {
    let word = || string_regex("[a-zA-Z0-9_.~+!$*();ä€-]{1,8}|\\PC{1,6}").unwrap();
    let name = select(vec![
        "h.example",
        "localhost",
        "127.0.0.1",
        "ep-a-1-pooler.b.neon.tech",
        "H.Example",
        "10.0.0.1",
        "a_b",
    ]);
    let port = prop_oneof![Just(None), (1..=u16::MAX).prop_map(Some)];
    let hosts = vec((name, port), 1..4);
    let setting = select(vec![
        "application_name=a%20b",
        "connect_timeout=7",
        "connect_timeout=0",
        "connect_timeout=-1",
        "options=-c%20a%3Db",
        "target_session_attrs=read-only",
        "target_session_attrs=primary",
        "keepalives=0",
        "keepalives=1",
        "keepalives_idle=9",
        "keepalives_idle=0",
        "keepalives_interval=3",
        "keepalives_count=4",
        "tcp_user_timeout=1500",
        "channel_binding=require",
        "sslmode=require",
        "sslmode=verify-full",
        "sslmode=disable",
        "sslmode=prefer",
        "hostaddr=127.0.0.1",
        "ssl=true",
        "client_encoding=UTF8",
        "sslrootcert=/ca.pem",
        "port=",
        "port=7",
        "dbname=x",
        "password=y",
        "user=z",
        "host=x.example",
        "host=/tmp",
        "host=::1",
        "hostaddr=192.0.2.1",
    ]);
    let userinfo = prop_oneof![
        Just(None),
        (word(), prop::option::of(word())).prop_map(Some)
    ];
    let url = (
        userinfo,
        hosts,
        prop::option::of(word()),
        vec(setting, 0..5),
    );
    let accepted = run(4096, url, |(userinfo, hosts, database, settings)| {
        let encode = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'a'..=b'z'
                    | b'A'..=b'Z'
                    | b'0'..=b'9'
                    | b'_'
                    | b'.'
                    | b'~'
                    | b'+'
                    | b'!'
                    | b'-' => char::from(byte).to_string(),
                    byte => format!("%{byte:02x}"),
                })
                .collect()
        };
        let mut url = "postgresql://".to_owned();
        if let Some((user, password)) = userinfo {
            url.push_str(&encode(&user));
            if let Some(password) = password {
                url.push(':');
                url.push_str(&encode(&password));
            }
            url.push('@');
        }
        let hosts = hosts.iter().map(|(name, port)| match port {
            Some(port) => format!("{name}:{port}"),
            None => (*name).to_owned(),
        });
        url.push_str(&hosts.collect::<Vec<_>>().join(","));
        if let Some(database) = database {
            url.push('/');
            url.push_str(&encode(&database));
        }
        if !settings.is_empty() {
            url.push('?');
            url.push_str(&settings.join("&"));
        }
        let accepted = is_accepted(&url)?;
        // Both refuse the rest, such as fewer hosts than ports.
        let lists = settings.iter().any(|setting| setting.starts_with("host"));
        let on_tls = [
            "channel_binding=require",
            "sslmode=disable",
            "sslmode=prefer",
        ];
        let on_tls = on_tls.iter().any(|setting| url.contains(setting));
        prop_assert!(
            accepted || lists || on_tls,
            "{:?}: {:?}",
            url,
            DatabaseUrl::parse(&url).err()
        );
        Ok(accepted)
    });
    assert!(accepted > 2500, "only {accepted} were accepted");
}

/// Pieces in random order, so that every piece is met where it can be mistaken for another.
#[test]
fn what_is_accepted_of_scrambled_urls_means_the_same() {
    let piece = || {
        prop_oneof![
            select(vec![
                "u",
                "h",
                "h.example",
                ":",
                "@",
                "/",
                "?",
                "&",
                "=",
                ",",
                "[",
                "]",
                "::1",
                "[::1]",
                "#",
                "%",
                "%2",
                "%zz",
                "%00",
                "%41",
                "%2C",
                "%40",
                "%2F",
                "%3A",
                "%25",
                "%ff",
                "%C3%A4",
                " ",
                "\t",
                "\n",
                "ä",
                "..",
                "/../",
                "/./",
                "\\",
                "+",
                ";",
                "'",
                "0",
                "5432",
                "65536",
                "-1",
                "+1",
                "host=",
                "port=",
                "hostaddr=127.0.0.1",
                "hostaddr=",
                "user=",
                "password=",
                "dbname=",
                "&amp;",
                "?host=x",
                "&port=7",
                "sslmode=disable",
                "ssl=true",
                "ssl=false",
                "connect_timeout=1",
                "options=a",
                "localhost",
                "/tmp",
                "%2Ftmp",
                "127.0.0.1",
            ])
            .prop_map(str::to_owned),
            string_regex("\\PC{1,3}").unwrap(),
        ]
    };
    let accepted = run(8192, vec(piece(), 0..9), |pieces| {
        is_accepted(&format!("postgresql://{}", pieces.concat()))
    });
    assert!(accepted > 50, "only {accepted} were accepted");
    let accepted = run(4096, vec(piece(), 0..7), |pieces| {
        is_accepted(&format!("postgres://u:p@h.example/db?{}", pieces.concat()))
    });
    assert!(accepted > 50, "only {accepted} were accepted");
    let accepted = run(4096, vec(piece(), 0..7), |pieces| {
        is_accepted(&format!(
            "postgresql://u:{}@h.example:7/db?options=a",
            pieces.concat()
        ))
    });
    assert!(accepted > 500, "only {accepted} were accepted");
}

#[test]
fn every_parameter_of_libpq_is_known() {
    let keywords = LIBPQ.keywords();
    assert!(keywords.contains("channel_binding"), "{keywords:?}");
    for keyword in keywords {
        let error = DatabaseUrl::parse(&format!("postgresql://h.example/?{keyword}=1"));
        let error = error.err().map_or(String::new(), |error| error.to_string());
        assert!(!error.contains("unknown"), "{keyword}: {error}");
    }
}
