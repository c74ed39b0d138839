//! Guard against request smuggling: follows the framing of requests byte by byte before hyper sees them, and makes a request
//! that two readers could frame differently invalid, so that hyper refuses it and closes the connection.
//!
//! Hyper alone is lenient where RFC 9112 allows it: of `Content-Length` beside `Transfer-Encoding` it ignores the
//! length (6.3), of equal lengths the second (6.3), and a line may end without its CR (2.2). A proxy before us may choose
//! otherwise, and what it takes for a body would be a request to us. Heads are parsed by httparse, as hyper parses them.
//! Invariants: a request that is framed in one way passes unchanged; into each other one a NUL is put, which no head may
//! contain, and hyper sees nothing behind it; a stream that cannot be followed is not let through. Only the framing is
//! checked.

use httparse::{EMPTY_HEADER, Status, parse_headers};

use crate::http::refusal::Refusal;
use crate::limits::HEAD_BYTES;

/// The longest line with the size of a chunk, in bytes.
const CHUNK_LINE: usize = 256;
/// The most headers that hyper accepts.
const HEADERS: usize = 100;
/// The longest body that hyper can count.
const LONGEST_BODY: u64 = u64::MAX - 2;
/// A byte that no head may contain.
const SPOILT: u8 = 0;
/// What hyper sees behind it: it parses a head that came in pieces only after an empty line.
const END: &[u8] = b"\n\n";

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    part: Part,
    refused: Option<Refusal>,
    /// How much of [`END`] hyper has seen.
    ended: usize,
}

#[derive(Debug)]
enum Part {
    Head(HeadLines),
    /// Bytes of a body that are still to come.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize(Vec<u8>),
    /// Bytes of a chunk that are still to come.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd(Vec<u8>),
    Trailers(HeadLines),
}

/// The length of a body, as its head declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyLength {
    Known(u64),
    Chunked,
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(HeadLines::default())
    }
}

impl Framing {
    /// Follows the next bytes, and makes the last byte of a refused part invalid; returns how many of them hyper may see.
    pub(crate) fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let mut seen = 0;
        while seen < bytes.len() && self.refused.is_none() {
            let rest = &mut bytes[seen..];
            let taken = match &mut self.part {
                Part::Body(left) | Part::Chunk(left) => skip(left, rest.len()),
                Part::Head(_) | Part::ChunkSize(_) | Part::ChunkEnd(_) | Part::Trailers(_) => line(rest),
            };
            seen += taken;
            if let Err(refusal) = self.step(&rest[..taken]) {
                rest[taken - 1] = SPOILT;
                self.refused = Some(refusal);
            }
        }
        seen
    }

    /// What hyper sees behind a refused byte, in place of what the client sends: at most `room` bytes, at last none.
    pub(crate) fn behind(&mut self, room: usize) -> &'static [u8] {
        let rest = END.get(self.ended..).unwrap_or_default();
        let now = &rest[..rest.len().min(room)];
        self.ended += now.len();
        now
    }

    /// Whether a head has begun and not ended; line ends before a request are none.
    pub(crate) fn in_head(&self) -> bool {
        matches!(&self.part, Part::Head(head) if !head.bytes.is_empty())
    }

    /// The reason why nothing more is let through.
    pub(crate) const fn refused(&self) -> Option<Refusal> {
        self.refused
    }

    /// Takes a part within one body, or up to the end of a line.
    fn step(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let next = match &mut self.part {
            Part::Head(head) => {
                if !head.take(bytes, true)? {
                    return Ok(());
                }
                match body_length(&head.bytes)? {
                    BodyLength::Known(0) => Part::default(),
                    BodyLength::Known(length) => Part::Body(length),
                    BodyLength::Chunked => Part::ChunkSize(Vec::new()),
                }
            }
            Part::Body(0) => Part::default(),
            Part::Chunk(0) => Part::ChunkEnd(Vec::new()),
            Part::Body(_) | Part::Chunk(_) => return Ok(()),
            Part::ChunkSize(line) => match whole_line(line, bytes)? {
                None => return Ok(()),
                Some(text) => match chunk_size(text)? {
                    0 => Part::Trailers(HeadLines::default()),
                    size => Part::Chunk(size),
                },
            },
            Part::ChunkEnd(line) => match whole_line(line, bytes)? {
                None => return Ok(()),
                Some([]) => Part::ChunkSize(Vec::new()),
                Some(_) => return Err(Refusal::Ambiguous),
            },
            Part::Trailers(trailers) => {
                if !trailers.take(bytes, false)? {
                    return Ok(());
                }
                match parse_headers(&trailers.bytes, &mut [EMPTY_HEADER; HEADERS]) {
                    Ok(Status::Complete((length, _))) if length == trailers.bytes.len() => Part::default(),
                    Ok(_) | Err(_) => return Err(Refusal::Ambiguous),
                }
            }
        };
        self.part = next;
        Ok(())
    }
}

/// Lines up to an empty one: a head, or trailers.
#[derive(Debug, Default)]
struct HeadLines {
    bytes: Vec<u8>,
    /// The beginning of the current line.
    line: usize,
}

impl HeadLines {
    /// Takes a part of a line; returns whether this was the section's end. Empty lines before a request are skipped (2.2).
    fn take(&mut self, bytes: &[u8], skips_empty: bool) -> Result<bool, Refusal> {
        self.bytes.extend_from_slice(bytes);
        let ends_line = bytes.ends_with(b"\n");
        if ends_line {
            match &self.bytes[self.line..] {
                b"\r\n" if self.line == 0 && skips_empty => self.bytes.clear(),
                b"\r\n" if self.bytes.len() <= HEAD_BYTES => return Ok(true),
                [.., b'\r', b'\n'] => {}
                _ => return Err(Refusal::Ambiguous),
            }
            self.line = self.bytes.len();
        }
        if self.bytes.len() >= HEAD_BYTES { Err(Refusal::TooLarge) } else { Ok(false) }
    }
}

/// The framing of the body behind `head`, if it can be read in one way only.
fn body_length(head: &[u8]) -> Result<BodyLength, Refusal> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::Ambiguous),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::Version),
        Err(_) => return Err(Refusal::Malformed),
    }
    // A target has no fragment; hyper would drop it, and what stands before us may not.
    if request.path.is_some_and(|target| target.contains('#')) {
        return Err(Refusal::Malformed);
    }
    let mut declared = None;
    for header in &*request.headers {
        let length = if header.name.eq_ignore_ascii_case("content-length") {
            let length = number(header.value, 10).filter(|length| *length <= LONGEST_BODY);
            length.map(BodyLength::Known).ok_or(Refusal::Length)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            transfer_coding(header.value).map(|()| BodyLength::Chunked)
        } else {
            continue;
        };
        // Framed twice.
        if declared.replace(length).is_some() {
            return Err(Refusal::Ambiguous);
        }
    }
    match declared.transpose()? {
        // Who speaks 1.0 knows no chunks (6.1).
        Some(BodyLength::Chunked) if request.version == Some(0) => Err(Refusal::Ambiguous),
        declared => Ok(declared.unwrap_or(BodyLength::Known(0))),
    }
}

/// That a body has the one coding that is understood. Where `chunked` is not the last one its end is unknown (6.3); where
/// others come before it, it is known, but not what to make of it (6.1).
fn transfer_coding(value: &[u8]) -> Result<(), Refusal> {
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let codings: Vec<_> = value.split(|byte| *byte == b',').collect();
    match codings.as_slice() {
        [last] if is_chunked(last) => Ok(()),
        [others @ .., last] if is_chunked(last) => {
            let is_nonsense = |coding: &&[u8]| is_chunked(coding) || coding.trim_ascii().is_empty();
            Err(if others.iter().any(is_nonsense) { Refusal::Ambiguous } else { Refusal::Coding })
        }
        _ => Err(Refusal::Ambiguous),
    }
}

/// The size in the line before a chunk; extensions behind a semicolon are ignored (7.1.1).
fn chunk_size(text: &[u8]) -> Result<u64, Refusal> {
    let size = text.split(|byte| *byte == b';').next().unwrap_or_default();
    number(size.trim_ascii_end(), 16).ok_or(Refusal::Ambiguous)
}

/// Digits alone; no sign, no space.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
}

/// The text of a line of the chunked coding, once its end has come.
fn whole_line<'l>(line: &'l mut Vec<u8>, bytes: &[u8]) -> Result<Option<&'l [u8]>, Refusal> {
    line.extend_from_slice(bytes);
    match &line[..] {
        [text @ .., b'\r', b'\n'] if !text.contains(&b'\r') && text.len() <= CHUNK_LINE => Ok(Some(text)),
        [.., b'\n'] => Err(Refusal::Ambiguous),
        _ if line.len() > CHUNK_LINE => Err(Refusal::Ambiguous),
        _ => Ok(None),
    }
}

/// As far as the end of the first line.
fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// As far as `left` goes.
fn skip(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left = left.saturating_sub(taken as u64);
    taken
}

#[cfg(test)]
#[path = "smuggling_tests.rs"]
mod tests;
