//! The lines of the table: what is run, what is read off, where it must arrive.

use Better::{Higher, Lower};

/// What the database does by itself, as far as the table is concerned.
pub(crate) const POSTGRES: &str = "postgres";

/// Where the server of a line keeps its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Memory,
    Postgres,
    /// In Postgres, with a second instance for the readers.
    PostgresTwice,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A value and where it must arrive.
#[derive(Debug)]
pub(crate) struct Target {
    /// What it is a value of, as the table says.
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// Below it the run fails.
    pub(crate) bar: Option<f64>,
    pub(crate) goal: Option<f64>,
    /// Where the report has it.
    pub(crate) pointer: &'static str,
    /// What the report's value is multiplied by.
    pub(crate) scale: f64,
    /// What the report has of it from before the run, where only what was added
    /// since counts.
    pub(crate) base: Option<&'static str>,
}

impl Target {
    const fn new(
        what: &'static str,
        unit: &'static str,
        pointer: &'static str,
        better: Better,
        (bar, goal): (f64, f64),
    ) -> Self {
        let (bar, goal) = (Some(bar), Some(goal));
        Self { what, unit, better, bar, goal, pointer, scale: 1.0, base: None }
    }

    /// Counts in units of `bytes`.
    const fn per(mut self, bytes: f64) -> Self {
        self.scale = 1.0 / bytes;
        self
    }

    const fn since(mut self, base: &'static str) -> Self {
        self.base = Some(base);
        self.goal = None;
        self
    }

    /// Tells whether a value reaches the bar, or there is none.
    pub(crate) fn holds(&self, value: f64) -> bool {
        self.bar.is_none_or(|bar| self.reaches(value, bar))
    }

    /// Tells whether a value reaches the goal, if there is one.
    pub(crate) fn reaches_goal(&self, value: f64) -> Option<bool> {
        self.goal.map(|goal| self.reaches(value, goal))
    }

    fn reaches(&self, value: f64, aim: f64) -> bool {
        match self.better {
            Higher => value >= aim,
            Lower => value <= aim,
        }
    }
}

/// One line: a scenario on a server of its own.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) storage: Storage,
    /// The scenario and its options, for each run on the same server.
    pub(crate) runs: &'static [&'static str],
    pub(crate) targets: &'static [Target],
}

/// How the first value of a line compares with a figure of the database by itself.
#[derive(Debug)]
pub(crate) struct Ratio {
    pub(crate) of: &'static str,
    /// Name of the figure.
    pub(crate) to: &'static str,
    pub(crate) target: Target,
}

impl Ratio {
    const fn new(of: &'static str, to: &'static str, what: &'static str) -> Self {
        let mut target = Target::new(what, "×", "", Higher, (0.0, 0.0));
        target.bar = None;
        target.goal = None;
        Self { of, to, target }
    }

    const fn at_least(mut self, bar: f64) -> Self {
        self.target.bar = Some(bar);
        self
    }
}

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

const RATE: &str = "/rate";
const RESIDENT: &str = "/serverMemory/afterBytes";

pub(crate) const LINES: &[Line] = &[
    Line {
        name: "publish",
        storage: Storage::Postgres,
        runs: &["publish --tasks 100 --producers 50"],
        targets: &[Target::new(
            "durable single-event POSTs, 50 producers",
            "/s",
            RATE,
            Higher,
            (14_000.0, 20_000.0),
        )],
    },
    Line {
        name: "stream",
        storage: Storage::Postgres,
        runs: &["stream --tasks 50 --producers 50"],
        targets: &[Target::new(
            "the same with one reader per task",
            "/s",
            RATE,
            Higher,
            (9_000.0, 13_300.0),
        )],
    },
    Line {
        name: "batch",
        storage: Storage::Postgres,
        runs: &["batch --tasks 100 --producers 50"],
        targets: &[Target::new(
            "durable, 50 events per POST",
            "/s",
            RATE,
            Higher,
            (60_000.0, 100_000.0),
        )],
    },
    Line {
        name: "accumulate",
        storage: Storage::Postgres,
        runs: &["publish --producers 10 --series accumulate"],
        targets: &[Target::new(
            "durable accumulate deltas, 10 producers",
            "/s",
            RATE,
            Higher,
            (10_000.0, 15_000.0),
        )],
    },
    Line {
        name: "memory",
        storage: Storage::Memory,
        runs: &["publish --tasks 100 --producers 50"],
        targets: &[Target::new(
            "memory store, single-event POSTs",
            "/s",
            RATE,
            Higher,
            (20_000.0, 30_000.0),
        )],
    },
    Line {
        name: "paced",
        storage: Storage::PostgresTwice,
        runs: &["stream --tasks 50 --producers 50 --rate 400"],
        targets: &[
            Target::new(
                "paced 400 events/s, published on A, read on B: p50",
                "ms",
                "/latency/delivery/p50",
                Lower,
                (6.0, 4.0),
            ),
            Target::new(
                "paced 400 events/s, published on A, read on B: p99",
                "ms",
                "/latency/delivery/p99",
                Lower,
                (20.0, 10.0),
            ),
        ],
    },
    Line {
        name: "fanout",
        storage: Storage::Postgres,
        runs: &["fanout --subscribers 500"],
        targets: &[Target::new(
            "fan-out, 500 readers of one task, deliveries",
            "/s",
            "/deliveryRate",
            Higher,
            (120_000.0, 250_000.0),
        )],
    },
    Line {
        name: "join",
        storage: Storage::Postgres,
        runs: &["join --subscribers 20"],
        targets: &[Target::new(
            "20 readers joining a 10,000-delta series, the last",
            "ms",
            "/latency/join/max",
            Lower,
            (200.0, 50.0),
        )],
    },
    Line {
        name: "replay",
        storage: Storage::Postgres,
        runs: &["replay --subscribers 20"],
        targets: &[Target::new(
            "20 readers replaying 10,000 events, the last",
            "ms",
            "/latency/replay/max",
            Lower,
            (800.0, 300.0),
        )],
    },
    Line {
        name: "idle",
        storage: Storage::Postgres,
        runs: &["idle --subscribers 5000"],
        targets: &[Target::new(
            "server memory per idle stream, 5,000 of them",
            "KiB",
            "/serverMemory/perStreamBytes",
            Lower,
            (24.0, 12.0),
        )
        .per(KIB)],
    },
    Line {
        name: "million",
        storage: Storage::Postgres,
        runs: &[
            "batch --tasks 100 --producers 50 --count 100000",
            "batch --tasks 100 --producers 50 --count 900000",
        ],
        targets: &[
            Target::new(
                "server memory after 1 million events",
                "MiB",
                RESIDENT,
                Lower,
                (200.0, 100.0),
            )
            .per(MIB),
            Target::new("of which gained since 0.1 million", "MiB", RESIDENT, Lower, (20.0, 0.0))
                .per(MIB)
                .since("/serverMemory/beforeBytes"),
        ],
    },
    Line {
        name: "lifecycle",
        storage: Storage::Postgres,
        runs: &["lifecycle"],
        targets: &[Target::new("create + run + complete", "/s", RATE, Higher, (2_500.0, 5_000.0))],
    },
];

/// Bars are held against the number of clients that the first comparison of
/// this kind was made with; the others show that it is not a lucky one.
pub(crate) const RATIOS: &[Ratio] = &[
    Ratio::new("publish", "insert-notify-16", "single POSTs to inserts with NOTIFY, 16 clients")
        .at_least(2.4),
    Ratio::new("publish", "insert-notify-50", "single POSTs to inserts with NOTIFY, 50 clients"),
    Ratio::new("publish", "insert-16", "single POSTs to plain inserts, 16 clients").at_least(1.1),
    Ratio::new("publish", "insert-50", "single POSTs to plain inserts, 50 clients"),
    Ratio::new("publish", "insert-numbered-50", "single POSTs to numbered inserts, 50 clients"),
    Ratio::new("batch", "append-500", "50 per POST to the raw statement, 500 events").at_least(0.8),
    Ratio::new("batch", "append-2000", "50 per POST to the raw statement, 2,000 events"),
];
