//! `broker pool`: fill, list, count and check the pool.

pub(crate) mod list;
pub(crate) mod seed;
pub(crate) mod stats;
pub(crate) mod verify;

use broker_common::store::{ScanPage, Store, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Segments of the table that are read at the same time.
const SEGMENTS: i32 = 4;

/// Reads all sandboxes and leases, page by page; `see` says whether to go on.
async fn scan(store: &Store, mut see: impl FnMut(ScanPage) -> bool) -> anyhow::Result<()> {
    let (pages, mut read) = mpsc::channel(2);
    let mut readers = JoinSet::new();
    for segment in 0..SEGMENTS {
        readers.spawn(scan_segment(store.clone(), segment, pages.clone()));
    }
    drop(pages);
    while let Some(page) = read.recv().await {
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

async fn scan_segment(store: Store, segment: i32, pages: mpsc::Sender<Result<ScanPage, StoreError>>) {
    let mut after = None;
    loop {
        let page = store.scan(segment, SEGMENTS, after.take()).await;
        let next = page.as_ref().ok().and_then(|page| page.next.clone());
        // Whoever reads the pages may have seen enough.
        if pages.send(page).await.is_err() || next.is_none() {
            return;
        }
        after = next;
    }
}
