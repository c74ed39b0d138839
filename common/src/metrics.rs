//! Prometheus metrics: one recorder per process, served by whoever has a port.
//!
//! Names and labels are those of SPEC.md, "Metrics"; labels are templates and outcomes, never ids.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Bucket bounds of every `*_seconds` histogram, in seconds: a hop of SQS is 10 to 20 ms, the longest wait 50 s.
const SECONDS: &[f64] =
    &[0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 51.2];
/// Bucket bounds of batch sizes; SQS batches have at most ten.
const BATCH: &[f64] = &[1.0, 2.0, 3.0, 5.0, 7.0, 10.0];

/// Installs the process's recorder. Fails when there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch_size".to_owned()), BATCH)?
        .install_recorder()
}

/// Why no recorder could be installed.
pub use metrics_exporter_prometheus::BuildError as InstallError;
/// What serves the metrics.
pub use metrics_exporter_prometheus::PrometheusHandle as Handle;
