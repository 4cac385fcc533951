//! The command in a shell: completions, the manual, pipes and signals.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neon_sim::NeonSim;

use crate::folder::{Folder, Text};

#[test]
fn bash_completes_behind_every_word() {
    let folder = Folder::new("bash");
    let script = Text::of(
        folder
            .command()
            .args(["completions", "bash"])
            .output()
            .unwrap(),
    );
    folder.write("script.bash", &script.stdout);
    let complete = |words: &[&str]| {
        // bash does this when the tab key is pressed.
        let program = r#"
            source ./script.bash
            function=$(complete -p diesel-neon | sed 's/.*-F \([^ ]*\) .*/\1/')
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
        "#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", program, "bash"])
            .args(words)
            .current_dir(folder.path(""));
        let out = Text::of(bash.output().unwrap());
        assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{words:?}");
        out.stdout
    };
    for (words, expected) in [
        (&["diesel-neon", ""][..], "doctor"),
        (&["diesel-neon", "mig"], "migrate"),
        (&["diesel-neon", "migrate", ""], "dry-run"),
        (&["diesel-neon", "migrate", "run", "--lock"], "--lock-wait"),
        (
            &["diesel-neon", "migrate", "dry-run", "--mig"],
            "--migration-dir",
        ),
        (&["diesel-neon", "migrate", "revert", "--n"], "--number"),
        (&["diesel-neon", "doctor", "--sus"], "--suspend-after"),
        (&["diesel-neon", "url", "--j"], "--json"),
        (&["diesel-neon", "size", "--comp"], "--compute-units"),
        (&["diesel-neon", "completions", "f"], "fish"),
    ] {
        let found = complete(words);
        assert!(
            found.lines().any(|line| line == expected),
            "{words:?}: {found:?}"
        );
    }
}

#[test]
fn pages_of_the_manual_can_be_read() {
    let folder = Folder::new("man");
    let render = |page: &[u8]| {
        let mut groff = Command::new("groff");
        groff.args(["-Kutf8", "-man", "-Tutf8", "-ww", "-P-c"]);
        groff
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut groff = groff
            .spawn()
            .expect("groff is missing: apt-get install groff-base");
        groff.stdin.take().unwrap().write_all(page).unwrap();
        let out = Text::of(groff.wait_with_output().unwrap());
        assert_eq!((out.code, &*out.stderr), (Some(0), ""));
        // A bold letter is struck twice.
        let mut text = String::new();
        for c in out.stdout.chars() {
            match c {
                '\u{8}' => drop(text.pop()),
                c => text.push(c),
            }
        }
        // Lines are filled up to both margins.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let printed = folder.command().arg("man").output().unwrap();
    assert!(printed.status.success());
    let first = render(&printed.stdout);
    for text in [
        "diesel-neon",
        "NAME",
        "SUBCOMMANDS",
        "doctor",
        "DATABASE_URL_UNPOOLED",
    ] {
        assert!(first.contains(text), "{first}");
    }

    let into = folder.path("man1");
    let out = Text::of(folder.command().arg("man").arg(&into).output().unwrap());
    assert_eq!((out.code, &*out.stdout, &*out.stderr), (Some(0), "", ""));
    for (page, text) in [
        ("diesel-neon.1", "DATABASE_URL_UNPOOLED"),
        ("diesel-neon-doctor.1", "--suspend-after"),
        ("diesel-neon-migrate.1", "Exit status: 0 done"),
        ("diesel-neon-migrate-revert.1", "--number"),
        ("diesel-neon-url.1", "--json"),
        ("diesel-neon-size.1", "--compute-units"),
    ] {
        let page = render(&fs::read(into.join(page)).unwrap());
        assert!(page.contains(text), "{page}");
    }

    folder.write("file", "");
    let out = Text::of(folder.command().args(["man", "file"]).output().unwrap());
    assert_eq!(out.code, Some(1));
    assert!(
        out.stderr
            .starts_with("diesel-neon: the folder file cannot be written: "),
        "{out:?}"
    );
}

#[tokio::test]
async fn whoever_has_read_enough_is_no_failure() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("pipe");
    let unread = |url: &str, arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = folder.command();
        command
            .env("DATABASE_URL", url)
            .args(arguments)
            .stdout(writer);
        Text::of(command.stderr(Stdio::piped()).output().unwrap())
    };
    for arguments in [
        &["doctor"][..],
        &["doctor", "--json"],
        &["url"],
        &["url", "--json"],
        &["size", "--instances=4", "--compute-units=1"],
        &["completions", "bash"],
        &["man"],
    ] {
        let out = unread(&neon.url(), arguments);
        assert_eq!(out.code, Some(0), "{arguments:?}: {out:?}");
        assert!(
            !out.stderr.contains("panicked") && !out.stderr.contains("pipe"),
            "{out:?}"
        );
    }
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
    for (task, code) in [("list", 0), ("dry-run", 0), ("pending", 3)] {
        let out = unread(&neon.url(), &["migrate", task]);
        assert_eq!(out.code, Some(code), "{task}: {out:?}");
    }

    // The verdict is the same.
    assert_eq!(
        unread("postgresql://u@127.0.0.1:1/db", &["doctor"]).code,
        Some(1)
    );

    // A closed stderr is no reason to panic.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = folder.command();
    let status = command.arg("url").stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn the_doctor_keeps_to_the_columns_that_there_are() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("columns");
    let run = |columns: Option<&str>| {
        let mut command = folder.command();
        command
            .arg("doctor")
            .env("DATABASE_URL", format!("{}&pgbouncer=true", neon.url()));
        command.envs(columns.map(|columns| ("COLUMNS", columns)));
        Text::of(command.output().unwrap()).stdout
    };
    let widest = |text: &str| {
        let prose = text.lines().filter(|line| line.trim_start().contains(' '));
        prose.map(|line| line.chars().count()).max().unwrap()
    };
    let words = |text: &str| -> Vec<String> {
        // Times differ.
        let words = text.split_whitespace().filter(|word| word.len() > 3);
        let words = words.filter(|word| word.chars().all(char::is_alphabetic));
        words.map(str::to_owned).collect()
    };
    let (whole, narrow) = (run(None), run(Some("70")));
    assert!(widest(&whole) > 80, "{whole}");
    assert!(widest(&narrow) <= 70, "{narrow}");
    assert_eq!(words(&narrow), words(&whole));

    let mut help = folder.command();
    let help = help
        .args(["doctor", "--help"])
        .env("COLUMNS", "60")
        .output()
        .unwrap();
    let help = Text::of(help).stdout;
    let options = &help[help.find("Options:").unwrap()..help.find("Environment,").unwrap()];
    assert!(widest(options) <= 60, "{options}");
}

#[tokio::test]
async fn a_signal_undoes_the_migration_under_way_and_says_so() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("signal");
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
    folder.write(
        "migrations/2_b/up.sql",
        "CREATE TABLE b (); SELECT pg_sleep(600);",
    );
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = folder.command();
        command
            .env("DATABASE_URL", neon.url())
            .args(["migrate", "run"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let began = Instant::now();
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        while neon.sql(busy).await.unwrap()[0][0].as_deref() != Some("1") {
            assert!(began.elapsed() < HANG, "it does not begin");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let kill = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
        let out = Text::of(child.wait_with_output().unwrap());
        assert_eq!(out.code, Some(code), "{out:?}");
        let said: Vec<_> = out.stderr.lines().skip(1).collect();
        assert_eq!(
            said,
            [
                "diesel-neon: stopping: the statement under way is cancelled; a second signal leaves at once",
                "diesel-neon: stopped in 2_b; that migration is undone, unless it was at its commit: \
                 diesel-neon migrate list tells"
            ]
        );
        // The statement has ended by the time the command returns.
        assert_eq!(neon.sql(busy).await.unwrap()[0][0].as_deref(), Some("0"));
        let noted = neon
            .sql("SELECT version FROM __diesel_schema_migrations")
            .await
            .unwrap();
        assert_eq!(noted, [[Some("1".to_owned())]]);
    }
}

#[tokio::test]
async fn a_terminal_shows_what_is_under_way_and_for_how_long() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("terminal");
    folder.write("migrations/1_a/up.sql", "SELECT pg_sleep(4);");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder.path(""));
        command.env("DATABASE_URL", neon.url()).stdin(Stdio::null());
        let mut out = String::new();
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{out}");
        out
    };
    let ours = env!("CARGO_BIN_EXE_diesel-neon");
    // `script` gives the command a terminal of its own.
    let shown = run(
        "script",
        &["-qec", &format!("{ours} migrate run"), "/dev/null"],
    );
    assert!(shown.contains("\r\x1b[Kapplying 1_a "), "{shown:?}");
    let (_, took) = shown.split_once("\r\x1b[Kapplied 1_a in ").unwrap();
    let seconds: f64 = took.split('s').next().unwrap().parse().unwrap();
    assert!(seconds >= 4.0, "{shown:?}");
    let long = "migrations/15_b_with_a_longer_name/up.sql";
    folder.write(long, "SELECT pg_sleep(4);");
    let narrow = format!("stty rows 10 cols 30; {ours} migrate run");
    let shown = run("script", &["-qec", &narrow, "/dev/null"]);
    assert!(
        shown.contains("\r\x1b[Kapplying 15_b_with_a_l"),
        "{shown:?}"
    );
    let drawn = shown
        .split("\r\x1b[K")
        .filter(|line| line.starts_with("applying"));
    for line in drawn {
        // A line that wraps leaves another behind each time.
        assert!(
            line.chars().count() < 30 && line.ends_with(" s"),
            "{shown:?}"
        );
    }
    folder.write("migrations/2_b/up.sql", "SELECT pg_sleep(0.5);");
    let piped = run(ours, &["migrate", "run"]);
    assert!(piped.starts_with("applied 2_b in "), "{piped:?}");
}

#[tokio::test]
async fn whoever_does_not_get_the_lock_is_told_of_the_flag() {
    let neon = NeonSim::builder().never_suspend().start().await.unwrap();
    let folder = Folder::new("lock");
    folder.write("migrations/1_a/up.sql", "CREATE TABLE a ();");
    let url = neon.postgres_url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let task = tokio::spawn(connection);
    let lock = format!(
        "SELECT pg_advisory_lock({})",
        diesel_neon::migration::LOCK_KEY
    );
    client.batch_execute(&lock).await.unwrap();
    for (wait, said) in [
        ("0", "--lock-wait 5m waits for it"),
        ("0ms", "--lock-wait 5m waits for it"),
        ("50ms", "or give more time with --lock-wait"),
    ] {
        let mut command = folder.command();
        command.env("DATABASE_URL", neon.url());
        let command = command.args(["migrate", "run", "--lock-wait", wait]);
        let out = Text::of(command.output().unwrap());
        assert_eq!(out.code, Some(1), "{out:?}");
        assert!(out.stderr.contains("held by process "), "{out:?}");
        assert!(out.stderr.trim_end().ends_with(said), "{out:?}");
        assert!(!out.stderr.contains("lock_wait"), "{out:?}");
    }
    drop(client);
    task.await.unwrap().unwrap();
}

/// Far more than anything here takes.
const HANG: Duration = Duration::from_secs(60);
