//! Limits of the HTTP ingress. Limits that an operator may change are settings, see `broker_runtime::config`.

use std::time::Duration;

/// The largest request body, in bytes.
pub(crate) const BODY_BYTES: usize = 16 * 1024;
/// The largest request line and header block together, in bytes.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// The buffer of one connection, in bytes: a head and a body.
pub(crate) const BUFFER_BYTES: usize = HEAD_BYTES + BODY_BYTES;
/// The longest path with its query, in bytes.
pub(crate) const PATH_BYTES: usize = 2 * 1024;
/// How long a head may take from its first byte to its last.
pub(crate) const HEAD_READ: Duration = Duration::from_secs(5);
/// How long a body may take.
pub(crate) const BODY_READ: Duration = Duration::from_secs(10);
/// How long a connection may idle. Longer than the idle timeout of a load balancer (60 to 75 s), so that our side never
/// closes first while a request is on its way.
pub(crate) const IDLE: Duration = Duration::from_secs(90);
/// How long a connection may be open before its first byte comes.
pub(crate) const FIRST_BYTE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of a response.
pub(crate) const WRITE: Duration = Duration::from_secs(10);
/// How long a closing connection is read on, so that the last response is not lost to a reset.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// The longest wait of `Prefer: wait=N`.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(50);
/// The least time in which a synchronous request may be claimed, however short its caller waits.
pub(crate) const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request with `respond-async` may be claimed.
pub(crate) const ASYNC_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// The default number of sandboxes of a page of the pool.
pub(crate) const SANDBOXES_PER_PAGE: u32 = 50;
/// The most sandboxes of a page of the pool.
pub(crate) const MAX_SANDBOXES_PER_PAGE: u32 = 100;
/// How many days back the audit can be asked for: as long as a line is kept.
pub(crate) const LONGEST_AUDIT_DAYS: u32 = 400;
/// The default number of dead letters of a page.
pub(crate) const LETTERS_PER_PAGE: u32 = 50;
/// The most dead letters of a page.
pub(crate) const MAX_LETTERS_PER_PAGE: u32 = 100;
/// The default number of dead letters of a replay or discard.
pub(crate) const LETTERS_PER_ACTION: u32 = 100;
/// The most dead letters of a replay or discard.
pub(crate) const MAX_LETTERS_PER_ACTION: u32 = 1_000;
/// The most sandboxes that leave the quarantine by one call that names none.
pub(crate) const MAX_SANDBOXES_PER_LEAVING: u32 = 1_000;
/// The longest age in a filter of dead letters: ten years.
pub(crate) const LONGEST_AGE_S: u32 = 10 * 366 * 86_400;
