//! Every bound of the ingress, in one place. Bounds that an operator may move are settings, see `broker_runtime::config`.

use std::time::Duration;

/// The largest request body, in bytes.
pub(crate) const BODY_BYTES: usize = 16 * 1024;
/// The largest request line and header block together, in bytes.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;
/// What one connection may buffer, in bytes: a head and a body.
pub(crate) const BUFFER_BYTES: usize = HEAD_BYTES + BODY_BYTES;
/// The longest path with its query, in bytes.
pub(crate) const PATH_BYTES: usize = 2 * 1024;
/// How long a head may take from its first byte to its last.
pub(crate) const HEAD_READ: Duration = Duration::from_secs(5);
/// How long a body may take.
pub(crate) const BODY_READ: Duration = Duration::from_secs(10);
/// How long a connection may idle. Longer than the idle timeout of a load balancer (60 to 75 s), so that it is never
/// ours that closes first while a request is on its way.
pub(crate) const IDLE: Duration = Duration::from_secs(90);
/// How long a closing connection is read on, so that the last answer is not lost to a reset.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// The longest wait that `Prefer: wait=N` may ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(50);
/// A synchronous request may be claimed for at least this long, however short its caller waits.
pub(crate) const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request that was answered 202 at once (`respond-async`) may be claimed.
pub(crate) const ASYNC_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// `lab_duration_hours` of an allocate.
pub(crate) const LAB_HOURS: std::ops::RangeInclusive<u16> = 1..=168;
