//! `taskcast bench`: puts a load on a server, measures it, and checks that
//! nothing of it got lost; or measures a database by itself.

use std::io::{IsTerminal as _, stderr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{bench_postgres, print};
use crate::bench::{
    self, BaseUrl, FanoutOptions, IdleOptions, JoinOptions, LifecycleOptions, LoadOptions, Period,
    Progress, PublishOptions, ReplayOptions, Report, Scenario, Series, StreamOptions, Target,
    Token, Until,
};
use crate::config::Environment;

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Longest time an option may give, in seconds.
const LONGEST_SECONDS: f64 = 86_400.0;

/// Options of `taskcast bench`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Server(ServerCommand),
    /// Measure what the database can do by itself, in a database of its own
    /// that is dropped in the end.
    Postgres(bench_postgres::Arguments),
}

/// What can be measured of a server.
#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Store events, one in a request.
    Publish {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: LoadArguments,
    },
    /// Store events, many in a request.
    Batch {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: LoadArguments,
        /// Events in a request.
        #[arg(long, value_name = "COUNT", default_value = "50")]
        events: NonZeroUsize,
    },
    /// Store events while readers follow; with --rate, from publishing to delivery.
    Stream {
        #[command(flatten)]
        target: TargetArguments,
        #[command(flatten)]
        load: LoadArguments,
        /// Events in a request.
        #[arg(long, value_name = "COUNT", default_value = "1")]
        events: NonZeroUsize,
        /// Readers, spread over the tasks [default: one for each task].
        #[arg(long, value_name = "COUNT")]
        subscribers: Option<NonZeroUsize>,
    },
    /// Deliver the events of one task to many readers.
    Fanout(Fanout),
    /// Come late to a text of many pieces.
    Join(Late),
    /// Come late to many events.
    Replay(Late),
    /// Hold streams open on which nothing happens.
    Idle(Idle),
    /// Create, run and complete tasks.
    Lifecycle {
        #[command(flatten)]
        target: TargetArguments,
        /// Connections that run tasks at the same time.
        #[arg(long, value_name = "COUNT", default_value = "50")]
        producers: NonZeroUsize,
        #[command(flatten)]
        period: PeriodArguments,
    },
}

/// Options of every scenario.
#[derive(Debug, Args)]
struct TargetArguments {
    /// Server to measure, with the prefix of its routes if they have one.
    #[arg(long, value_name = "URL", default_value = "http://localhost:3721")]
    url: BaseUrl,
    /// Second instance, to read from what was written to the first.
    #[arg(long, value_name = "URL")]
    read_url: Option<BaseUrl>,
    /// Bearer token for all requests. Other users of the machine can see it.
    #[arg(long, value_name = "TOKEN")]
    token: Option<Token>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Seconds that an answer may take, and that a reader may wait for what it is owed.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    timeout: Duration,
    /// Threads that make the load. More than one only if one is too slow:
    /// they take their processors from a server on the same machine.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    threads: NonZeroUsize,
    /// Delete the tasks afterwards. Without it they stay, with type `bench`.
    #[arg(long)]
    delete: bool,
}

/// How long is measured.
#[derive(Debug, Args)]
struct PeriodArguments {
    /// Seconds to measure.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// Measure so many events (of `lifecycle`, tasks) instead, however long they take.
    #[arg(long, value_name = "COUNT", conflicts_with = "duration")]
    count: Option<u64>,
    /// Seconds of load before the measuring begins.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    warmup: Duration,
}

/// What is published, and how.
#[derive(Debug, Args)]
struct LoadArguments {
    /// Tasks to publish to [default: 100; with --series one for each producer].
    #[arg(long, value_name = "COUNT")]
    tasks: Option<NonZeroUsize>,
    /// Connections that publish at the same time.
    #[arg(long, value_name = "COUNT", default_value = "50")]
    producers: NonZeroUsize,
    /// Events per second over all producers [default: as many as go through].
    #[arg(long, value_name = "COUNT", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Give each producer a task and a series of its own in it.
    #[arg(long, value_name = "MODE")]
    series: Option<Series>,
    #[command(flatten)]
    period: PeriodArguments,
}

#[derive(Debug, Args)]
struct Fanout {
    #[command(flatten)]
    target: TargetArguments,
    /// Readers of the task.
    #[arg(long, value_name = "COUNT", default_value = "500")]
    subscribers: NonZeroUsize,
    /// Connections that publish at the same time.
    #[arg(long, value_name = "COUNT", default_value = "8")]
    producers: NonZeroUsize,
    /// Events in a request.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    events: NonZeroUsize,
    /// Events per second over all producers [default: as many as the readers take].
    #[arg(long, value_name = "COUNT", value_parser = parse_rate)]
    rate: Option<f64>,
    #[command(flatten)]
    period: PeriodArguments,
}

/// Options of the scenarios in which readers come late.
#[derive(Debug, Args)]
struct Late {
    #[command(flatten)]
    target: TargetArguments,
    /// Readers that come at the same moment.
    #[arg(long, value_name = "COUNT", default_value = "20")]
    subscribers: NonZeroUsize,
    /// Events in the log they come to; at least 2.
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = parse_length)]
    events: usize,
    /// How often they come, one time after the other.
    #[arg(long, value_name = "COUNT", default_value = "5")]
    rounds: NonZeroUsize,
}

#[derive(Debug, Args)]
struct Idle {
    #[command(flatten)]
    target: TargetArguments,
    /// Streams to hold open.
    #[arg(long, value_name = "COUNT", default_value = "5000")]
    subscribers: NonZeroUsize,
    /// Tasks they are spread over.
    #[arg(long, value_name = "COUNT", default_value = "100")]
    tasks: NonZeroUsize,
    /// Seconds the streams stay idle before memory is read.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    hold: Duration,
}

impl ValueEnum for Series {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    if (0.0..=LONGEST_SECONDS).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("must be seconds from 0 to {LONGEST_SECONDS}"))
    }
}

fn parse_rate(text: &str) -> Result<f64, &'static str> {
    let rate: f64 = text.parse().map_err(|_| "must be a number of events per second")?;
    // Slower than one a day is a mistake, and so is what no clock can tell apart.
    (1e-5..=1e9).contains(&rate).then_some(rate).ok_or("must be above 0 and at most 1000000000")
}

fn parse_length(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|length| *length >= 2).ok_or("must be a whole number of at least 2")
}

impl PeriodArguments {
    fn period(&self) -> Period {
        let until = self.count.map_or(Until::Elapsed(self.duration), Until::Count);
        Period { warmup: self.warmup, until }
    }
}

impl LoadArguments {
    fn options(&self, events: usize) -> LoadOptions {
        let producers = self.producers.get();
        let tasks = match (self.tasks, self.series) {
            (Some(tasks), _) => tasks.get(),
            (None, Some(_)) => producers,
            (None, None) => 100,
        };
        let (rate, series) = (self.rate, self.series);
        LoadOptions { tasks, producers, events, rate, series, period: self.period.period() }
    }
}

impl ServerCommand {
    /// Returns what to measure, and where.
    fn scenario(&self) -> (&TargetArguments, Scenario) {
        match self {
            Self::Publish { target, load } => {
                (target, Scenario::Publish(PublishOptions { load: load.options(1) }))
            }
            Self::Batch { target, load, events } => {
                (target, Scenario::Batch(PublishOptions { load: load.options(events.get()) }))
            }
            Self::Stream { target, load, events, subscribers } => {
                let load = load.options(events.get());
                let subscribers = subscribers.map_or(load.tasks, NonZeroUsize::get);
                (target, Scenario::Stream(StreamOptions { load, subscribers }))
            }
            Self::Fanout(fanout) => (&fanout.target, fanout.scenario()),
            Self::Join(Late { target, subscribers, events, rounds }) => {
                let (subscribers, rounds) = (subscribers.get(), rounds.get());
                (target, Scenario::Join(JoinOptions { subscribers, events: *events, rounds }))
            }
            Self::Replay(Late { target, subscribers, events, rounds }) => {
                let (subscribers, rounds) = (subscribers.get(), rounds.get());
                (target, Scenario::Replay(ReplayOptions { subscribers, events: *events, rounds }))
            }
            Self::Idle(Idle { target, subscribers, tasks, hold }) => {
                let (subscribers, tasks) = (subscribers.get(), tasks.get());
                (target, Scenario::Idle(IdleOptions { subscribers, tasks, hold: *hold }))
            }
            Self::Lifecycle { target, producers, period } => {
                let (producers, period) = (producers.get(), period.period());
                (target, Scenario::Lifecycle(LifecycleOptions { producers, period }))
            }
        }
    }
}

impl Fanout {
    fn scenario(&self) -> Scenario {
        let load = LoadOptions {
            tasks: 1,
            producers: self.producers.get(),
            events: self.events.get(),
            rate: self.rate,
            series: None,
            period: self.period.period(),
        };
        Scenario::Fanout(FanoutOptions { load, subscribers: self.subscribers.get() })
    }
}

/// Measures, prints what it came to, and fails if the server broke a promise.
pub(super) async fn run(arguments: Arguments, environment: Environment) -> anyhow::Result<()> {
    let command = match arguments.command {
        Command::Server(command) => command,
        Command::Postgres(arguments) => return bench_postgres::run(arguments, environment).await,
    };
    let (options, scenario) = command.scenario();
    let target = Target {
        url: options.url.clone(),
        read_url: options.read_url.clone(),
        token: options.token.clone(),
        timeout: options.timeout,
        threads: options.threads.get(),
        delete: options.delete,
    };
    let report = measure(target, scenario).await?;
    let text = if options.json { serde_json::to_string(&report)? } else { report.to_string() };
    print(&text)?;
    match report.complaint() {
        Some(complaint) => bail!(complaint),
        None => Ok(()),
    }
}

/// Runs a scenario, and shows on a terminal how far it is.
async fn measure(target: Target, scenario: Scenario) -> anyhow::Result<Report> {
    let progress = Arc::new(Progress::default());
    let running = bench::run(target, scenario, progress.clone());
    if !stderr().is_terminal() {
        return Ok(running.await?);
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let known = ProgressStyle::with_template("{msg:>22} {wide_bar} {percent:>3}%")?;
    let unknown = ProgressStyle::with_template("{msg:>22} {spinner}")?;
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    tokio::pin!(running);
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => break outcome,
            _ = ticks.tick() => {
                let phase = progress.phase();
                bar.set_style(if phase.total == 0 { unknown.clone() } else { known.clone() });
                bar.set_message(phase.name);
                bar.set_length(phase.total);
                bar.set_position(phase.done.min(phase.total));
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    Ok(outcome?)
}
