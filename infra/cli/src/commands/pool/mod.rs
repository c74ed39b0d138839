//! `broker pool`: fill, list, count, check, pause, take over and reconcile the pool.

pub(crate) mod adopt;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod reconcile;
pub(crate) mod seed;
pub(crate) mod stats;
pub(crate) mod verify;

use std::future::Future;

use broker_common::store::{PageKey, ScanPage, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Segments of the table that are read at the same time.
const SEGMENTS: i32 = 4;

/// Reads all sandboxes and leases, page by page; `see` says whether to go on.
async fn scan(store: &Store, see: impl FnMut(ScanPage) -> bool) -> anyhow::Result<()> {
    let store = store.clone();
    let read = move |segment, after| {
        let store = store.clone();
        async move { store.scan(segment, SEGMENTS, after).await }
    };
    every_page(read, |page| page.next.clone(), see).await
}

/// Reads every page of every segment, some segments at the same time; `see` says whether to go on.
async fn every_page<P, R, F>(
    read: R,
    next: fn(&P) -> Option<PageKey>,
    mut see: impl FnMut(P) -> bool,
) -> anyhow::Result<()>
where
    P: Send + 'static,
    R: Fn(i32, Option<PageKey>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<P, StoreError>> + Send,
{
    let (pages, mut read_pages) = mpsc::channel(2);
    let mut readers = JoinSet::new();
    for segment in 0..SEGMENTS {
        let (read, pages) = (read.clone(), pages.clone());
        readers.spawn(async move {
            let mut after = None;
            loop {
                let page = read(segment, after.take()).await;
                after = page.as_ref().ok().and_then(next);
                // Whoever reads the pages may have seen enough.
                if pages.send(page).await.is_err() || after.is_none() {
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
