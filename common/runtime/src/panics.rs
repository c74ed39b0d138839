//! Panics caught as outcomes: those of work for one of many, which must not stop the work for the others.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

/// The result of `future`, or `None` if it panics.
pub fn caught<T>(future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    let mut future = Box::pin(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_panic) => Poll::Ready(None),
    })
}
