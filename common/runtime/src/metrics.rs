//! Prometheus metrics: one recorder per process, served by its HTTP port.
//!
//! Names and labels are listed in ARCHITECTURE.md, "Metrics"; labels are templates and outcomes, never ids.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Bucket bounds of every `*_seconds` histogram, in seconds: a hop of SQS is 10 to 20 ms, the longest wait 50 s.
const SECONDS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 51.2];
/// Bucket bounds of waits in a line, up to a day.
const WAITS: &[f64] = &[0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Bucket bounds of batch sizes; SQS batches have at most ten.
const BATCH: &[f64] = &[1.0, 2.0, 3.0, 5.0, 7.0, 10.0];
/// Bucket bounds of capacity units. A claim of one item costs four, a batch of ten forty.
const UNITS: &[f64] = &[0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
/// Bucket bounds of attempts.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 50.0, 100.0];
/// How often raw samples are aggregated, see [`upkeep`].
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the process's recorder. Fails if there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    builder()?.install_recorder()
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Full("broker_waiting_seconds".to_owned()), WAITS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), BATCH)?
        .set_buckets_for_metric(Matcher::Suffix("_units".to_owned()), UNITS)?
        .set_buckets_for_metric(Matcher::Suffix("_attempts".to_owned()), ATTEMPTS)
}

/// Aggregates raw samples, so that the recorder stays small without a scrape; never ends.
pub async fn upkeep(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        handle.run_upkeep();
    }
}

/// The error of a failed installation.
pub use metrics_exporter_prometheus::BuildError as InstallError;
/// The handle that renders the metrics.
pub use metrics_exporter_prometheus::PrometheusHandle as Handle;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every histogram, by the ends of their names; one without buckets would be exported as a summary, which cannot be added
    /// up over processes.
    #[test]
    fn every_histogram_has_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let names = [
            "broker_request_latency_seconds",
            "broker_receive_batch_size",
            "broker_dynamodb_capacity_units",
            "broker_claim_attempts",
        ];
        let text = metrics::with_local_recorder(&recorder, || {
            names.iter().for_each(|name| metrics::histogram!(*name).record(1.0));
            recorder.handle().render()
        });
        for name in names {
            assert!(text.contains(&format!("{name}_bucket{{le=\"+Inf\"}} 1")), "{name}: {text}");
        }
    }
}
