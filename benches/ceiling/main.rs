//! How much load `taskcast bench` can make, so that its figures are known to be
//! the server's and not its own.
//!
//! The scenarios run against a responder that does next to nothing: it answers
//! from memory, in a thread of its own, without looking at what it is sent more
//! than it must. What is measured is the ceiling of every figure that
//! `taskcast bench` can report on this machine. It should be at least twice
//! what a server is expected to do.
//!
//!     cargo bench --bench ceiling                        # all scenarios
//!     cargo bench --bench ceiling -- --seconds 1 stream  # one of them, briefly

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod responder;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use taskcast::bench::{
    FanoutOptions, LifecycleOptions, LoadOptions, Period, Progress, PublishOptions, Report,
    Scenario, Series, StreamOptions, Target, Until, run,
};

/// A scenario, and the figure that it must be able to report twice over.
struct Case {
    name: &'static str,
    goal: f64,
    scenario: Scenario,
}

fn cases(seconds: f64) -> [Case; 6] {
    let until = Until::Elapsed(Duration::from_secs_f64(seconds));
    let period = Period { warmup: Duration::from_secs_f64(seconds / 5.0), until };
    let load =
        LoadOptions { tasks: 100, producers: 50, events: 1, rate: None, series: None, period };
    let publish = |load| Scenario::Publish(PublishOptions { load });
    let series = Some(Series::Accumulate);
    [
        Case { name: "publish", goal: 30_000.0, scenario: publish(load) },
        Case {
            name: "batch",
            goal: 100_000.0,
            scenario: Scenario::Batch(PublishOptions { load: LoadOptions { events: 50, ..load } }),
        },
        Case {
            name: "accumulate",
            goal: 15_000.0,
            scenario: publish(LoadOptions { tasks: 10, producers: 10, series, ..load }),
        },
        Case {
            name: "stream",
            goal: 13_300.0,
            scenario: Scenario::Stream(StreamOptions { load, subscribers: 100 }),
        },
        Case {
            name: "fanout",
            goal: 250_000.0,
            scenario: Scenario::Fanout(FanoutOptions {
                load: LoadOptions { tasks: 1, producers: 8, ..load },
                subscribers: 500,
            }),
        },
        Case {
            name: "lifecycle",
            goal: 5_000.0,
            scenario: Scenario::Lifecycle(LifecycleOptions { producers: 50, period }),
        },
    ]
}

async fn measure(scenario: Scenario) -> anyhow::Result<Report> {
    let address = responder::start().context("the responder did not start")?;
    let target = Target {
        url: format!("http://{address}").parse().map_err(anyhow::Error::msg)?,
        read_url: None,
        token: None,
        timeout: Duration::from_secs(10),
        threads: 1,
        delete: false,
    };
    Ok(run(target, scenario, Arc::new(Progress::default())).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut seconds, mut wanted) = (3.0, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What cargo adds.
            "--bench" => {}
            "--seconds" => {
                seconds = arguments.next().context("--seconds needs a number")?.parse()?;
            }
            name => wanted.push(name.to_owned()),
        }
    }
    println!("{:<12} {:>12} {:>12} {:>8}", "scenario", "per second", "expected", "times");
    let mut broken = 0;
    for Case { name, goal, scenario } in cases(seconds) {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let report = measure(scenario).await?;
        println!("{name:<12} {:>12.0} {goal:>12.0} {:>8.1}", report.rate, report.rate / goal);
        if let Some(complaint) = report.complaint() {
            println!("  {complaint}");
            broken += 1;
        }
    }
    if broken > 0 {
        bail!("{broken} scenarios found faults in a responder that has none");
    }
    Ok(())
}
