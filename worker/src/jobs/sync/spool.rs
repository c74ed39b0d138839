//! Spool: records in partitions, of which memory holds a bounded part and an unnamed file the rest.
//!
//! Each partition collects a block in memory; a full block goes to the end of the file. In the file, each block says where the one
//! before it in its partition is, so memory holds of a partition its last block and where the one before that is, however long
//! the list. The file has no name from its creation on, so nothing is left of it when the process ends. A small spool never
//! becomes a file.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A block of a partition, in bytes; records are not divided.
const BLOCK: usize = 4 * 1024;
/// What stands before the records of a block in the file: where the block before it is, and how long its records are.
const HEAD: usize = 12;
/// Names that are tried for a file.
const NAMES: u32 = 10_000;

/// Why records cannot be kept or read again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The directory or the disk.
    #[error("the lists of a sync are kept in {} (BROKER_SPOOL_DIR), and that fails: {source}", dir.display())]
    Disk {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A record.
    #[error("a record of a sync's lists cannot be kept or read again: {0}")]
    Record(#[from] serde_json::Error),
}

/// Records of one type.
#[derive(Debug)]
pub(super) struct Spool<T> {
    dir: Arc<Path>,
    file: Option<File>,
    end: u64,
    parts: Vec<SpoolPart>,
    records: u64,
    of: PhantomData<fn() -> T>,
}

#[derive(Debug, Default)]
struct SpoolPart {
    /// The last block in the file.
    written: Option<Block>,
    last: Vec<u8>,
}

/// A block in the file: where it begins, and how long its records are, which is never nothing.
#[derive(Clone, Copy, Debug)]
struct Block {
    at: u64,
    len: u32,
}

impl Block {
    fn write_head(before: Option<Self>) -> [u8; HEAD] {
        let Self { at, len } = before.unwrap_or(Self { at: 0, len: 0 });
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&at.to_le_bytes());
        head[8..].copy_from_slice(&len.to_le_bytes());
        head
    }

    fn read_head(head: [u8; HEAD]) -> Option<Self> {
        let [at @ .., a, b, c, d] = head;
        let (at, len) = (u64::from_le_bytes(at), u32::from_le_bytes([a, b, c, d]));
        (len > 0).then_some(Self { at, len })
    }
}

/// The partition, of `parts`, of what has this key.
pub(super) fn part_of(key: &impl Hash, parts: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let parts = parts as u64;
    usize::try_from(hasher.finish() % parts).unwrap_or_default()
}

impl<T: Serialize + DeserializeOwned> Spool<T> {
    /// An empty one of so many partitions, whose file would be in `dir`.
    pub(super) fn new(dir: Arc<Path>, parts: usize) -> Self {
        let parts = (0..parts).map(|_| SpoolPart::default()).collect();
        Self { dir, file: None, end: 0, parts, records: 0, of: PhantomData }
    }

    /// The number of its records.
    pub(super) const fn len(&self) -> u64 {
        self.records
    }

    /// Adds a record to a partition.
    pub(super) fn push(&mut self, part: usize, record: &T) -> Result<(), SpoolError> {
        let last = &mut self.parts[part].last;
        serde_json::to_writer(&mut *last, record)?;
        last.push(b'\n');
        let is_full = last.len() >= BLOCK;
        self.records += 1;
        if is_full { self.write_block(part) } else { Ok(()) }
    }

    /// Adds a record to the partition of its key.
    pub(super) fn push_by(&mut self, key: &impl Hash, record: &T) -> Result<(), SpoolError> {
        self.push(part_of(key, self.parts.len()), record)
    }

    fn write_block(&mut self, part: usize) -> Result<(), SpoolError> {
        let disk = |source| SpoolError::Disk { dir: self.dir.to_path_buf(), source };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unnamed(&self.dir).map_err(disk)?),
        };
        let SpoolPart { written, last } = &mut self.parts[part];
        let block = [&Block::write_head(*written)[..], last].concat();
        file.write_all_at(&block, self.end).map_err(disk)?;
        *written = Some(Block { at: self.end, len: u32::try_from(last.len()).unwrap_or(u32::MAX) });
        self.end += block.len() as u64;
        last.clear();
        Ok(())
    }

    /// The blocks of a partition in their order; `None` is the one in memory.
    fn blocks(&self, part: usize) -> Result<Vec<Option<Block>>, SpoolError> {
        let mut blocks = vec![None];
        let mut before = self.parts[part].written;
        while let (Some(block), Some(file)) = (before, &self.file) {
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, block.at).map_err(|source| self.disk(source))?;
            blocks.push(Some(block));
            before = Block::read_head(head);
        }
        blocks.reverse();
        Ok(blocks)
    }

    fn disk(&self, source: io::Error) -> SpoolError {
        SpoolError::Disk { dir: self.dir.to_path_buf(), source }
    }

    /// The records of a partition, in the order in which they came.
    pub(super) fn part(&self, part: usize) -> impl Iterator<Item = Result<T, SpoolError>> + '_ {
        let (blocks, failed) = match self.blocks(part) {
            Ok(blocks) => (blocks, None),
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        let records = blocks.into_iter().map(move |block| self.block(part, block));
        failed.into_iter().chain(records.flat_map(|block| block.unwrap_or_else(|error| vec![Err(error)])))
    }

    /// The records of a block; `None` is the one in memory.
    fn block(&self, part: usize, block: Option<Block>) -> Result<Vec<Result<T, SpoolError>>, SpoolError> {
        let read;
        let bytes = match (block, &self.file) {
            (Some(block), Some(file)) => {
                let mut bytes = vec![0; block.len as usize];
                let at = block.at + HEAD as u64;
                file.read_exact_at(&mut bytes, at).map_err(|source| self.disk(source))?;
                read = bytes;
                &read
            }
            _ => &self.parts[part].last,
        };
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| serde_json::from_slice(line).map_err(SpoolError::from)).collect())
    }
}

/// A reader of all records, partition by partition, a portion at a time.
#[derive(Debug)]
pub(super) struct Portions<T> {
    spool: Arc<Spool<T>>,
    /// The partition after the one of `blocks`.
    next_part: usize,
    blocks: std::vec::IntoIter<(usize, Option<Block>)>,
    ready: std::vec::IntoIter<Result<T, SpoolError>>,
}

impl<T: Serialize + DeserializeOwned> Portions<T> {
    /// From the first record on.
    pub(super) fn new(spool: Arc<Spool<T>>) -> Self {
        Self { spool, next_part: 0, blocks: Vec::new().into_iter(), ready: Vec::new().into_iter() }
    }

    /// The next records, so many unless it ends; none at the end.
    pub(super) fn next(&mut self, most: usize) -> Result<Vec<T>, SpoolError> {
        let mut portion = Vec::new();
        while portion.len() < most {
            if let Some(record) = self.ready.next() {
                portion.push(record?);
                continue;
            }
            if let Some((part, block)) = self.blocks.next() {
                self.ready = self.spool.block(part, block)?.into_iter();
                continue;
            }
            let part = self.next_part;
            if part == self.spool.parts.len() {
                break;
            }
            let blocks = self.spool.blocks(part)?.into_iter().map(|block| (part, block));
            self.blocks = blocks.collect::<Vec<_>>().into_iter();
            self.next_part += 1;
        }
        Ok(portion)
    }
}

/// A new file in `dir`, whose name is gone already.
fn unnamed(dir: &Path) -> io::Result<File> {
    for number in 0..NAMES {
        let path = dir.join(format!(".broker-spool-{}-{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dir() -> Arc<Path> {
        std::env::temp_dir().into()
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out_in_its_order(records in prop::collection::vec((0_usize..3, "\\PC{0,40}"), 0..200), long in 0_usize..3) {
            let mut spool = Spool::new(dir(), 3);
            let mut kept = vec![Vec::new(); 3];
            let padding = "x".repeat(long * BLOCK / 4);
            for (part, text) in records {
                let record = (text, padding.clone());
                spool.push(part, &record).unwrap();
                kept[part].push(record);
            }
            for (part, kept) in kept.iter().enumerate() {
                prop_assert_eq!(&spool.part(part).map(Result::unwrap).collect::<Vec<_>>(), kept);
            }
            prop_assert_eq!(spool.len(), kept.iter().map(Vec::len).sum::<usize>() as u64);
            let mut portions = Portions::new(Arc::new(spool));
            let mut all = Vec::new();
            loop {
                let portion = portions.next(7).unwrap();
                prop_assert!(portion.len() <= 7);
                if portion.is_empty() {
                    break;
                }
                all.extend(portion);
            }
            prop_assert_eq!(all, kept.concat());
        }
    }

    #[test]
    fn a_spool_holds_a_block_of_each_partition_and_needs_its_directory_only_beyond() {
        let mut spool = Spool::new(Path::new("/nowhere").into(), 2);
        let record = "x".repeat(BLOCK / 2);
        spool.push(0, &record).unwrap();
        spool.push(1, &record).unwrap();
        let error = spool.push(0, &record).unwrap_err();
        assert!(
            error.to_string().contains("/nowhere") && error.to_string().contains("BROKER_SPOOL_DIR"),
            "{error}"
        );
    }
}
