//! Cost follows change: looks at people are made when something can have changed, never by walking over everybody.

use super::shop::{YEAR, simulated};
use super::silence::CHAIN_OF_THE_YEAR;

#[test]
fn evaluations_of_the_year_stay_within_a_quarter_above_its_events_and_clock_instants() {
    let report = &CHAIN_OF_THE_YEAR.report;
    let changes = YEAR.len() as u64 + simulated("clock instants of the chain (23/30/37 d)");
    let allowed = changes * 5 / 4;
    println!(
        "{} evaluations ({} by the clock alone) for {changes} events and clock instants; {allowed} allowed, a daily scan makes {}",
        report.evaluations, report.clock_instants, report.daily_scan
    );
    assert_eq!(report.daily_scan, simulated("user-days a full daily scan looks at"));
    assert!(report.evaluations <= allowed, "{} evaluations, {allowed} allowed", report.evaluations);
    assert!(report.evaluations > changes / 2, "so few looks cannot have seen everything");
    assert_eq!(report.events, YEAR.len() as u64);
}
