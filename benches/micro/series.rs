//! Folding: what an event adds, what a late reader gets.

use std::sync::Arc;

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use taskcast::domain::{Contribution, SeriesMode, SeriesState, SeriesTag, fold};

use crate::material::{delta, logged};

fn tag() -> SeriesTag {
    SeriesTag { id: "answer".into(), mode: Some(SeriesMode::Accumulate), field: None }
}

#[divan::bench]
fn state_is_extended(bencher: Bencher<'_, '_>) {
    let (draft, tag) = (delta(), tag());
    let state = SeriesState::open(&draft, &tag, SeriesMode::Accumulate, 0).unwrap();
    bencher.bench_local(|| {
        black_box(&state).extend(black_box(&draft), &tag, SeriesMode::Accumulate, 1).unwrap()
    });
}

#[divan::bench]
fn contribution_of_a_delta(bencher: Bencher<'_, '_>) {
    let (draft, field) = (delta(), Arc::<str>::from("text"));
    bencher.bench_local(|| Contribution::of(Some(&field), black_box(&draft)).unwrap().body.len());
}

/// Ten thousand deltas as one text, the way a late join puts it together.
#[divan::bench(args = [1_024, 10_000])]
fn text_is_gathered_and_folded(bencher: Bencher<'_, '_>, deltas: usize) {
    let field = Arc::<str>::from("text");
    let drafts = vec![delta(); deltas];
    let bytes: usize =
        drafts.iter().map(|draft| Contribution::of(Some(&field), draft).unwrap().body.len()).sum();
    let newest = logged(deltas as u64, delta());
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let mut text = String::new();
        for draft in &drafts {
            text.push_str(Contribution::of(Some(&field), draft).unwrap().body);
        }
        fold(newest.clone(), Some("text"), &text)
    });
}
