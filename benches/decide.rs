//! What a verdict with expiry costs, beside the same conditions written by hand in Rust over plain structs, in the same run.
//!
//! `cargo bench --bench decide` prints both and their ratio, and fails above 12. The conditions are loaded from text as in a rule file;
//! the hand-written loop answers bare truth, without expiry, over rows that hold nothing else.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use divan::counter::ItemsCount;
use rekindle::engine::rule::RuleSet;
use rekindle::engine::time::{DAY_MS, MINUTE_MS, Timestamp};

#[path = "shared/population.rs"]
mod population;

use population::{Bench, NOW_MS, rule_set};

/// A verdict may cost so many hand-written answers.
const GATE: f64 = 12.0;

const PEOPLE: [usize; 2] = [1_000, 100_000];

#[divan::bench(args = PEOPLE)]
fn verdict_with_expiry(bencher: divan::Bencher<'_, '_>, people: usize) {
    let bench = Bench::new(people);
    bencher.counter(ItemsCount::new(bench.answers())).bench_local(|| bench.verdicts(black_box(Timestamp::from_ms(NOW_MS))));
}

#[divan::bench(args = PEOPLE)]
fn hand_written_truth(bencher: divan::Bencher<'_, '_>, people: usize) {
    let bench = Bench::new(people);
    bencher.counter(ItemsCount::new(bench.answers())).bench_local(|| bench.by_hand(black_box(NOW_MS)));
}

#[divan::bench]
fn load_from_text() -> RuleSet {
    rule_set()
}

/// Nanoseconds an answer: the best of several rounds, both sides in turn, so that a busy machine troubles both alike.
fn measured(bench: &Bench) -> (f64, f64) {
    let (mut verdict, mut by_hand) = (f64::MAX, f64::MAX);
    let per_answer = |started: Instant| started.elapsed().as_nanos() as f64 / bench.answers() as f64;
    for _ in 0..200 {
        let started = Instant::now();
        black_box(bench.verdicts(black_box(Timestamp::from_ms(NOW_MS))));
        verdict = verdict.min(per_answer(started));
        let started = Instant::now();
        black_box(bench.by_hand(black_box(NOW_MS)));
        by_hand = by_hand.min(per_answer(started));
    }
    (verdict, by_hand)
}

fn main() -> ExitCode {
    let bench = Bench::new(1_000);
    let now = Timestamp::from_ms(NOW_MS);
    for minutes in 0..3 {
        let at = now.plus_ms(minutes * 9 * DAY_MS + minutes * MINUTE_MS);
        assert_eq!(bench.verdicts(at).0, bench.by_hand(at.as_ms()), "both sides answer alike");
    }
    divan::main();
    if std::env::args().any(|arg| arg == "--list" || arg == "--test") {
        return ExitCode::SUCCESS;
    }
    let (verdict, by_hand) = measured(&bench);
    let ratio = verdict / by_hand;
    println!("\nverdict with expiry {verdict:.1} ns, hand-written truth {by_hand:.1} ns: {ratio:.1}x (gate {GATE}x)");
    if ratio > GATE { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
