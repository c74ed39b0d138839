//! Refusal of a request by its head or framing, before it reaches a handler.

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head is larger than its bound, or has too many headers.
    TooLarge,
    /// Two readers could frame it differently.
    Ambiguous,
    /// `Content-Length` is no number, or none that a body can have.
    Length,
    /// A transfer coding besides `chunked`.
    Coding,
    /// It does not speak HTTP/1.1 or 1.0.
    Version,
    /// It is no HTTP.
    Malformed,
}

impl Refusal {
    /// The problem for the client.
    pub(crate) fn problem(self) -> Problem {
        match self {
            Self::TooLarge => Problem::new(
                Code::HeadersTooLarge,
                "The request line and headers are larger than 16 KiB, or more than 100.",
            ),
            Self::Ambiguous => Problem::invalid(
                "The request could be read in two ways: two lengths, a length beside chunks, a coding that does not end with chunked, or a \
                 line without CR LF.",
            ),
            Self::Length => Problem::invalid("Content-Length is not a length that a body can have."),
            Self::Coding => {
                Problem::new(Code::NotImplemented, "No transfer coding but chunked is understood.")
            }
            Self::Version => Problem::invalid("This server speaks HTTP/1.1 only. Use HTTP/1.1."),
            Self::Malformed => Problem::invalid("This is not a valid HTTP/1.1 request."),
        }
    }
}
