//! Sampler of spans: a span is recorded if its trace is; a poll's, if one of its messages is; at the start of a trace the
//! ratio decides.
//!
//! The first of these rules is the SDK's `ParentBased`.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// The sampler of the process, which records this part of the traces begun here.
pub(super) fn sampler(ratio: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Roots(Sampler::TraceIdRatioBased(ratio))))
}

/// The sampler of spans without a parent.
#[derive(Clone, Debug)]
struct Roots(Sampler);

impl ShouldSample for Roots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if links.is_empty() {
            return self.0.should_sample(parent, trace, name, kind, attributes, links);
        }
        let recorded = links.iter().any(|link| link.span_context.is_sampled());
        let decision = if recorded { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt as _;

    use super::*;
    use crate::trace::TraceContext;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn context(sampled: u8) -> TraceContext {
        TraceContext::parse(&format!("00-{TRACE}-00f067aa0ba902b7-{sampled:02x}")).unwrap()
    }

    fn records(ratio: f64, parent: Option<u8>, links: &[u8]) -> bool {
        let parent = parent.map(|flag| Context::new().with_remote_span_context(context(flag).span_context()));
        let links: Vec<_> =
            links.iter().map(|flag| Link::with_context(context(*flag).span_context())).collect();
        let trace = TraceId::from_hex(TRACE).unwrap();
        let result =
            sampler(ratio).should_sample(parent.as_ref(), trace, "x", &SpanKind::Server, &[], &links);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_trace_that_somebody_began_is_recorded_as_he_decided() {
        assert!(records(0.0, Some(1), &[]));
        assert!(!records(1.0, Some(0), &[]));
    }

    #[test]
    fn a_poll_is_recorded_if_a_message_of_it_is() {
        assert!(records(0.0, None, &[0, 1]));
        assert!(!records(1.0, None, &[0, 0]));
    }

    #[test]
    fn the_ratio_decides_where_a_trace_begins() {
        assert!(records(1.0, None, &[]));
        assert!(!records(0.0, None, &[]));
    }
}
