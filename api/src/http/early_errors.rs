//! Early errors: responses to requests that hyper refuses, or whose head is too slow.
//!
//! Invariant: these are problems with an `X-Request-ID`, too, logged like any other response, and they close the connection.
//! Bytes are written by [`connection`](crate::http::connection).

use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use bytes::Bytes;

use crate::http::refusal::Refusal;
use crate::response::codes::Code;
use crate::response::problem::Problem;

/// Makes the responses.
#[derive(Clone, Debug)]
pub(crate) struct EarlyErrors {
    clock: Clock,
    entropy: Entropy,
}

impl EarlyErrors {
    pub(crate) const fn new(clock: Clock, entropy: Entropy) -> Self {
        Self { clock, entropy }
    }

    /// The replacement of `outgoing`, if that is a response of hyper's own. Ours all carry a request id. What was `refused` on
    /// its way in is reported as that, whatever hyper makes of it.
    pub(crate) fn in_place_of(&self, outgoing: &[u8], refused: Option<Refusal>) -> Option<Bytes> {
        let status = outgoing.strip_prefix(b"HTTP/1.1 4")?;
        if contains(outgoing, b"\r\nx-request-id: ") {
            return None;
        }
        let by_hyper = match status.get(..2) {
            Some(b"31") => Refusal::TooLarge,
            Some(_) | None => Refusal::Malformed,
        };
        Some(self.refuse(refused.unwrap_or(by_hyper).problem()))
    }

    /// The response to a client whose head does not arrive in time.
    pub(crate) fn head_too_slow(&self) -> Bytes {
        self.refuse(Problem::new(Code::RequestTimeout, "The head of the request did not arrive in time."))
    }

    /// `problem` as bytes.
    fn refuse(&self, problem: Problem) -> Bytes {
        use std::io::Write as _;

        let now = self.clock.now();
        let id = self.entropy.request_id(now);
        let answer = problem.into_response(id);
        tracing::info!(request_id = %id, status = answer.status.as_u16(), outcome = %answer.outcome, "refused");
        let (head, body) = answer.into_http(id).into_parts();
        let mut bytes = Vec::with_capacity(1024);
        // Writing to a Vec cannot fail.
        let date = httpdate::fmt_http_date(now.into());
        let _ = write!(bytes, "HTTP/1.1 {}\r\nconnection: close\r\ndate: {date}\r\n", head.status);
        for (name, value) in &head.headers {
            let _ = write!(bytes, "{name}: ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let _ = write!(bytes, "content-length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(&body);
        bytes.into()
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;

    use super::*;

    fn refusals() -> EarlyErrors {
        EarlyErrors::new(Clock::manual(Timestamp::from_secs(1)), Entropy::seeded(1))
    }

    #[test]
    fn what_hyper_answers_on_its_own_becomes_a_problem() {
        for (status, code) in [("431 X", "HEADERS_TOO_LARGE"), ("400 Bad", "VALIDATION_ERROR")] {
            let hyper = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let ours = refusals().in_place_of(hyper.as_bytes(), None).unwrap();
            let ours = String::from_utf8(ours.to_vec()).unwrap();
            let (head, body) = ours.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {}", &status[..3])), "{head}");
            assert!(head.contains("\r\nconnection: close") && head.contains("\r\nx-request-id: "), "{head}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
            assert!(body.contains(code), "{body}");
        }
    }

    #[test]
    fn our_own_answers_pass() {
        for ours in
            ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\n\r\n", "{\"a\":1}", ""]
        {
            assert!(refusals().in_place_of(ours.as_bytes(), Some(Refusal::Ambiguous)).is_none(), "{ours}");
        }
    }
}
