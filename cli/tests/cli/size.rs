//! `diesel-neon size`.

use std::fs;

use serde_json::Value;

use crate::folder::{Folder, Text, repository};

fn run(folder: &Folder, arguments: &[&str]) -> Text {
    Text::of(
        folder
            .command()
            .arg("size")
            .args(arguments)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_page_shows_what_the_command_prints() {
    let page = fs::read_to_string(repository().join("docs/sizing.md")).unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let folder = Folder::new("size_page");
    let arguments: Vec<_> = block("sh").split_whitespace().skip(2).collect();
    let out = run(&folder, &arguments);
    assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{out:?}");
    assert_eq!(out.stdout, block("text"), "{}", out.stdout);
}

#[test]
fn the_numbers_are_there_for_machines_too() {
    let folder = Folder::new("size_json");
    let run = |code: i32, arguments: &[&str]| {
        let out = run(&folder, &[arguments, &["--json"]].concat());
        assert_eq!((out.code, &*out.stderr), (Some(code), ""), "{out:?}");
        serde_json::from_str::<Value>(&out.stdout).unwrap()
    };
    let few = run(0, &["--instances=4", "--compute-units=0.25"]);
    assert_eq!(
        (&few["verdict"], &few["endpoint"]),
        (&"ok".into(), &"direct".into())
    );
    assert_eq!(
        (&few["max_size"], &few["max_connections"]),
        (&10.into(), &104.into())
    );
    assert_eq!(
        few["direct"],
        serde_json::json!({"connections": 97, "max_size_at_most": 24})
    );
    assert_eq!(few["in_use"], Value::Null);
    assert_eq!(
        (
            &few["wake_up"]["logins_at_once"],
            &few["wake_up"]["connections_at_most"]
        ),
        (&16.into(), &40.into())
    );
    assert_eq!(few["wake_up"]["connect_timeout_seconds"], 15.0);

    let functions = [
        "--instances=300",
        "--max-connections=104",
        "--queries-per-second=500",
        "--mean-query-time=20ms",
    ];
    let functions = run(0, &functions);
    assert_eq!(
        (&functions["endpoint"], &functions["max_size"]),
        (&"pooled".into(), &1.into())
    );
    assert_eq!(
        (
            &functions["server_connections"],
            &functions["in_use"]["mean"]
        ),
        (&93.into(), &10.0.into())
    );
    assert_eq!(functions["wake_up"]["logins_at_once"], 300);

    let over = [
        "--instances=20",
        "--compute-units=0.25",
        "--queries-per-second=1000",
        "--mean-query-time=100ms",
    ];
    let over = run(1, &over);
    assert_eq!(over["verdict"], "failure");
    let finding = &over["findings"][0];
    assert_eq!(
        (&finding["status"], &finding["code"]),
        (&"failure".into(), &"server-connections".into())
    );
}

#[test]
fn what_does_not_fit_is_told_with_its_mend() {
    let folder = Folder::new("size_over");
    let load = ["--queries-per-second=850000", "--mean-query-time=4ms"];
    let out = run(
        &folder,
        &[&["--instances=900", "--compute-units=56"], &load[..]].concat(),
    );
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(
        out.stdout.contains("\n  warning   while a deploy "),
        "{out:?}"
    );
    assert!(
        out.stdout.contains("\n  mend      set max_size to 5, "),
        "{out:?}"
    );
    let out = run(&folder, &["--instances=10001", "--compute-units=56"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(
        out.stdout
            .contains("\n  FAILURE   10001 instances cannot have "),
        "{out:?}"
    );
}

#[test]
fn the_window_is_in_the_code_and_is_checked() {
    let folder = Folder::new("size_window");
    let run = |window: &str| {
        let arguments = [
            "--instances=1",
            "--compute-units=1",
            "--suspend-after",
            window,
        ];
        run(&folder, &arguments)
    };
    for (window, line) in [
        ("60s", "    .suspend_after(Duration::from_secs(60))\n"),
        (
            "90500ms",
            "    .suspend_after(Duration::from_millis(90500))\n",
        ),
        ("never", "    .never_suspends()\n"),
    ] {
        let out = run(window);
        assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{out:?}");
        assert!(
            out.stdout.contains(&format!("Pool::builder(url)\n{line}")),
            "{out:?}"
        );
        assert_eq!(out.stdout.contains("wake-up"), window != "never", "{out:?}");
    }
    let out = run("1ms");
    assert_eq!((out.code, &*out.stdout), (Some(2), ""), "{out:?}");
    assert!(
        out.stderr.contains("suspend_after (1ms) must be at least "),
        "{out:?}"
    );
}
