//! List prices of AWS, us-east-1, on demand, in US dollars, as `infra/check/sizing.py` has them: read there, so there is one place.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::tally::Tally;

const SIZING: &str = include_str!("../../../infra/check/sizing.py");

/// What one answer of the run costs, SQS and DynamoDB.
pub(crate) fn of(run: &Tally) -> f64 {
    let (read, written) = run.units();
    let sqs = run.calls_of(&["DeleteMessageBatch", "ReceiveMessage", "SendMessage", "SendMessageBatch"]);
    read * price("read unit") + written * price("write unit") + sqs * price("SQS request")
}

fn price(of: &str) -> f64 {
    static PRICES: OnceLock<BTreeMap<&str, f64>> = OnceLock::new();
    let read = || {
        let (_, table) = SIZING.split_once("PRICE = {").expect("sizing.py has prices");
        let (table, _) = table.split_once('}').expect("they end");
        let rows = table.split(',').filter_map(|row| row.trim().split_once(": "));
        rows.filter_map(|(name, price)| Some((name.trim_matches('"'), price.parse().ok()?))).collect()
    };
    *PRICES.get_or_init(read).get(of).unwrap_or_else(|| panic!("sizing.py has no price of a {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_price_that_a_run_needs_is_found() {
        for (of, most) in [("read unit", 1e-6), ("write unit", 1e-5), ("SQS request", 1e-6)] {
            assert!(price(of) > 0.0 && price(of) < most, "{of}");
        }
    }
}
