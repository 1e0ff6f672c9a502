//! What is asked of a store, and how it is made up.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use proptest_state_machine::ReferenceStateMachine;
use taskcast::domain::{Level, SeriesMode, TaskStatus};
use taskcast::store::View;

use super::draft::{Draft, Payload, Tag, Want};
use super::reference::{Failure, Model};
use super::rules::{Own, RuleSet};

/// Names of tasks that callers choose.
const NAMES: u8 = 3;

/// Longest series text of most requests, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;

/// The id of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// Chosen by the caller.
    Given(u8),
    /// Made for this request alone.
    Made(usize),
}

/// What a task is created with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) kind: Option<&'static str>,
    pub(super) params: Option<&'static str>,
    pub(super) is_tagged: bool,
    pub(super) ttl_seconds: Option<u64>,
    pub(super) rule: Option<Own>,
}

/// A request for a task.
#[derive(Debug, Clone)]
pub(super) struct Creation {
    pub(super) id: Option<u8>,
    pub(super) spec: Spec,
    pub(super) key: Option<u8>,
}

/// What a request does to a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// Publishes events, all of them so many times.
    Publish { drafts: Vec<Draft>, times: usize },
    /// Moves it to another state.
    Enter { to: TaskStatus, result: Option<&'static str>, error: Option<Failure> },
}

/// Returns all drafts so many times.
pub(super) fn repeated(drafts: &[Draft], times: usize) -> impl Iterator<Item = &Draft> {
    std::iter::repeat_n(drafts, times).flatten()
}

/// A request that changes a task.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) name: Name,
    pub(super) change: Change,
    pub(super) key: Option<u8>,
    pub(super) text_limit: u64,
}

/// A request with a key, to be sent again.
#[derive(Debug, Clone)]
pub(super) enum Sent {
    Create(Creation),
    Append(Request),
}

/// Which tasks are listed.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) statuses: Vec<TaskStatus>,
    pub(super) types: Vec<&'static str>,
    pub(super) is_tagged: bool,
    pub(super) only: Option<Vec<u8>>,
    pub(super) limit: usize,
}

/// Something that is asked of a store.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Create(Creation),
    Append(Request),
    /// Requests that are under way together.
    Burst(Vec<Request>),
    /// A request with a key, once more.
    Again(usize),
    Delete {
        life: usize,
    },
    Look {
        life: usize,
    },
    Read {
        life: usize,
        from: u64,
        to: u64,
        view: View,
        max_events: usize,
        max_bytes: usize,
    },
    Series {
        life: usize,
        to: u64,
    },
    Count {
        life: usize,
        positions: Vec<u64>,
        want: Want,
    },
    Position {
        life: usize,
        want: Want,
        nth: u64,
    },
    After {
        life: usize,
        index: usize,
        later_ms: u64,
    },
    List(Listing),
    Journal,
    Overdue {
        limit: usize,
    },
    Cleanup {
        rules: RuleSet,
        bites: Vec<usize>,
    },
    Purge {
        limit: usize,
    },
}

/// A command, and which instance gets it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) instance: usize,
    pub(super) command: Command,
}

/// Makes up commands for stores.
#[derive(Debug)]
pub(super) struct Commands;

impl ReferenceStateMachine for Commands {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        (0..2_usize, command(model))
            .prop_map(|(instance, command)| Step { instance, command })
            .boxed()
    }

    fn apply(model: Model, step: &Step) -> Model {
        model.after(step)
    }
}

fn command(model: &Model) -> BoxedStrategy<Command> {
    let lives = model.lives.len();
    let mut choices = vec![
        (if model.names.len() < 2 { 12 } else { 3 }, creation().prop_map(Command::Create).boxed()),
        (14, request().prop_map(Command::Append).boxed()),
        (4, vec(request(), 2..6).prop_map(Command::Burst).boxed()),
        (2, listing().prop_map(Command::List).boxed()),
        (1, Just(Command::Journal).boxed()),
        (1, (1..5_usize).prop_map(|limit| Command::Overdue { limit }).boxed()),
        (2, cleanup().boxed()),
        (1, (1..50_usize).prop_map(|limit| Command::Purge { limit }).boxed()),
    ];
    if !model.sent.is_empty() {
        choices.push((3, (0..model.sent.len()).prop_map(Command::Again).boxed()));
    }
    if lives > 0 {
        let longest = model.lives.iter().map(|life| life.log.len()).max().unwrap_or_default() + 2;
        choices.push((2, (0..lives).prop_map(|life| Command::Delete { life }).boxed()));
        choices.push((2, (0..lives).prop_map(|life| Command::Look { life }).boxed()));
        choices.push((10, look_into(lives, longest)));
    }
    Union::new_weighted(choices).boxed()
}

/// Reads of one task's log.
fn look_into(lives: usize, longest: usize) -> BoxedStrategy<Command> {
    let end = longest as u64 + 1;
    let views = select(vec![View::Single, View::WithoutDeltas, View::Live]);
    let read = (0..lives, 0..end, 0..end, views, 1..20_usize, 1..400_usize).prop_map(
        |(life, from, length, view, max_events, max_bytes)| Command::Read {
            life,
            from,
            to: from + length,
            view,
            max_events,
            max_bytes,
        },
    );
    let series = (0..lives, 0..end).prop_map(|(life, to)| Command::Series { life, to });
    let count = (0..lives, vec(0..end, 0..5), want())
        .prop_map(|(life, positions, want)| Command::Count { life, positions, want });
    let position = (0..lives, want(), 0..end).prop_map(|(life, want, nth)| Command::Position {
        life,
        want,
        nth,
    });
    let after = (0..lives, 0..longest, 0..3_u64)
        .prop_map(|(life, index, later_ms)| Command::After { life, index, later_ms });
    prop_oneof![3 => read, 3 => series, 2 => count, 2 => position, 1 => after].boxed()
}

fn creation() -> impl Strategy<Value = Creation> {
    let spec = (
        select(vec![None, Some("job.a"), Some("job.b"), Some("llm.chat")]),
        select(vec![None, Some("{\"b\":1.0,\"a\":1e400}")]),
        any::<bool>(),
        select(vec![None, None, Some(0), Some(86_400)]),
        option::weighted(0.2, select(Own::ALL.to_vec())),
    )
        .prop_map(|(kind, params, is_tagged, ttl_seconds, rule)| Spec {
            kind,
            params,
            is_tagged,
            ttl_seconds,
            rule,
        });
    (option::weighted(0.9, 0..NAMES), spec, option::weighted(0.3, 0..2_u8))
        .prop_map(|(id, spec, key)| Creation { id, spec, key })
}

fn request() -> impl Strategy<Value = Request> {
    let text_limit = prop_oneof![9 => Just(TEXT_LIMIT), 1 => Just(12)];
    let name = (0..NAMES).prop_map(Name::Given);
    (name, change(), option::weighted(0.25, 0..3_u8), text_limit)
        .prop_map(|(name, change, key, text_limit)| Request { name, change, key, text_limit })
}

fn change() -> impl Strategy<Value = Change> {
    let failure = Failure { code: Some("E1"), message: "no\u{e9}", details: Some("{\"a\":1}") };
    let bare = Failure { code: None, message: "no", details: None };
    let enter = |states: &[TaskStatus]| {
        (
            select(states.to_vec()),
            select(vec![None, Some("{\"n\":1.0}"), Some("{}")]),
            select(vec![None, None, Some(failure), Some(bare)]),
        )
            .prop_map(|(to, result, error)| Change::Enter { to, result, error })
    };
    let publish = vec(draft(), 0..8).prop_map(|drafts| Change::Publish { drafts, times: 1 });
    // Enough for blocks to fill up and be summed up.
    let flood = (vec(fitting(), 1..4), 200..500_usize)
        .prop_map(|(drafts, times)| Change::Publish { drafts, times });
    prop_oneof![
        60 => publish,
        1 => flood,
        15 => enter(&[TaskStatus::Running]),
        12 => enter(&TaskStatus::ALL),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let clash = (select(vec!["a", "b", "l", "m", "k"]), select(SeriesMode::ALL.to_vec()))
        .prop_map(|(id, mode)| Tag { id, mode: Some(mode), field: None });
    let clashing = (kind(), level(), text(), clash).prop_map(|(kind, level, data, tag)| Draft {
        kind,
        level,
        data,
        tag: Some(tag),
    });
    let other_delta = (kind(), level(), text(), select(vec!["a", "b"]), field()).prop_map(
        |(kind, level, data, id, field)| {
            let tag = Some(Tag { id, mode: Some(SeriesMode::Accumulate), field });
            Draft { kind, level, data, tag }
        },
    );
    prop_oneof![20 => fitting(), 1 => clashing, 1 => other_delta]
}

/// Events that mostly fit the series they name.
fn fitting() -> impl Strategy<Value = Draft> {
    let plain = (kind(), level(), bare()).prop_map(|(kind, level, data)| Draft {
        kind,
        level,
        data,
        tag: None,
    });
    let delta = (text(), select(vec!["a", "b"]), option::weighted(0.1, Just("text"))).prop_map(
        |(data, id, field)| {
            let tag = Some(Tag { id, mode: Some(SeriesMode::Accumulate), field });
            Draft { kind: "llm.delta", level: Level::Info, data, tag }
        },
    );
    let tagged = |ids: &[&'static str], mode| {
        (kind(), level(), bare(), select(ids.to_vec())).prop_map(move |(kind, level, data, id)| {
            Draft { kind, level, data, tag: Some(Tag { id, mode, field: None }) }
        })
    };
    prop_oneof![
        3 => plain,
        4 => delta,
        3 => tagged(&["l", "m"], Some(SeriesMode::Latest)),
        1 => tagged(&["k"], Some(SeriesMode::KeepAll)),
        1 => tagged(&["a", "l", "k", "other"], None),
    ]
}

fn kind() -> impl Strategy<Value = &'static str> {
    select(vec!["note", "llm.note", "llm.delta", "step"])
}

fn level() -> impl Strategy<Value = Level> {
    select(Level::ALL.to_vec())
}

fn field() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, Some("text"), Some("out")])
}

fn bare() -> impl Strategy<Value = Payload> {
    let texts = ["1", "-0.0", "1e400", "null", "[[],{}]", r#""\u0000\ud800\/""#, "\"\u{e9}\""];
    select(texts.to_vec()).prop_map(|text| Payload::Bare(text.to_owned()))
}

fn text() -> impl Strategy<Value = Payload> {
    let bodies = [
        "\"\"",
        "\"x\"",
        "\"H\u{e9}\"",
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\u0000\"""#,
        "\"0123456789\"",
    ];
    let body = select(bodies.to_vec());
    let piece = (body.clone(), body, 0..12_u8).prop_map(|(body, other, shape)| {
        Payload::Members(match shape {
            0..=4 => vec![("text", body)],
            5 => vec![("n", "1"), ("text", body), ("z", "null")],
            6 => vec![("delta", body)],
            7 => vec![("delta", body), ("text", other)],
            8 => vec![("out", body)],
            9 => vec![("in", "{\"text\":\"no\"}")],
            10 => vec![],
            _ => vec![("text", "7")],
        })
    });
    prop_oneof![12 => piece, 1 => bare()]
}

fn want() -> impl Strategy<Value = Want> {
    let types = select(vec![
        vec![],
        vec![],
        vec!["*"],
        vec!["llm.*"],
        vec!["note", "llm.delta"],
        vec!["nothing"],
    ]);
    let levels = select(vec![vec![], vec![], vec![Level::Info], vec![Level::Debug, Level::Error]]);
    (types, levels, any::<bool>()).prop_map(|(types, levels, include_status)| Want {
        types,
        levels,
        include_status,
    })
}

fn listing() -> impl Strategy<Value = Listing> {
    (
        vec(select(TaskStatus::ALL.to_vec()), 0..3),
        select(vec![vec![], vec![], vec!["*"], vec!["job.*"], vec!["llm.chat", "job.a"]]),
        any::<bool>(),
        option::weighted(0.2, vec(0..NAMES, 0..3)),
        1..5_usize,
    )
        .prop_map(|(statuses, types, is_tagged, only, limit)| Listing {
            statuses,
            types,
            is_tagged,
            only,
            limit,
        })
}

fn cleanup() -> impl Strategy<Value = Command> {
    (select(RuleSet::ALL.to_vec()), vec(1..40_usize, 0..3))
        .prop_map(|(rules, bites)| Command::Cleanup { rules, bites })
}
