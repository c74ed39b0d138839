//! Trace context: the W3C `traceparent` (level 1) in headers and messages.

use std::fmt;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A trace context: the parent span of what happens next, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
    remote: bool,
}

impl TraceContext {
    /// Parses a `traceparent`. `None` for an invalid one, which the standard says to ignore. Of a newer version only the
    /// fields of this one are read.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, rest) = text.split_once('-')?;
        let (known, future) = (version == "00", is_hex(version, 2) && version != "ff");
        let (trace, rest) = rest.split_once('-')?;
        let (span, rest) = rest.split_once('-')?;
        let flags = match rest.split_once('-') {
            Some((flags, _what_a_later_version_adds)) if !known => flags,
            Some(_) => return None,
            None => rest,
        };
        if !(known || future) || !(is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) {
            return None;
        }
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        valid.then_some(Self { trace, span, sampled, remote: true })
    }

    /// The id of the trace, as in logs.
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    /// Whether it is recorded.
    pub(crate) const fn is_sampled(&self) -> bool {
        self.sampled
    }

    pub(super) fn of(span: &SpanContext) -> Option<Self> {
        span.is_valid().then(|| Self {
            trace: span.trace_id(),
            span: span.span_id(),
            sampled: span.is_sampled(),
            remote: false,
        })
    }

    pub(super) fn span_context(self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.trace, self.span, flags, self.remote, TraceState::default())
    }
}

/// Lower case only, as the standard requires.
fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the standard.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_back_as_it_was_written() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.to_string(), EXAMPLE);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled());
        let unrecorded = EXAMPLE.replace("-01", "-00");
        assert!(!TraceContext::parse(&unrecorded).unwrap().is_sampled());
    }

    #[test]
    fn of_a_later_version_only_what_this_one_knows_is_read() {
        let later = format!("cc{}-what-the-future-holds", &EXAMPLE[2..]);
        assert_eq!(TraceContext::parse(&later).unwrap().to_string(), EXAMPLE);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let more = format!("{EXAMPLE}-00");
        let unknown = format!("ff{}", &EXAMPLE[2..]);
        let upper = EXAMPLE.to_uppercase();
        for bad in ["", "-", "00", "---", &zero_trace, &zero_span, &more, &unknown, &upper, &EXAMPLE[..54]] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,80}", hex in "[0-9a-f-]{50,60}") {
            for text in [text, hex] {
                if let Some(context) = TraceContext::parse(&text) {
                    prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
                }
            }
        }
    }
}
