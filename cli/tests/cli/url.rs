//! `diesel-neon url`, and environments that give none.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::POOLED;
use crate::folder::{Folder, Text};

#[test]
fn the_url_is_printed_with_its_reason_beside_it() {
    let folder = Folder::new("url");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = folder.command();
        command.arg("url").args(arguments);
        Text::of(command.envs(variables.iter().copied()).output().unwrap())
    };
    let parsed = |out: &Text| {
        assert_eq!(out.code, Some(0), "{out:?}");
        assert_eq!(out.stdout.lines().count(), 1, "{out:?}");
        diesel_neon::DatabaseUrl::parse(&out.stdout).unwrap()
    };
    let app = ("DATABASE_URL", POOLED);

    let out = run(&[], &[app]);
    assert!(
        out.stdout
            .starts_with("postgresql://u:***@ep-a-1-pooler.x.aws.neon.tech")
    );
    assert_eq!(
        out.stderr,
        "diesel-neon: the pooled endpoint, from DATABASE_URL, set in the environment\n\
         diesel-neon: ignored in it, for other tools only: pgbouncer\n"
    );

    let out = run(&["--direct", "--show-password"], &[app]);
    assert!(
        out.stdout
            .starts_with("postgresql://u:s3cr%40et@ep-a-1.x.aws.neon.tech")
    );
    assert_eq!(
        out.stderr.lines().next().unwrap(),
        "diesel-neon: the direct endpoint, from DATABASE_URL without its -pooler, set in the environment"
    );
    assert!(!out.stderr.contains("s3cr"));
    let shown = parsed(&out);
    let direct = ("DATABASE_URL_UNPOOLED", out.stdout.trim());
    assert_eq!(
        parsed(&run(&["--direct", "--show-password"], &[direct])),
        shown
    );

    let out = run(&["--pooled"], &[("DATABASE_URL", direct.1)]);
    assert!(out.stdout.contains("@ep-a-1-pooler.x.aws.neon.tech"));
    assert_eq!(
        out.stderr,
        "diesel-neon: the pooled endpoint, from DATABASE_URL, set in the environment, with -pooler\n"
    );

    folder.write(".env", &format!("DATABASE_URL='{POOLED}'"));
    let out = run(&[], &[]);
    assert!(out.stdout.contains("@ep-a-1-pooler.x.aws.neon.tech"));
    let file = fs::canonicalize(folder.path(".env")).unwrap();
    assert_eq!(
        out.stderr.lines().next().unwrap(),
        format!(
            "diesel-neon: the pooled endpoint, from DATABASE_URL, set in {}",
            file.display()
        )
    );
}

#[test]
fn wrong_environments_are_told_in_one_line_without_secrets() {
    let folder = Folder::new("wrong_environment");
    let wrong = [
        ("", "no database URL in the environment: looked at "),
        (
            "s3cret",
            "DATABASE_URL cannot be used: the database URL does not start with ",
        ),
        (
            "postgres://u:s3cr/et@h/db",
            "DATABASE_URL cannot be used: the database URL cannot be taken apart",
        ),
        (
            "postgres://u:s3cret@h/db?sslmod=x",
            "DATABASE_URL cannot be used: unknown parameter `sslmod`",
        ),
        (
            "postgres://u:s3cret@h.example/db?sslmode=disable",
            "DATABASE_URL cannot be used: sslmode=disable ",
        ),
    ];
    for (url, message) in wrong {
        for arguments in [
            &["url"][..],
            &["url", "--direct"],
            &["diesel", "-c", "exit 1"],
        ] {
            let mut command = folder.with_shell_as_diesel();
            let run = command.args(arguments).env("DATABASE_URL", url).output();
            let out = Text::of(run.unwrap());
            assert_eq!(out.code, Some(1), "{out:?}");
            assert_eq!(out.stdout, "");
            assert_eq!(out.stderr.lines().count(), 1, "{out:?}");
            let said = out.stderr.strip_prefix("diesel-neon: ").unwrap();
            let said = said.strip_prefix("note: ").unwrap_or(said);
            assert!(said.starts_with(message), "{out:?}");
            assert!(!out.stderr.contains("s3cr"), "{out:?}");
        }
    }

    folder.write(
        ".env",
        "PORT=3000\n\nDATABASE_URL=postgresql://u:s3cret@h/db with a space\n",
    );
    let file = fs::canonicalize(folder.path(".env")).unwrap();
    for task in ["url", "migrate"] {
        let mut command = folder.command();
        command
            .arg(task)
            .args((task == "migrate").then_some("list"));
        let out = Text::of(command.output().unwrap());
        assert_eq!(out.code, Some(1));
        assert_eq!(
            out.stderr,
            format!(
                "diesel-neon: {}, line 3: it cannot be understood; put the value in single quotes\n",
                file.display()
            )
        );
    }
}

#[test]
fn libpq_is_never_told_to_send_plain_text_wherever_a_name_leads() {
    let folder = Folder::new("private");
    let run = |url: &str| {
        let mut command = folder.command();
        command.args(["url", "--show-password"]);
        Text::of(command.env("DATABASE_URL", url).output().unwrap())
    };
    let compose =
        "postgresql://u:p@postgres/db?sslmode=disable&allow_plaintext_to_private_network=true";
    let out = run(compose);
    assert!(out.stdout.contains("sslmode=verify-full"), "{out:?}");
    assert!(out.stderr.contains("hostaddr"), "{out:?}");

    let out = run(&format!("{compose}&hostaddr=172.18.0.2"));
    assert!(
        out.stdout.contains("sslmode=disable&hostaddr=172.18.0.2"),
        "{out:?}"
    );
    assert!(!out.stderr.contains("hostaddr"), "{out:?}");
}

#[test]
fn the_url_is_there_for_machines_too() {
    let folder = Folder::new("url_json");
    folder.write(".env", &format!("DATABASE_URL='{POOLED}'"));
    let run = |arguments: &[&str]| {
        let mut command = folder.command();
        let out = Text::of(
            command
                .args(["url", "--json"])
                .args(arguments)
                .output()
                .unwrap(),
        );
        assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{out:?}");
        serde_json::from_str::<serde_json::Value>(&out.stdout).unwrap()
    };
    let app = run(&[]);
    let file = fs::canonicalize(folder.path(".env")).unwrap();
    let url = app["url"].as_str().unwrap();
    assert!(
        url.starts_with("postgresql://u:***@ep-a-1-pooler."),
        "{url}"
    );
    assert_eq!(app["kind"], "pooled");
    assert_eq!(app["variable"], "DATABASE_URL");
    assert_eq!(app["file"], file.to_str().unwrap());
    assert_eq!(app["derived"], false);
    assert_eq!(app["hosts"][0]["name"], "ep-a-1-pooler.x.aws.neon.tech");
    assert_eq!(app["hosts"][0]["port"], 5432);
    assert_eq!(
        (&app["database"], &app["user"]),
        (&"db".into(), &"u".into())
    );
    assert_eq!(app["ignored"], serde_json::json!(["pgbouncer"]));

    let direct = run(&["--direct", "--show-password"]);
    assert_eq!(
        (&direct["kind"], &direct["derived"]),
        (&"direct".into(), &true.into())
    );
    assert!(direct["url"].as_str().unwrap().contains(":s3cr%40et@"));
}

#[test]
fn what_cannot_be_read_is_not_replaced_by_what_the_file_has() {
    let folder = Folder::new("unreadable");
    folder.write(".env", &format!("RUST_LOG=warn\nDATABASE_URL='{POOLED}'\n"));
    for variable in ["DATABASE_URL", "RUST_LOG"] {
        for arguments in [&["url"][..], &["migrate", "list"]] {
            let mut command = folder.command();
            command.args(arguments);
            command.env(
                variable,
                OsStr::from_bytes(b"postgresql://u:s3cr\xe9t@h/db"),
            );
            let out = Text::of(command.output().unwrap());
            assert_eq!((out.code, &*out.stdout), (Some(1), ""), "{out:?}");
            assert!(
                out.stderr.contains(&format!("{variable} is not UTF-8")),
                "{out:?}"
            );
            assert!(!out.stderr.contains("s3cr"), "{out:?}");
        }
    }
}

#[test]
fn a_dotenv_file_in_another_encoding_is_told_with_its_mend() {
    let folder = Folder::new("encoding");
    let utf_16: Vec<u8> = "\u{feff}DATABASE_URL=x\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let latin_1 = [b"# f\nDATABASE_URL='".as_slice(), b"s3cr\xe9t'\n"].concat();
    for (bytes, line) in [(utf_16, 1), (latin_1, 2)] {
        fs::write(folder.path(".env"), bytes).unwrap();
        let out = Text::of(folder.command().arg("url").output().unwrap());
        assert_eq!(out.code, Some(1), "{out:?}");
        let expected = format!("/.env, line {line}: it is not UTF-8; save it as UTF-8\n");
        assert!(out.stderr.ends_with(&expected), "{out:?}");
    }
}
