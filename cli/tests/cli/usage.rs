//! Usage, help and completions.

use crate::folder::{Folder, Text};

#[test]
fn wrong_usage_is_exit_status_2() {
    let folder = Folder::new("usage");
    for arguments in [
        &[][..],
        &["migrate"],
        &["migrate", "up"],
        &["migrate", "revert", "--all", "--number=2"],
        &["doctor", "--instances=0"],
        &["doctor", "--suspend-after=1d"],
        &["completions", "cmd"],
        &["url", "--pooled", "--direct"],
        &["size", "--instances=4"],
        &["size", "--compute-units=1"],
        &["size", "--instances=0", "--compute-units=1"],
        &["size", "--instances=4", "--compute-units=0.3"],
        &["size", "--instances=4", "--compute-units=2-0.25"],
        &[
            "size",
            "--instances=4",
            "--compute-units=1",
            "--max-connections=419",
        ],
        &["size", "--instances=4", "--max-connections=0"],
        &[
            "size",
            "--instances=4",
            "--compute-units=1",
            "--queries-per-second=9",
        ],
        &[
            "size",
            "--instances=4",
            "--compute-units=1",
            "--mean-query-time=9ms",
        ],
        &[
            "size",
            "--instances=4",
            "--compute-units=1",
            "--queries-per-second=-1",
            "--mean-query-time=9ms",
        ],
    ] {
        let out = Text::of(folder.command().args(arguments).output().unwrap());
        assert_eq!((out.code, &*out.stdout), (Some(2), ""));
        assert!(!out.stderr.contains('\x1b'), "{out:?}");
        assert!(
            ["Usage: diesel-neon", "--help"]
                .iter()
                .any(|text| out.stderr.contains(text)),
            "{out:?}"
        );
    }
}

#[test]
fn help_version_and_completions_are_there() {
    let folder = Folder::new("help");
    let run = |arguments: &[&str]| {
        let out = Text::of(folder.command().args(arguments).output().unwrap());
        assert_eq!((out.code, &*out.stderr), (Some(0), ""), "{out:?}");
        assert!(!out.stdout.contains('\x1b'), "{out:?}");
        out.stdout
    };
    assert_eq!(
        run(&["--version"]),
        format!("diesel-neon {}\n", env!("CARGO_PKG_VERSION"))
    );
    for task in ["diesel", "doctor", "migrate", "size", "url", "completions"] {
        assert!(run(&["--help"]).contains(&format!("  {task} ")));
    }
    let help = run(&["doctor", "--help"]);
    for text in [
        "DATABASE_URL_UNPOOLED",
        "Exit status",
        "elapsed_ms",
        "--suspend-after",
    ] {
        assert!(help.contains(text), "{help}");
    }
    assert!(run(&["migrate", "--help"]).contains("Exit status"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).contains("doctor"));
    }
}
