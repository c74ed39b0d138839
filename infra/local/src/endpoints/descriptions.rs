//! Descriptions of tables that the embedded DynamoDB endpoint remembers.
//!
//! For each DescribeTable the library counts every item and reads every entry of the index, and no other call is answered meanwhile:
//! 0.4 s for 100,000 sandboxes, and each worker asks every five seconds. AWS counts about every six hours. So a description stands
//! until a call changes a table; its counts may be older. Invariant: while such a call is under way, or its end was not seen,
//! nothing is told from memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, EXPECT, HeaderMap, ORIGIN};
use tokio::sync::Notify;

use super::operations::TableOperation;

const TARGET: &str = "x-amz-target";
const DESCRIBE: &str = "DynamoDB_20120810.DescribeTable";
const EXECUTE_STATEMENT: &str = "DynamoDB_20120810.ExecuteStatement";
const JSON: &str = "application/x-amz-json-1.0";
/// What a signature has; without it the library refuses a call.
const SIGNATURE: [&str; 3] = ["Credential=", "SignedHeaders=", "Signature="];
/// The longest request and answer of a description, and the longest statement.
pub(super) const LONGEST: usize = 16 * 1024;
/// Tables, in as many ways as they are asked for.
const MOST: usize = 64;

/// What a request does with descriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// It asks for one.
    Description,
    /// It may change one.
    Change,
    /// Nothing: it is a PartiQL statement.
    Statement,
    /// Nothing: it is an operation that is run here.
    Operation(TableOperation),
    /// Nothing.
    Other,
}

impl Asks {
    /// What a request of `headers` asks for. What the library may refuse, or answers in another way, is left to it: `is_call` tells
    /// that it is a POST to `/` in HTTP/1.1.
    pub(super) fn of(headers: &HeaderMap, is_call: bool) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let targets = headers.get_all(TARGET).iter().filter_map(|target| target.to_str().ok());
        let targets: Vec<_> = targets.collect();
        let is_signed = headers.contains_key("x-amz-date")
            && SIGNATURE.iter().all(|part| text(AUTHORIZATION.as_str()).contains(part));
        let is_call = is_call
            && is_signed
            && text(CONTENT_TYPE.as_str()) == JSON
            && [ORIGIN, EXPECT, CONNECTION].iter().all(|name| !headers.contains_key(name));
        match targets.as_slice() {
            [DESCRIBE] if is_call => Self::Description,
            [EXECUTE_STATEMENT] if is_call => Self::Statement,
            [target] if is_call && let Some(operation) = TableOperation::of(target) => {
                Self::Operation(operation)
            }
            _ if targets.iter().any(|target| changes_tables(target)) => Self::Change,
            _ => Self::Other,
        }
    }
}

fn changes_tables(target: &str) -> bool {
    target.contains("Table") && !target.ends_with(".ListTables") && target != DESCRIBE
}

/// The descriptions that are known. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Descriptions(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    /// Whole answers by the body that asked.
    answers: HashMap<Vec<u8>, Vec<u8>>,
    /// Calls that change a table and did not end yet.
    changing: usize,
    /// How many of them began.
    began: u64,
}

impl Descriptions {
    fn known(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let known = self.known();
        (known.changing == 0).then(|| known.answers.get(asked).cloned()).flatten()
    }
}

/// A request that was passed on and is not answered.
#[derive(Debug)]
enum Open {
    Description { asked: Vec<u8>, began: u64 },
    Change,
    Other,
}

/// The requests of one connection that are not answered, in their order.
#[derive(Debug)]
pub(super) struct OpenRequests {
    descriptions: Descriptions,
    open: Mutex<VecDeque<Open>>,
    all_answered: Notify,
    /// Where an answer ends is not known any more.
    is_lost: AtomicBool,
}

impl OpenRequests {
    pub(super) fn new(descriptions: Descriptions) -> Self {
        Self {
            descriptions,
            open: Mutex::default(),
            all_answered: Notify::new(),
            is_lost: AtomicBool::new(false),
        }
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is passed on. `asked` is its body, if it was read.
    pub(super) fn begin(&self, asks: Asks, asked: Option<&[u8]>) {
        let mut known = self.descriptions.known();
        let open = match (asks, asked) {
            (Asks::Description, Some(asked)) => {
                Open::Description { asked: asked.to_vec(), began: known.began }
            }
            (Asks::Change, _) => {
                known.changing += 1;
                known.began += 1;
                known.answers.clear();
                Open::Change
            }
            (Asks::Description | Asks::Statement | Asks::Operation(_) | Asks::Other, _) => Open::Other,
        };
        drop(known);
        self.open().push_back(open);
    }

    /// Waits until all requests that were passed on are answered; whether that is known.
    pub(super) async fn are_answered(&self) -> bool {
        loop {
            let answered = self.all_answered.notified();
            if self.is_lost.load(Ordering::Relaxed) {
                return false;
            }
            if self.open().is_empty() {
                return true;
            }
            answered.await;
        }
    }

    /// The known answer to a request for a description, once all before it are answered.
    pub(super) async fn remembered(&self, asked: &[u8]) -> Option<Vec<u8>> {
        self.descriptions.get(asked)?;
        if self.are_answered().await { self.descriptions.get(asked) } else { None }
    }

    /// Whether the answer that comes now is a description: then it is worth reading whole.
    pub(super) fn is_description(&self) -> bool {
        matches!(self.open().front(), Some(Open::Description { .. }))
    }

    /// The answer to the first of them came, `whole` if it is a success that was read whole.
    pub(super) fn end(&self, whole: Option<&[u8]>) {
        let ended = self.open().pop_front();
        let mut known = self.descriptions.known();
        match (ended, whole) {
            (Some(Open::Description { asked, began }), Some(whole))
                if began == known.began && known.changing == 0 && known.answers.len() < MOST =>
            {
                known.answers.insert(asked, whole.to_vec());
            }
            (Some(Open::Change), _) => known.changing -= 1,
            _ => {}
        }
    }

    /// From here on answers are passed on without knowing where they end.
    pub(super) fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
        self.all_answered.notify_one();
    }

    /// The answer was passed on.
    pub(super) fn passed(&self) {
        if self.open().is_empty() {
            self.all_answered.notify_one();
        }
    }
}
