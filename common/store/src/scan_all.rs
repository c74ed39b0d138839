//! Parallel scan of the whole table, segment by segment.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use crate::{Page, PageKey, Pages, Scanned, Store, StoreError};

/// The number of segments, read in parallel.
pub(crate) const SEGMENTS: i32 = 4;

/// Why a scan failed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The table did not answer, or has invalid items.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A reader panicked: a part of the table is unread.
    #[error("a part of the table is unread")]
    Reader(#[from] JoinError),
    /// The items of a suspect changed each time they were read.
    #[error("{violation} could not be read at one instant in {tries} tries")]
    Restless {
        /// The suspected violation.
        violation: String,
        /// The number of reads.
        tries: usize,
    },
}

/// Reads all sandboxes and leases, page by page; `see` returns whether to go on.
pub async fn scan(store: &Store, see: impl FnMut(Scanned) -> bool) -> Result<(), ScanError> {
    let store = store.clone();
    let read = move |segment, after| {
        let store = store.clone();
        async move { store.scans.page(segment, SEGMENTS, after).await }
    };
    every_page(read, see).await
}

/// Reads every page of every segment, in parallel; `see` returns whether to go on.
pub(crate) async fn every_page<P, R, F>(read: R, mut see: impl FnMut(P) -> bool) -> Result<(), ScanError>
where
    P: Send + 'static,
    R: Fn(i32, Option<PageKey>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Page<P>, StoreError>> + Send,
{
    let (pages, mut read_pages) = mpsc::channel(2);
    let mut readers = JoinSet::new();
    for segment in 0..SEGMENTS {
        let (read, pages) = (read.clone(), pages.clone());
        readers.spawn(async move {
            let mut of_segment = Pages::new(move |after| read(segment, after));
            while let Some(page) = of_segment.next().await.transpose() {
                // The receiver may have stopped.
                if pages.send(page).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(pages);
    while let Some(page) = read_pages.recv().await {
        if !see(page?) {
            return Ok(());
        }
    }
    // A reader that panicked has left a part of the table unread.
    while let Some(ended) = readers.join_next().await {
        ended?;
    }
    Ok(())
}
