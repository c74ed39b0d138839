//! Report of a run.

use broker_tests::proxy::Tallies;

use crate::cast::Cast;
use crate::saboteur::Deeds;
use crate::settle::State;

/// Prints them.
pub(crate) fn print(
    state: &State,
    deeds: &Deeds,
    (cancelled, waited): (usize, usize),
    tallies: &Tallies,
    cast: &Cast,
) {
    let seconds = deeds.length.as_secs_f64();
    println!(
        "\nallocations          {} ({:.0}/s over {seconds:.0} s)",
        state.used,
        state.used as f64 / seconds
    );
    println!("keys                 {}, of which {} hold a sandbox now", state.keys, state.holds.len());
    println!("requests cancelled   {cancelled}");
    println!("granted after a wait {waited}");
    println!("workers killed       {}, frozen {}", deeds.workers_killed, deeds.workers_frozen);
    println!("workers that could not start, or gave up: {}", cast.ended_by_themselves);
    println!("APIs killed          {}", deeds.apis_killed);
    println!("of the other build   {} processes", cast.others);
    println!("outages              {} ({} calls lost)", deeds.outages, tallies.away());
    println!("faults of the provider {}", deeds.faults);
    println!("reservations made, changed, given up {}", deeds.reservations);
    println!("dead letters         {}", state.dead_letters);
    let calls: u64 = tallies.iter().map(|(_, tally)| tally.calls).sum();
    println!("calls of AWS         {calls}, of which were");
    for (fault, count) in tallies.by_fault() {
        println!("  {:<27} {count}", fault.as_str());
    }
}
