//! Connection: time bounds and refusals around hyper's bytes.
//!
//! Hyper leaves four things open:
//! - a head must arrive within [`HEAD_READ`] of its *first* byte, while an idle connection lives for [`IDLE`]. Hyper's own
//!   `header_read_timeout` starts when the connection goes idle, so it would end every keep-alive after 5 s;
//! - a request that hyper refuses on its own (a head that is too large or no HTTP) is answered without a body or our headers.
//!   That answer is replaced by a problem on the way out;
//! - a request that two readers could frame differently is made invalid on its way in, and nothing is let in behind it (see
//!   [`smuggling`](crate::http::smuggling));
//! - a closing connection is read on for a moment, else the kernel answers further bytes of the client with a reset that can
//!   destroy our last response.
//!
//! Invariant: while a request is processed no time bound of the connection runs; a client that takes nothing of
//! its response for [`WRITE`], or sends nothing for [`FIRST_BYTE`], is disconnected. A large response is written from where
//! it is, not copied for each connection. HTTP is parsed by hyper.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use broker_runtime::clock::Clock;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::http::early_errors::EarlyErrors;
use crate::http::smuggling::Framing;
use crate::limits::{FIRST_BYTE, HEAD_READ, IDLE, LINGER, WRITE};

/// Whether a request of this connection is being processed; shared with the service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<AtomicBool>);

impl Busy {
    /// Busy until the guard is dropped. HTTP/1 processes one request of a connection at a time.
    pub(crate) fn begin(&self) -> impl Drop + use<> {
        struct EndOnDrop(Busy);
        impl Drop for EndOnDrop {
            fn drop(&mut self) {
                self.0.0.store(false, Ordering::Relaxed);
            }
        }
        self.0.store(true, Ordering::Relaxed);
        EndOnDrop(self.clone())
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionBounds {
    /// A head, from its first byte to its last.
    pub(crate) head_read: Duration,
    /// From the accept to the first byte.
    pub(crate) first_byte: Duration,
    /// Idling between two requests.
    pub(crate) idle: Duration,
    /// A response of which the client takes nothing.
    pub(crate) write: Duration,
    /// Further bytes on a closing connection.
    pub(crate) linger: Duration,
}

impl Default for ConnectionBounds {
    fn default() -> Self {
        Self { head_read: HEAD_READ, first_byte: FIRST_BYTE, idle: IDLE, write: WRITE, linger: LINGER }
    }
}

impl ConnectionBounds {
    /// Of a connection on a spare seat: others wait for it.
    pub(crate) fn of_spare() -> Self {
        Self { first_byte: FIRST_BYTE / 10, idle: IDLE / 90, write: WRITE / 10, ..Self::default() }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    bounds: ConnectionBounds,
    clock: Clock,
    stream: TcpStream,
    busy: Busy,
    refusals: EarlyErrors,
    framing: Framing,
    /// The end of the current bound: of silence, of a head, of an answer, of idling, of lingering.
    bound: Pin<Box<Sleep>>,
    /// A head has begun to arrive.
    in_head: bool,
    /// A response is being written and the client does not read it.
    stalled: bool,
    /// A refusal on its way out.
    outgoing: Bytes,
    lingering: bool,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        busy: Busy,
        refusals: EarlyErrors,
        bounds: ConnectionBounds,
        clock: Clock,
    ) -> Self {
        Self {
            bound: Box::pin(sleep(bounds.first_byte)),
            clock,
            bounds,
            stream,
            busy,
            refusals,
            framing: Framing::default(),
            in_head: false,
            stalled: false,
            outgoing: Bytes::new(),
            lingering: false,
        }
    }

    /// Sets the current bound.
    fn bound_to(&mut self, most: Duration) {
        let now = Instant::from_std(self.clock.instant());
        self.bound.as_mut().reset(now + most);
    }

    /// Writes the rest of a refusal, within the bounds of an answer.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.has_remaining() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.outgoing);
            let written = ready!(self.written(cx, written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the connection broke while its request is answered, when hyper reads nothing. A client that only ends its
    /// half of the connection still waits for the answer; one that closes both cannot be told from it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut one = [MaybeUninit::uninit()];
        match self.stream.poll_peek(cx, &mut ReadBuf::uninit(&mut one)) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Holds the bounds of an answer of which so much was taken just now.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.busy.is() {
            return written;
        }
        if written.is_pending() {
            if !std::mem::replace(&mut self.stalled, true) {
                let most = self.bounds.write;
                self.bound_to(most);
            }
            ready!(self.bound.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // An answer goes out: what follows is idling, until the first byte of the next head. That one may have come already.
        (self.in_head, self.stalled) = (self.framing.in_head(), false);
        let most = if self.in_head { self.bounds.head_read } else { self.bounds.idle };
        self.bound_to(most);
        // Registers the wake-up; hyper need not read before the next byte comes.
        let _ = self.bound.as_mut().poll(cx);
        written
    }

    /// The bound has passed while no request was processed: answers a client in the middle of a head, and ends.
    fn time_is_up(&mut self) -> io::Error {
        if self.in_head && !self.stalled {
            let refusal = self.refusals.head_too_slow();
            // As much as the socket takes at once: a slow client is not waited for.
            let _ = self.stream.try_write(&refusal);
        }
        io::ErrorKind::TimedOut.into()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.framing.refused().is_some() {
            buf.put_slice(self.framing.behind(buf.remaining()));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let seen = self.framing.follow(&mut buf.filled_mut()[before..]);
        buf.set_filled(before + seen);
        if self.busy.is() {
            return read;
        }
        // A line end before a request is none of its head.
        let begins = buf.filled()[before..].iter().any(|byte| !b"\r\n".contains(byte));
        match read {
            Poll::Ready(Ok(())) if begins && !self.in_head => {
                self.in_head = true;
                let most = self.bounds.head_read;
                self.bound_to(most);
                read
            }
            Poll::Ready(_) => read,
            Poll::Pending => {
                ready!(self.bound.as_mut().poll(cx));
                Poll::Ready(Err(self.time_is_up()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_refuse(cx))?;
        if let Some(refusal) = self.refusals.in_place_of(buf, self.framing.refused()) {
            self.outgoing = refusal;
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_refuse(cx))?;
        let first = bufs.first().map_or(&[][..], |first| first);
        if let Some(refusal) = self.refusals.in_place_of(first, self.framing.refused()) {
            self.outgoing = refusal;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refuse(cx))?;
        if self.busy.is() {
            self.poll_gone(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refuse(cx))?;
        if !self.lingering {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.lingering = true;
            let most = self.bounds.linger;
            self.bound_to(most);
        }
        let mut scratch = [0; 4096];
        loop {
            if self.bound.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut ignored = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ignored)) {
                Ok(()) if !ignored.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
