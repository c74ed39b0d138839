//! Cost of the run at AWS, from the processes' own metrics.

use std::collections::BTreeMap;

use broker_tests::{Api, Broker};

/// Costs of all processes together, by operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    /// Attempts, without the polls that brought nothing.
    pub(crate) calls: BTreeMap<String, f64>,
    /// Consumed capacity units.
    pub(crate) capacity: BTreeMap<String, f64>,
    /// Claims that lost their candidate to another one.
    pub(crate) lost_races: f64,
}

/// What has been spent so far.
pub(crate) async fn costs(broker: &Broker) -> Costs {
    let mut costs = Costs::default();
    for process in broker.metrics() {
        let text = scrape(process).await;
        add(&mut costs.calls, "broker_aws_calls_total", &text);
        add(&mut costs.capacity, "broker_dynamodb_capacity_units_sum", &text);
        costs.lost_races += total("broker_allocate_conflicts_total", &text);
    }
    costs
}

async fn scrape(process: &Api) -> String {
    match process.probe("/metrics").await {
        Some((200, text)) => text,
        Some(_) | None => String::new(),
    }
}

/// The value of a counter without labels.
fn total(metric: &str, text: &str) -> f64 {
    let values = text.lines().filter_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
    values.sum()
}

/// Adds the samples of `metric` in `text`, by their label `operation`.
fn add(sums: &mut BTreeMap<String, f64>, metric: &str, text: &str) {
    for (operation, value) in text.lines().filter_map(|line| sample(metric, line)) {
        *sums.entry(operation).or_default() += value;
    }
}

/// Operation and value of a sample of `metric`; the polls that brought nothing are not of interest.
fn sample(metric: &str, line: &str) -> Option<(String, f64)> {
    let (labels, value) = line.strip_prefix(metric)?.strip_prefix('{')?.rsplit_once("} ")?;
    if labels.contains("outcome=\"empty\"") {
        return None;
    }
    let (_, operation) = labels.split_once("operation=\"")?;
    Some((operation.split('"').next()?.to_owned(), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: &str = "broker_aws_calls_total";

    #[test]
    fn a_sample_is_read_with_its_operation() {
        let line = "broker_aws_calls_total{service=\"sqs\",operation=\"SendMessageBatch\",outcome=\"ok\"} 12";
        assert_eq!(sample(METRIC, line), Some(("SendMessageBatch".to_owned(), 12.0)));
        assert_eq!(sample(METRIC, &line.replace("\"ok\"", "\"empty\"")), None);
        assert_eq!(sample(METRIC, "# TYPE broker_aws_calls_total counter"), None);
    }
}
