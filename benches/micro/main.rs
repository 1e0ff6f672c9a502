//! What the pieces of the hot paths cost, each by itself.
//!
//! `cargo bench --bench micro` measures, `cargo bench --bench micro -- json`
//! only what is named like that. `cargo test --bench micro` runs everything
//! once, which is how the checks of this repository keep it from rotting.
//!
//! Everything here goes through the public interface. Where a piece is private
//! (the frames of a stream, the arguments of an append), the nearest function
//! that is not stands for it, and the comment there says what it includes.
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on ends, and the line says where"
)]

mod append;
mod filter;
mod frames;
mod ids;
mod json;
mod material;
mod series;

fn main() {
    divan::main();
}
