//! A reader whose connections break at random.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::support::client::{number_of, text_of};
use crate::support::server::Server;
use crate::support::sse::{Frame, Stream};

/// Filters readers use, as query text and as what they admit.
const FILTERS: [&str; 8] = [
    "",
    "types=llm.*",
    "types=llm.*,note",
    "levels=info",
    "levels=warn,error",
    "types=progress",
    "includeStatus=false",
    "types=note.*,taskcast:status&levels=info",
];

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// Without a cursor.
    Collapsed,
    /// Without a cursor, with only so many frames of the replay.
    Limited(u32),
    /// With every event on its own from the first.
    Single,
    /// After a filtered index, perhaps one that is still to come.
    After(u64),
}

/// A reader and what it collected.
pub(super) struct Reader {
    servers: [Server; 2],
    task: String,
    /// What a failure names, to be repeated.
    seed: u64,
    rng: StdRng,
    /// Its filter, as query text.
    pub(super) filter: &'static str,
    /// Where it began.
    pub(super) start: Start,
    /// What it collected, over all connections.
    pub(super) frames: Vec<Value>,
    last_id: Option<String>,
    /// Whether this connection may repeat what came before it.
    repeats: bool,
    /// How it resumed each time, for a failure's message.
    pub(super) trail: Vec<String>,
}

impl Reader {
    pub(super) fn new(servers: [Server; 2], task: String, seed: u64, n: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed * 1_000 + 500 + n);
        let filter = FILTERS[rng.random_range(0..FILTERS.len())];
        let start = match rng.random_range(0..8) {
            0 => Start::Limited(rng.random_range(1..30)),
            1 => Start::After(rng.random_range(0..60)),
            2 => Start::Single,
            _ => Start::Collapsed,
        };
        Self {
            servers,
            task,
            seed,
            rng,
            filter,
            start,
            frames: Vec::new(),
            last_id: None,
            repeats: false,
            trail: Vec::new(),
        }
    }

    /// Reads until the task is done, cut and resumed as often as it happens.
    pub(super) async fn read_to_the_end(mut self) -> Self {
        loop {
            let mut stream = self.connect().await;
            // Some connections live long, most do not.
            let lifetime = match self.rng.random_range(0..6) {
                0 => u32::MAX,
                1 => 1,
                _ => self.rng.random_range(1..50),
            };
            for _ in 0..lifetime {
                let frame = stream.one().await;
                if frame.is_done() {
                    return self;
                }
                self.keep(&frame);
                if frame.ends_task() {
                    // Cut here a browser would be told to stop, not given a stream.
                    assert!(stream.one().await.is_done());
                    return self;
                }
            }
            let known = stream.comments.iter().all(|comment| comment != "reset");
            assert!(known, "a cursor was unknown; seed {}, resumed by {:?}", self.seed, self.trail);
        }
    }

    fn keep(&mut self, frame: &Frame) {
        let data = frame.data();
        let newest = self.frames.last().map(|frame| number_of(&frame["rawIndex"]));
        if self.repeats && newest.is_some_and(|newest| number_of(&data["rawIndex"]) <= newest) {
            // Asked for by resuming one millisecond early. What came before on
            // its own is the same; what a snapshot held comes on its own now.
            let known = self.frames.iter().find(|known| known["eventId"] == data["eventId"]);
            if let Some(known) = known.filter(|known| known.get("seriesSnapshot").is_none()) {
                assert_eq!(known, &data, "{:?}", self.trail);
            }
            return;
        }
        self.frames.push(data);
        self.last_id.clone_from(&frame.id);
    }

    async fn connect(&mut self) -> Stream {
        self.repeats = false;
        let server = self.servers[self.rng.random_range(0..2)].clone();
        let Some(last_id) = self.last_id.clone() else {
            let cursor = match self.start {
                Start::Collapsed => String::new(),
                Start::Limited(limit) => format!("limit={limit}"),
                Start::Single => "since.index=-1".to_owned(),
                Start::After(index) => format!("since.index={index}"),
            };
            return server.stream(&self.task, &self.query(&cursor)).await;
        };
        let newest = self.frames.last().expect("an id comes with a frame").clone();
        // Numbers and times know nothing of a collapsed replay they are cut out of.
        let kinds = if last_id.contains('~') { 2 } else { 4 };
        let cursor = match self.rng.random_range(0..kinds) {
            0 => {
                // A browser sends its old URL again; the header counts.
                let stale = ["", "since.index=0", "since.timestamp=0", "limit=3"]
                    [self.rng.random_range(0..4)];
                self.trail.push(format!("header {last_id} {stale}"));
                return server.resume(&self.task, &self.query(stale), &last_id).await;
            }
            1 => format!("since.id={last_id}"),
            2 => format!("since.index={}", newest["filteredIndex"]),
            _ => {
                // Others of the same millisecond may not have arrived yet.
                self.repeats = true;
                format!("since.timestamp={}", number_of(&newest["timestamp"]) - 1)
            }
        };
        self.trail.push(cursor.clone());
        server.stream(&self.task, &self.query(&cursor)).await
    }

    fn query(&self, cursor: &str) -> String {
        let parts: Vec<&str> =
            [self.filter, cursor].into_iter().filter(|part| !part.is_empty()).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }

    /// Tells whether the reader's filter lets an event pass.
    pub(super) fn admits(&self, event: &Value) -> bool {
        let (kind, level) = (text_of(&event["type"]), text_of(&event["level"]));
        match self.filter {
            "" => true,
            "types=llm.*" => kind.starts_with("llm."),
            "types=llm.*,note" => kind.starts_with("llm.") || kind == "note",
            "levels=info" => level == "info",
            "levels=warn,error" => level == "warn" || level == "error",
            "types=progress" => kind == "progress",
            "includeStatus=false" => kind != "taskcast:status",
            "types=note.*,taskcast:status&levels=info" => {
                (kind.starts_with("note.") || kind == "taskcast:status") && level == "info"
            }
            other => panic!("an unknown filter {other}"),
        }
    }
}
