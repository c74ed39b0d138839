//! Report of a run, as text.

use broker_tests::cli::{Output, Stats};

use crate::k6::Run;
use crate::metrics::Costs;

/// Prints what was asked, what was answered, how fast, and what it cost.
pub(crate) fn print(run: &Run, costs: &Costs, stats: &Stats, verdict: &Output) {
    let answers = run.answers();
    println!("\nrequests            {}", answers.values().sum::<u64>());
    for (status, count) in &answers {
        println!("  {status}               {count}");
    }
    let created = answers.get(&201).copied().unwrap_or_default();
    println!("allocation success  {:.1} %", 100.0 * run.value("allocation_success", "rate"));
    println!("pool exhausted      {}", run.count("pool_exhausted"));
    println!("idempotency hits    {}", run.count("idempotency_hit"));
    println!("new allocations     {created} ({:.0}/s)", run.value("answers_201", "rate"));
    println!("allocate answers    {:.0}/s", run.value("allocate_answers", "rate"));
    let [p50, p95, p99, max] = ["med", "p(95)", "p(99)", "max"].map(|at| run.value("allocation_latency", at));
    println!("allocation latency  p50 {p50:.0} ms, p95 {p95:.0} ms, p99 {p99:.0} ms, max {max:.0} ms");
    if created > 0 {
        println!("per new allocation, all requests of the run included:");
        for (operation, calls) in &costs.calls {
            let units = costs.capacity.get(operation).map(|units| units / created as f64);
            let units = units.map_or(String::new(), |units| format!(", {units:.1} capacity units"));
            println!("  {operation:<22} {:.2} calls{units}", calls / created as f64);
        }
    }
    println!("pool afterwards     {stats:?}");
    println!("pool verify         {}", if verdict.code == 0 { "found nothing" } else { "FOUND VIOLATIONS" });
}
