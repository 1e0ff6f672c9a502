//! `taskcast bench postgres`: its figures, its comparisons, and that nothing
//! of it stays behind.

use serde_json::Value;
use tokio::process::Command;

use crate::support::place::{Ended, Place};
use crate::support::postgres::Database;
use crate::support::{until, within};

/// As short as a run can be.
const SHORT: &str = "bench postgres --duration 0.1 --clients 2 --batch 10,50 --tasks 20 \
                     --log-level error";

/// The figures of such a run.
const NAMES: [&str; 7] = [
    "insert-2",
    "insert-numbered-2",
    "insert-notify-2",
    "notify-2",
    "append-10",
    "append-50",
    "commit",
];

fn place(database: &Database) -> Place {
    Place::new().env("TASKCAST_POSTGRES_URL", database.url())
}

/// Returns the databases that runs made beside this one and did not drop.
async fn left_behind(database: &Database) -> Vec<String> {
    let mut connection = database.connect().await;
    sqlx::query_scalar(
        "SELECT datname::text FROM pg_database
         WHERE starts_with(datname, 'taskcast_bench_' || current_database() || '_')",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn every_figure_is_measured_and_compared_and_no_database_stays() {
    let database = Database::empty().await;
    let place = place(&database)
        .file("one.json", r#"{"scenario": "batch", "rate": 5000, "rateUnit": "events/s"}"#);
    let ended = place.run(&format!("{SHORT} --json --ratio a=1000 --against one.json")).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    let figures = found["figures"].as_array().unwrap();
    let names: Vec<_> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    assert_eq!(names, NAMES);
    for figure in figures {
        let number = |name: &str| figure[name].as_f64().unwrap();
        assert!(number("rate") > 0.0, "{figure}");
        assert!(0.0 < number("p50") && number("p50") <= number("p99"), "{figure}");
    }
    assert_eq!(found["server"]["synchronousCommit"], "on");
    for (at, (name, rate)) in [("a", 1_000.0), ("batch", 5_000.0)].into_iter().enumerate() {
        let ratios = &found["ratios"][at];
        assert_eq!(ratios["name"], name);
        for figure in figures {
            let ratio = ratios["to"][figure["name"].as_str().unwrap()].as_f64().unwrap();
            let of_rates = rate / figure["rate"].as_f64().unwrap();
            assert!((ratio / of_rates - 1.0).abs() < 1e-9, "{ratios}");
        }
    }
    assert_eq!(left_behind(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_table_has_a_row_for_every_figure_and_a_column_for_every_comparison() {
    let database = Database::empty().await;
    let Ended { code, stdout, stderr } =
        place(&database).run(&format!("{SHORT} --ratio mine=1000")).await;
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].ends_with("mine 1,000"), "{stdout}");
    assert_eq!(lines.len(), 1 + NAMES.len() + 2, "{stdout}");
    assert!(lines.iter().any(|line| line.starts_with("50 events per statement, 20 tasks")));
    assert!(lines.last().unwrap().contains("fsync"), "{stdout}");
}

#[tokio::test]
async fn the_schema_of_the_database_that_was_named_stays_as_it_is() {
    let database = Database::migrated().await;
    let ended = place(&database).run(SHORT).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut connection = database.connect().await;
    let rows: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM taskcast.event) + (SELECT count(*) FROM taskcast.head)
              + (SELECT count(*) FROM taskcast.receipt)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_leaves_no_database() {
    let database = Database::empty().await;
    let place = place(&database);
    let run = place.command("bench postgres --duration 600 --log-level error").spawn().unwrap();
    until("the run has its database", || async {
        (!left_behind(&database).await.is_empty()).then_some(())
    })
    .await;
    let id = run.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let output = within("the run ends", run.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("interrupted"), "{stderr}");
    assert_eq!(left_behind(&database).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_database_that_cannot_be_measured_is_one_sentence() {
    let nobody = Place::new();
    nobody.refused(SHORT, &["no database to measure", "TASKCAST_POSTGRES_URL"]).await;
    let place = Place::new().env("TASKCAST_POSTGRES_URL", "postgres://u:canary@127.0.0.1:1/none");
    let said = place
        .refused(SHORT, &["cannot measure postgres://127.0.0.1:1/none", "cannot connect"])
        .await;
    assert!(!said.contains("canary"), "{said}");
}

#[tokio::test]
async fn a_report_that_cannot_be_compared_is_one_sentence() {
    let place = Place::new()
        .file("joins.json", r#"{"scenario": "join", "rate": 5, "rateUnit": "joins/s"}"#)
        .file("text.json", "no JSON");
    place.refused(&format!("{SHORT} --against joins.json"), &["join", "joins/s", "events/s"]).await;
    place.refused(&format!("{SHORT} --against text.json"), &["text.json"]).await;
    place.refused(&format!("{SHORT} --against none.json"), &["cannot read none.json"]).await;
}
