//! `taskcast bench` against servers that keep their promises, and against some
//! that do not.

mod liar;

use serde_json::Value;

use self::liar::{Liar, Lie};
use crate::support::Backend;
use crate::support::place::{Ended, Place};
use crate::support::server::Server;

/// Runs a measurement; returns how it ended and what it printed.
async fn bench(arguments: &str, url: &str) -> (Ended, Value) {
    let ended = Place::new().run(&format!("bench {arguments} --url {url} --json")).await;
    let report = serde_json::from_str(&ended.stdout).unwrap_or_default();
    (ended, report)
}

/// Measures a server in memory, which must be found without fault.
async fn measure(arguments: &str) -> (Server, Value) {
    let server = Backend::Memory.start().await;
    let (ended, report) = bench(arguments, server.url()).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(report["scenario"], arguments.split(' ').next().unwrap());
    assert_eq!(report["url"], server.url());
    assert_eq!(report["faults"], Value::Array(Vec::new()));
    for number in ["rate", "seconds"] {
        assert!(report[number].as_f64().unwrap() > 0.0, "{number}: {report}");
    }
    (server, report)
}

fn count(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_is_measured_and_read_back() {
    let (_, report) = measure("publish --tasks 5 --producers 3 --count 300 --warmup 0").await;
    assert!(count(&report, "acknowledged") >= 300);
    assert_eq!(report["acknowledged"], report["delivered"]);
    assert_eq!(report["rateUnit"], "events/s");
    let latency = &report["latency"]["request"];
    assert_eq!(count(latency, "count"), count(&report, "acknowledged"));
    let rising = ["p50", "p90", "p99", "p999", "max"].map(|name| latency[name].as_f64().unwrap());
    assert!(rising.is_sorted() && rising[0] > 0.0, "{latency}");
    assert!(count(&report["serverMemory"], "beforeBytes") > 0);
    assert_eq!(count(&report["parameters"], "producers"), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_for_a_time_warms_up_first() {
    let (_, report) = measure("publish --tasks 2 --producers 2 --duration 0.2 --warmup 0.1").await;
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.2..2.0).contains(&seconds), "{report}");
    // What was published to warm up is checked and not measured.
    assert!(count(&report["latency"]["request"], "count") < count(&report, "acknowledged"));
    assert_eq!(report["acknowledged"], report["delivered"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_count_events_not_requests() {
    let arguments = "batch --tasks 5 --producers 2 --events 20 --count 400 --warmup 0";
    let (_, report) = measure(arguments).await;
    assert!(count(&report, "acknowledged") >= 400);
    assert_eq!(report["acknowledged"], report["delivered"]);
    assert_eq!(count(&report["latency"]["request"], "count") * 20, count(&report, "acknowledged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_series_can_be_published() {
    for series in ["keep-all", "accumulate", "latest"] {
        let arguments = format!("publish --series {series} --producers 3 --count 150 --warmup 0");
        let (_, report) = measure(&arguments).await;
        assert_eq!(report["parameters"]["series"], series);
        assert_eq!(count(&report["parameters"], "tasks"), 3);
        let (acknowledged, delivered) =
            (count(&report, "acknowledged"), count(&report, "delivered"));
        if series == "latest" {
            assert_eq!(delivered, 3, "one is left of each series");
        } else {
            assert_eq!(delivered, acknowledged);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_deliver_everything_to_every_reader() {
    let arguments = "stream --tasks 4 --subscribers 8 --producers 3 --count 200 --warmup 0";
    let (_, report) = measure(arguments).await;
    assert_eq!(count(&report, "delivered"), 2 * count(&report, "acknowledged"));
    assert_eq!(count(&report["latency"]["delivery"], "count"), count(&report, "delivered"));
    assert!(report["deliveryRate"].as_f64().unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_run_goes_from_one_instance_to_another() {
    let backend = Backend::postgres().await;
    let (writer, reader) = backend.start_two().await;
    let arguments = format!(
        "stream --rate 200 --tasks 4 --producers 4 --duration 0.5 --warmup 0 --read-url {}",
        reader.url()
    );
    let (ended, report) = bench(&arguments, writer.url()).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(report["readUrl"], reader.url());
    assert_eq!(report["acknowledged"], report["delivered"]);
    // Never faster than asked for; a tenth of a second's worth may fall behind the end.
    assert!((1..=120).contains(&count(&report, "acknowledged")), "{report}");
    // What a producer sends when the time is just up is delivered, but not timed.
    let delivered = count(&report, "delivered");
    let timed = count(&report["latency"]["delivery"], "count");
    assert!((delivered.saturating_sub(4)..=delivered).contains(&timed), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fanning_out_counts_deliveries() {
    let (_, report) = measure("fanout --subscribers 20 --producers 2 --count 100 --warmup 0").await;
    assert_eq!(report["rateUnit"], "deliveries/s");
    assert_eq!(count(&report, "delivered"), 20 * count(&report, "acknowledged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_readers_find_the_text_and_the_log() {
    let (_, report) = measure("join --events 700 --subscribers 3 --rounds 2").await;
    assert_eq!((count(&report, "acknowledged"), count(&report, "delivered")), (700, 6));
    assert_eq!(count(&report["latency"]["join"], "count"), 6);
    let (_, report) = measure("replay --events 703 --subscribers 3 --rounds 2").await;
    assert_eq!((count(&report, "acknowledged"), count(&report, "delivered")), (703, 6 * 703));
    assert_eq!(count(&report["latency"]["replay"], "count"), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_streams_cost_memory_and_are_not_deaf() {
    let (_, report) = measure("idle --subscribers 60 --tasks 7 --hold 0").await;
    assert_eq!((count(&report, "acknowledged"), count(&report, "delivered")), (7, 60));
    assert!(report["serverMemory"]["perStreamBytes"].is_f64());
    assert_eq!(count(&report["latency"]["open"], "count"), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lives_of_tasks_are_counted() {
    let (server, report) = measure("lifecycle --producers 3 --count 60 --warmup 0").await;
    assert_eq!(count(&report["latency"]["cycle"], "count"), 60);
    assert_eq!(count(&report["latency"]["request"], "count"), 180);
    assert_eq!((count(&report, "acknowledged"), count(&report, "delivered")), (120, 120));
    let completed = server.get("/tasks?status=completed&type=bench&limit=100").await;
    assert_eq!(completed.json()["tasks"].as_array().unwrap().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_asked_for() {
    for arguments in [
        "publish --tasks 20 --producers 2 --count 20 --warmup 0 --delete",
        "lifecycle --producers 2 --count 10 --warmup 0 --delete",
    ] {
        let (server, _) = measure(arguments).await;
        assert_eq!(server.get("/tasks").await.json()["tasks"], Value::Array(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_sent_with_every_request() {
    let secret = "0123456789abcdef0123456789abcdef";
    let variables = [("TASKCAST_AUTH_MODE", "jwt"), ("TASKCAST_JWT_SECRET", secret)];
    let server = Backend::Memory.start_with(&variables).await;
    let arguments = "stream --tasks 2 --producers 1 --count 5 --warmup 0";
    let (ended, _) = bench(arguments, server.url()).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("POST /tasks was answered 401"), "{}", ended.stderr);

    let place = Place::new().env(variables[0].0, variables[0].1).env(variables[1].0, secret);
    let minted = place.run("token mint --task-ids * --scope *").await.stdout;
    let (ended, _) = bench(&format!("{arguments} --token {}", minted.trim()), server.url()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stdout.contains(minted.trim()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_gets_a_table() {
    let server = Backend::Memory.start().await;
    let arguments = "bench publish --tasks 1 --producers 1 --count 9 --warmup 0 --threads 2";
    let ended = Place::new().run(&format!("{arguments} --url {}/", server.url())).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["publish ", "rate ", "events/s", "p99.9", "request ", "faults", "none"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert_eq!(ended.stderr, "", "there is no bar without a terminal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_spelled_otherwise_is_understood() {
    let liar = Liar::start(Lie::None).await;
    for arguments in [
        "stream --tasks 2 --producers 2 --count 40 --warmup 0",
        "publish --tasks 2 --producers 2 --count 40 --warmup 0",
        "batch --tasks 2 --producers 2 --events 5 --count 40 --warmup 0",
        "replay --events 9 --subscribers 2 --rounds 1",
    ] {
        let (ended, report) = bench(arguments, &liar.url).await;
        assert_eq!(ended.code, Some(0), "{arguments}: {}{}", ended.stdout, ended.stderr);
        assert!(report.get("serverMemory").is_none(), "it tells nothing about its memory");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lie_of_a_stream_ends_with_status_one_and_its_name() {
    for (lie, fault) in [
        (Lie::Drop, "gap"),
        (Lie::Repeat, "duplicate"),
        (Lie::Swap, "reordering"),
        (Lie::Alter, "mismatch"),
        (Lie::End, "cut"),
    ] {
        let liar = Liar::start(lie).await;
        for arguments in [
            "stream --tasks 1 --producers 1 --count 20 --warmup 0 --timeout 0.5",
            "publish --tasks 1 --producers 1 --count 20 --warmup 0 --timeout 0.5",
            "replay --events 20 --subscribers 1 --rounds 1 --timeout 0.5",
        ] {
            broken(&liar, arguments, fault).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lie_about_a_publish_ends_with_status_one_and_its_name() {
    for (lie, fault) in
        [(Lie::Silence, "unanswered"), (Lie::Refuse, "refused"), (Lie::Reuse, "mismatch")]
    {
        let liar = Liar::start(lie).await;
        let arguments = "publish --tasks 1 --producers 1 --count 20 --warmup 0 --timeout 0.5";
        broken(&liar, arguments, fault).await;
    }
}

/// Measures a liar, and expects one kind of fault.
async fn broken(liar: &Liar, arguments: &str, fault: &str) {
    let (ended, report) = bench(arguments, &liar.url).await;
    assert_eq!(ended.code, Some(1), "{arguments}: {}", ended.stdout);
    let kinds: Vec<_> =
        report["faults"].as_array().unwrap().iter().map(|fault| &fault["kind"]).collect();
    assert!(kinds.contains(&&Value::from(fault)), "{arguments}: {report}");
    let complaint = ended.stderr.lines().collect::<Vec<_>>();
    assert_eq!(complaint.len(), 1, "{}", ended.stderr);
    assert!(complaint[0].starts_with("taskcast: the server broke its promises: "));
    assert!(complaint[0].contains(fault), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_one_sentence() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    Place::new().refused(&format!("bench publish --url {url}"), &["cannot reach", &url]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_make_no_sense_are_wrong_usage() {
    for arguments in [
        "bench",
        "bench everything",
        "bench publish --url https://localhost",
        "bench publish --url http://user:secret@localhost",
        "bench publish --tasks 0",
        "bench publish --rate 0",
        "bench publish --series newest",
        "bench publish --duration 3 --count 3",
        "bench publish --duration -1",
        "bench publish --subscribers 3",
        "bench join --rate 3",
        "bench join --events 1",
        "bench idle --series latest",
    ] {
        let ended = Place::new().run(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments}: {}", ended.stderr);
    }
}
