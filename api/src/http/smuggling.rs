//! The framing of requests, followed byte by byte before hyper sees them: a head that two readers could frame
//! differently is spoilt on its way in, so that hyper refuses it, in its turn, and closes the connection.
//!
//! Hyper alone would be lenient where RFC 9112 allows it: of `Content-Length` beside `Transfer-Encoding` it forgets the
//! length (6.3), of equal lengths the second (6.3), and a line may end without its CR (2.2). A proxy before us may choose
//! otherwise, and what it takes for a body would be a request to us. Invariants: a head that is framed in one way passes
//! as it is; a NUL, which no head may hold, stands in each that is not. What it does not do: judge anything else; what it
//! does not understand it follows no further, and hyper refuses that by itself.

/// How much of a header line is looked at: more than any that tells a framing.
const LOOKED_AT: usize = 64;
/// What no head may hold.
const SPOILT: u8 = 0;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    part: Part,
}

#[derive(Debug)]
enum Part {
    Head(Head),
    /// So many bytes of a body are to come.
    Body(u64),
    /// A line of the chunked coding.
    Line(Chunked, Vec<u8>),
    /// So many bytes of a chunk are to come, its line end among them.
    Chunk(u64),
    /// Followed no further.
    Lost,
}

/// Which line of the chunked coding.
#[derive(Clone, Copy, Debug)]
enum Chunked {
    Size,
    Trailer,
}

/// What a head has told so far.
#[derive(Debug, Default)]
struct Head {
    line: Vec<u8>,
    /// Bytes of the line, also those that are not kept.
    length_of_line: usize,
    after_cr: bool,
    /// The request line has come; empty lines before it are skipped (2.2).
    begun: bool,
    body: Told,
}

/// How long a head says that its body is.
#[derive(Clone, Copy, Debug, Default)]
enum Told {
    #[default]
    Nothing,
    Length(u64),
    Chunked,
    /// Hyper will refuse it.
    Nonsense,
}

/// A head that two readers could frame differently.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl Framing {
    /// Follows the next bytes, and spoils them if they end an ambiguous line.
    pub(crate) fn follow(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.part {
                Part::Lost => return,
                Part::Body(left) | Part::Chunk(left) => skip(left, bytes.len()),
                Part::Head(_) | Part::Line(..) => line(bytes),
            };
            let (now, later) = bytes.split_at_mut(taken);
            self.step(now);
            bytes = later;
        }
    }

    /// Takes a part that lies within one body, or ends with the end of a line if that has come.
    fn step(&mut self, bytes: &mut [u8]) {
        let next = match &mut self.part {
            Part::Head(head) => match head.take(bytes) {
                Ok(None) => return,
                Ok(Some(Told::Nothing)) => Part::default(),
                Ok(Some(Told::Length(length))) => after_head(length),
                Ok(Some(Told::Chunked)) => Part::Line(Chunked::Size, Vec::new()),
                Ok(Some(Told::Nonsense)) => Part::Lost,
                Err(Ambiguous) => {
                    if let Some(last) = bytes.last_mut() {
                        *last = SPOILT;
                    }
                    Part::Lost
                }
            },
            Part::Body(0) => Part::default(),
            Part::Chunk(0) => Part::Line(Chunked::Size, Vec::new()),
            Part::Body(_) | Part::Chunk(_) | Part::Lost => return,
            Part::Line(which, line) => {
                keep(line, bytes);
                if !bytes.ends_with(b"\n") {
                    return;
                }
                chunked(*which, line)
            }
        };
        self.part = next;
    }
}

impl Head {
    /// Takes a part of a line; how the body is framed, if this was the head's end.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Told>, Ambiguous> {
        keep(&mut self.line, bytes);
        self.length_of_line += bytes.len();
        let [before @ .., b'\n'] = bytes else {
            self.after_cr = bytes.last() == Some(&b'\r');
            return Ok(None);
        };
        if !before.last().map_or(self.after_cr, |last| *last == b'\r') {
            return Err(Ambiguous);
        }
        let is_empty = self.length_of_line == 2;
        if is_empty && self.begun {
            return Ok(Some(self.body));
        }
        if self.begun {
            self.look_at_line()?;
        }
        self.begun |= !is_empty;
        self.line.clear();
        (self.length_of_line, self.after_cr) = (0, false);
        Ok(None)
    }

    fn look_at_line(&mut self) -> Result<(), Ambiguous> {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else { return Ok(()) };
        let (name, value) = (&self.line[..colon], &self.line[colon + 1..]);
        let told = if name.eq_ignore_ascii_case(b"content-length") {
            number(value.trim_ascii(), 10).map_or(Told::Nonsense, Told::Length)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            Told::Chunked
        } else {
            return Ok(());
        };
        match self.body {
            Told::Nothing => {
                self.body = told;
                Ok(())
            }
            // Framed twice, by whichever.
            Told::Length(_) | Told::Chunked | Told::Nonsense => Err(Ambiguous),
        }
    }
}

/// What follows the head of a request whose body has this length.
fn after_head(length: u64) -> Part {
    if length == 0 { Part::default() } else { Part::Body(length) }
}

/// What follows a line of the chunked coding.
fn chunked(which: Chunked, line: &[u8]) -> Part {
    let text = line.strip_suffix(b"\r\n").unwrap_or(line);
    match which {
        Chunked::Size => {
            let size = text.split(|byte| *byte == b';').next().unwrap_or_default();
            match number(size.trim_ascii(), 16) {
                Some(0) => Part::Line(Chunked::Trailer, Vec::new()),
                Some(size) => size.checked_add(2).map_or(Part::Lost, Part::Chunk),
                None => Part::Lost,
            }
        }
        Chunked::Trailer if text.is_empty() => Part::default(),
        Chunked::Trailer => Part::Line(Chunked::Trailer, Vec::new()),
    }
}

/// Digits alone; no sign, no space.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
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

fn keep(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = LOOKED_AT.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..room.min(bytes.len())]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POST: &str = "POST /v1/allocate HTTP/1.1\r\nhost: x\r\n";

    /// Whether it is spoilt, followed in pieces of this size.
    fn is_spoilt(stream: &str, piece: usize) -> bool {
        let mut bytes = stream.as_bytes().to_vec();
        let mut framing = Framing::default();
        bytes.chunks_mut(piece).for_each(|piece| framing.follow(piece));
        assert_eq!(bytes.len(), stream.len());
        let changed: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != stream.as_bytes()[*at]).collect();
        assert!(changed.len() <= 1 && changed.iter().all(|at| bytes[*at] == SPOILT), "{changed:?}");
        !changed.is_empty()
    }

    #[test]
    fn a_head_that_is_framed_twice_or_ends_its_lines_otherwise_is_spoilt() {
        for framing in [
            "content-length: 2\r\ntransfer-encoding: chunked",
            "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 2",
            "content-length: 2\r\ncontent-length: 2",
            "content-length: 2\r\nx: y\r\ncontent-length: 3",
            "content-length: x\r\ncontent-length: 3",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "x: y\nz: a",
        ] {
            for piece in [1, 2, 3, 1_000] {
                assert!(is_spoilt(&format!("{POST}{framing}\r\n\r\n"), piece), "{framing}");
            }
        }
        assert!(is_spoilt("GET / HTTP/1.1\nhost: x\r\n\r\n", 1_000));
        assert!(is_spoilt("GET / HTTP/1.1\r\nhost: x\r\n\n", 1_000));
    }

    #[test]
    fn a_request_behind_others_is_looked_at_and_what_lies_in_bodies_is_not() {
        let hidden = "content-length: 1\r\ncontent-length: 1\r\n\n";
        let ambiguous = format!("{POST}content-length: 1\r\ncontent-length: 1\r\n\r\n");
        let before = [
            format!("{POST}content-length: {}\r\n\r\n{hidden}", hidden.len()),
            format!(
                "{POST}transfer-encoding: chunked\r\n\r\n{:x};a=b\r\n{hidden}\r\n0\r\nx: y\r\n\r\n",
                hidden.len()
            ),
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            "\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ];
        for before in &before {
            for piece in [1, 7, 1_000] {
                assert!(!is_spoilt(&before.repeat(3), piece), "{before}");
                assert!(is_spoilt(&format!("{before}{ambiguous}"), piece), "{before}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_bytes_come_make_no_difference(
            parts in prop::collection::vec(prop::sample::select(vec![
                POST, "content-length: 3\r\n", "transfer-encoding: chunked\r\n", "\r\n", "\n", "abc", "3\r\nabc\r\n",
                "0\r\n\r\n", "x: y\r\n", "content-length: +3\r\n", "GET / HTTP/1.1\r\n", "\r", "ffffffffffffffff\r\n",
            ]), 0..12),
            piece in 1_usize..20,
        ) {
            let stream = parts.concat();
            prop_assert_eq!(is_spoilt(&stream, piece), is_spoilt(&stream, stream.len().max(1)));
        }
    }
}
