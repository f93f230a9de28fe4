//! The six conditions of `benches/decide.rs` in other engines, with equal numbers of matches asserted.
//!
//! `cargo run --release` from this directory. The peers know no windows, no clock and no expiry: they get every value computed and bound
//! beforehand, outside of the measured time, and answer bare truth. Rekindle reads its values from the profile and says until when the
//! answer stands.

use std::hint::black_box;
use std::time::Instant;

use rekindle::engine::time::{DAY_MS, Timestamp};

// shared with the project's own benches, which use the rest of it
#[allow(dead_code)]
#[path = "../../benches/shared/population.rs"]
mod population;

use population::{Bench, NOW_MS, Row, net, window};

/// Over computed values; `{and}` and `{or}` are written as the engine has them.
const CONDITIONS: [&str; 6] = [
    "days_silent >= 30 {and} plan != \"gold\" {and} tickets == 0",
    "days_since_order >= 30",
    "days_silent >= 21 {and} country == \"GB\" {and} orders_lifetime >= 2",
    "is_new == false {and} (plan in [\"silver\", \"gold\"] {or} orders_365d >= 5) {and} days_silent < 14",
    "orders_90d >= 3 {or} spend_180d >= 100000",
    "spend_365d >= 25000 {and} has_order == true {and} days_since_order > 21 {and} days_since_order <= 60",
];

fn text(condition: &str, and: &str, or: &str) -> String {
    condition.replace("{and}", and).replace("{or}", or)
}

/// A value that the conditions name.
enum Said {
    Int(i64),
    Bool(bool),
    Text(String),
}

fn values(row: &Row) -> Vec<(&'static str, Said)> {
    let since = |at: i64| (NOW_MS - at) / DAY_MS;
    let orders = |days: i64| Said::Int(window(&row.orders, NOW_MS, days).len() as i64);
    vec![
        ("days_silent", Said::Int(since(row.last_active_at))),
        ("plan", Said::Text(["free", "silver", "gold"][usize::from(row.plan)].to_owned())),
        ("tickets", Said::Int(row.tickets)),
        ("country", Said::Text(String::from_utf8_lossy(&row.country).into_owned())),
        ("days_since_order", Said::Int(row.orders.last().map_or(0, |(at, _)| since(*at)))),
        ("has_order", Said::Bool(!row.orders.is_empty())),
        ("orders_lifetime", Said::Int(row.orders.len() as i64)),
        ("orders_90d", orders(90)),
        ("orders_365d", orders(365)),
        ("spend_180d", Said::Int(net(row, NOW_MS, 180))),
        ("spend_365d", Said::Int(net(row, NOW_MS, 365))),
        ("is_new", Said::Bool(since(row.first_seen_at) < 30)),
    ]
}

/// Best nanoseconds an answer of several rounds, and the matches of one.
fn measured(answers: usize, mut round: impl FnMut() -> u64) -> (f64, u64) {
    let mut best = f64::MAX;
    let mut matches = 0;
    for _ in 0..30 {
        let started = Instant::now();
        matches = black_box(round());
        best = best.min(started.elapsed().as_nanos() as f64 / answers as f64);
    }
    (best, matches)
}

fn rhai(rows: &[Row]) -> (f64, u64) {
    let engine = rhai::Engine::new();
    let programs: Vec<rhai::AST> =
        CONDITIONS.iter().map(|c| engine.compile_expression(text(c, "&&", "||")).expect("a condition for rhai")).collect();
    let mut scopes: Vec<rhai::Scope<'_>> = rows
        .iter()
        .map(|row| {
            let mut scope = rhai::Scope::new();
            for (name, value) in values(row) {
                match value {
                    Said::Int(v) => scope.push(name, v),
                    Said::Bool(v) => scope.push(name, v),
                    Said::Text(v) => scope.push(name, v),
                };
            }
            scope
        })
        .collect();
    measured(rows.len() * programs.len(), || {
        let mut matches = 0;
        for scope in &mut scopes {
            for program in &programs {
                matches += u64::from(engine.eval_ast_with_scope::<bool>(scope, program).expect("an answer of rhai"));
            }
        }
        matches
    })
}

fn zen(rows: &[Row]) -> (f64, u64) {
    use zen_expression::variable::Variable;
    let programs: Vec<_> = CONDITIONS
        .iter()
        .map(|c| zen_expression::compile_expression(&text(c, "and", "or")).expect("a condition for zen-expression"))
        .collect();
    let scopes: Vec<zen_expression::scope::Scope> = rows
        .iter()
        .map(|row| {
            let object: serde_json::Map<String, serde_json::Value> = values(row)
                .into_iter()
                .map(|(name, value)| {
                    let value = match value {
                        Said::Int(v) => v.into(),
                        Said::Bool(v) => v.into(),
                        Said::Text(v) => v.into(),
                    };
                    (name.to_owned(), value)
                })
                .collect();
            zen_expression::scope::Scope::new(Variable::from(serde_json::Value::Object(object)))
        })
        .collect();
    let mut vm = zen_expression::vm::VM::new();
    measured(rows.len() * programs.len(), || {
        let mut matches = 0;
        for scope in &scopes {
            for program in &programs {
                let answer = program.evaluate_with_scope(scope, &mut vm).expect("an answer of zen-expression");
                matches += u64::from(answer.as_bool().expect("true or false"));
            }
        }
        matches
    })
}

fn cel(rows: &[Row]) -> (f64, u64) {
    let programs: Vec<cel::Program> =
        CONDITIONS.iter().map(|c| cel::Program::compile(&text(c, "&&", "||")).expect("a condition for cel")).collect();
    let contexts: Vec<cel::Context<'_, '_>> = rows
        .iter()
        .map(|row| {
            let mut context = cel::Context::default();
            for (name, value) in values(row) {
                match value {
                    Said::Int(v) => context.add_variable_from_value(name, v),
                    Said::Bool(v) => context.add_variable_from_value(name, v),
                    Said::Text(v) => context.add_variable_from_value(name, v),
                }
            }
            context
        })
        .collect();
    measured(rows.len() * programs.len(), || {
        let mut matches = 0;
        for context in &contexts {
            for program in &programs {
                let answer = program.execute(context).expect("an answer of cel");
                matches += u64::from(answer == cel::Value::Bool(true));
            }
        }
        matches
    })
}

fn main() {
    let bench = Bench::new(1_000);
    let by_hand = measured(bench.answers(), || bench.by_hand(black_box(NOW_MS)));
    let verdict = measured(bench.answers(), || bench.verdicts(black_box(Timestamp::from_ms(NOW_MS))).0);
    let measured = [
        ("by hand, truth", by_hand),
        ("rekindle, verdict with expiry", verdict),
        ("rhai 1.27, truth", rhai(&bench.rows)),
        ("zen-expression 2.1, truth", zen(&bench.rows)),
        ("cel 0.15, truth", cel(&bench.rows)),
    ];
    println!("{:<32} {:>10} {:>8} {:>9}", "1,000 people, 6 conditions", "ns/answer", "x hand", "matches");
    for (name, (ns, matches)) in measured {
        println!("{name:<32} {ns:>10.1} {:>8.1} {matches:>9}", ns / by_hand.0);
        assert_eq!(matches, by_hand.1, "{name} finds other people");
    }
}
