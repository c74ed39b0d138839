//! The frequent operations of the embedded DynamoDB endpoint, run on the library without its HTTP server.
//!
//! The server parses each body three times, and with each transaction it walks through every token of the last ten minutes:
//! a fifth of what an allocation costs on one machine, more the longer a table lives. So the operations of a broker are run here.
//! Invariant: answers are the library's. What it may refuse in words of its own (all but a failed condition or storage) is left to it.
//!
//! Differences from AWS: a transaction that is sent again with its token must be the same but for the order of its maps, and its
//! answer tells no capacity.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_runtime::clock::Clock;
use dynoxide::actions::transact_write_items::{TransactWriteItem, TransactWriteItemsRequest};
use dynoxide::types::AttributeValue;
use dynoxide::{Database, DynoxideError};
use serde::{Serialize, de::DeserializeOwned};

/// How long AWS knows a token ("TransactWriteItems", AWS documentation).
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);
/// The longest token.
const TOKEN_CHARS: usize = 36;

/// An operation that is run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableOperation {
    BatchGetItem,
    BatchWriteItem,
    DeleteItem,
    GetItem,
    PutItem,
    Query,
    TransactWriteItems,
    UpdateItem,
}

impl TableOperation {
    /// The operation of an `X-Amz-Target`.
    pub(super) fn of(target: &str) -> Option<Self> {
        Some(match target.strip_prefix("DynamoDB_20120810.")? {
            "BatchGetItem" => Self::BatchGetItem,
            "BatchWriteItem" => Self::BatchWriteItem,
            "DeleteItem" => Self::DeleteItem,
            "GetItem" => Self::GetItem,
            "PutItem" => Self::PutItem,
            "Query" => Self::Query,
            "TransactWriteItems" => Self::TransactWriteItems,
            "UpdateItem" => Self::UpdateItem,
            _ => return None,
        })
    }
}

/// Status and body of an answer.
pub(super) type Answer = (u16, String);

/// The tokens of transactions that were run here. One at a time is run: of two with one token the second finds the first.
#[derive(Debug)]
pub(super) struct Transactions {
    clock: Clock,
    tokens: Mutex<KnownTokens>,
}

#[derive(Debug, Default)]
struct KnownTokens {
    known: HashMap<String, TokenState>,
    /// In the order in which they became known.
    ages: VecDeque<(Instant, String)>,
    hashes: RandomState,
}

/// What became of a transaction with a token.
#[derive(Clone, Copy, Debug)]
enum TokenState {
    /// It was run; the hash of its items.
    Run(u64),
    /// The library has it, and its token.
    LeftToLibrary,
}

impl Transactions {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, tokens: Mutex::default() }
    }

    fn write(&self, database: &Database, mut request: TransactWriteItemsRequest) -> Option<Answer> {
        let Some(token) = request.client_request_token.take() else {
            return answer(database.transact_write_items(request));
        };
        if token.len() > TOKEN_CHARS {
            return None;
        }
        let now = self.clock.instant();
        // Held until the transaction has ended.
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.forget(now);
        let hash = tokens.hash(&request.transact_items);
        match tokens.known.get(&token) {
            Some(TokenState::Run(known)) if *known == hash => return Some((200, "{}".to_owned())),
            Some(TokenState::Run(_)) => {
                let reason = "An error occurred (IdempotentParameterMismatchException)".to_owned();
                let error = DynoxideError::IdempotentParameterMismatchException(reason);
                return Some((error.status_code(), error.to_json()));
            }
            Some(TokenState::LeftToLibrary) => return None,
            None => {}
        }
        let done = database.transact_write_items(request);
        let is_done = done.is_ok();
        let answer = answer(done);
        match (is_done, &answer) {
            (true, _) => tokens.add(now, token, TokenState::Run(hash)),
            (false, None) => tokens.add(now, token, TokenState::LeftToLibrary),
            (false, Some(_)) => {}
        }
        answer
    }

    /// Runs `operation` with a request's body; `None` if the library's server is to answer: it failed, or is to fail.
    pub(super) fn run(&self, operation: TableOperation, database: &Database, body: &[u8]) -> Option<Answer> {
        match operation {
            TableOperation::BatchGetItem => answer(database.batch_get_item(parsed(body)?)),
            TableOperation::BatchWriteItem => answer(database.batch_write_item(parsed(body)?)),
            TableOperation::DeleteItem => answer(database.delete_item(parsed(body)?)),
            TableOperation::GetItem => answer(database.get_item(parsed(body)?)),
            TableOperation::PutItem => answer(database.put_item(parsed(body)?)),
            TableOperation::Query => answer(database.query(parsed(body)?)),
            TableOperation::TransactWriteItems => self.write(database, parsed(body)?),
            TableOperation::UpdateItem => answer(database.update_item(parsed(body)?)),
        }
    }
}

impl KnownTokens {
    fn forget(&mut self, now: Instant) {
        while let Some((since, _)) = self.ages.front()
            && now.duration_since(*since) >= TOKEN_LIFETIME
            && let Some((_, token)) = self.ages.pop_front()
        {
            self.known.remove(&token);
        }
    }

    fn add(&mut self, now: Instant, token: String, known: TokenState) {
        self.known.insert(token.clone(), known);
        self.ages.push_back((now, token));
    }

    /// A hash of `items` that does not depend on the order of their maps.
    fn hash(&self, items: &[TransactWriteItem]) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        for item in items {
            // The kind, the table, the item or its key, and what is said of it; names and values of each kind follow.
            let (names_of, values_of) = if let Some(put) = &item.put {
                ("put", &put.table_name, values(&put.item), &put.condition_expression).hash(&mut hasher);
                put.return_values_on_condition_check_failure.hash(&mut hasher);
                (&put.expression_attribute_names, &put.expression_attribute_values)
            } else if let Some(update) = &item.update {
                ("update", &update.table_name, values(&update.key), &update.condition_expression)
                    .hash(&mut hasher);
                update.return_values_on_condition_check_failure.hash(&mut hasher);
                update.update_expression.hash(&mut hasher);
                (&update.expression_attribute_names, &update.expression_attribute_values)
            } else if let Some(delete) = &item.delete {
                ("delete", &delete.table_name, values(&delete.key), &delete.condition_expression)
                    .hash(&mut hasher);
                delete.return_values_on_condition_check_failure.hash(&mut hasher);
                (&delete.expression_attribute_names, &delete.expression_attribute_values)
            } else if let Some(check) = &item.condition_check {
                ("check", &check.table_name, values(&check.key), &check.condition_expression)
                    .hash(&mut hasher);
                check.return_values_on_condition_check_failure.hash(&mut hasher);
                (&check.expression_attribute_names, &check.expression_attribute_values)
            } else {
                continue;
            };
            names(names_of.as_ref()).hash(&mut hasher);
            values_of.as_ref().map(values).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// A hash of a map's entries, in any order.
fn entries(hashes: impl Iterator<Item = u64>) -> u64 {
    hashes.fold(0, u64::wrapping_add)
}

fn one(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn names(names: Option<&HashMap<String, String>>) -> Option<u64> {
    names.map(|names| entries(names.iter().map(one)))
}

fn values(values: &HashMap<String, AttributeValue>) -> u64 {
    entries(values.iter().map(|(name, value)| one((name, value_hash(value)))))
}

fn value_hash(value: &AttributeValue) -> u64 {
    match value {
        AttributeValue::S(text) => one(("S", text)),
        AttributeValue::N(number) => one(("N", number)),
        AttributeValue::B(bytes) => one(("B", bytes)),
        AttributeValue::BOOL(is) => one(("BOOL", is)),
        AttributeValue::NULL(is) => one(("NULL", is)),
        AttributeValue::SS(texts) => one(("SS", entries(texts.iter().map(one)))),
        AttributeValue::NS(numbers) => one(("NS", entries(numbers.iter().map(one)))),
        AttributeValue::BS(bytes) => one(("BS", entries(bytes.iter().map(one)))),
        AttributeValue::L(list) => one(("L", list.iter().map(value_hash).collect::<Vec<_>>())),
        AttributeValue::M(map) => one(("M", values(map))),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// The answer to what the library said; `None` if only its server words it.
fn answer<T: Serialize>(done: Result<T, DynoxideError>) -> Option<Answer> {
    match done {
        Ok(response) => match serde_json::to_string(&response) {
            Ok(body) => Some((200, body)),
            // What was done must not be done again by the server.
            Err(error) => {
                let error = DynoxideError::InternalServerError(error.to_string());
                Some((error.status_code(), error.to_json()))
            }
        },
        Err(
            error @ (DynoxideError::ConditionalCheckFailedException(..)
            | DynoxideError::TransactionCanceledException(..)),
        ) => Some((error.status_code(), error.to_json())),
        // Whether it was done is not known: the caller decides, with its token, whether to send it again.
        Err(error) if error.status_code() >= 500 => Some((error.status_code(), error.to_json())),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_known_for_ten_minutes() {
        let (mut tokens, now) = (KnownTokens::default(), Clock::system().instant());
        tokens.add(now, "first".to_owned(), TokenState::Run(1));
        let later = now + TOKEN_LIFETIME / 2;
        tokens.add(later, "second".to_owned(), TokenState::Run(2));
        tokens.forget(now + TOKEN_LIFETIME - Duration::from_millis(1));
        assert_eq!(tokens.known.len(), 2);
        tokens.forget(now + TOKEN_LIFETIME);
        assert_eq!(tokens.known.keys().collect::<Vec<_>>(), ["second"]);
        tokens.forget(later + TOKEN_LIFETIME);
        assert!(tokens.known.is_empty() && tokens.ages.is_empty());
    }

    /// The library may have done it, and then it alone knows the token.
    #[test]
    fn a_transaction_that_was_left_to_the_library_once_is_left_to_it_with_that_token() {
        let (database, transactions) = (Database::memory().unwrap(), Transactions::new(Clock::system()));
        let run = |token: &str| {
            let put = json!({ "Put": { "TableName": "rows", "Item": { "PK": { "S": "a" } } } });
            let body = json!({ "TransactItems": [put], "ClientRequestToken": token }).to_string();
            transactions.run(TableOperation::TransactWriteItems, &database, body.as_bytes())
        };
        assert_eq!(run("first"), None, "there is no table");
        let table = json!({
            "TableName": "rows", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{ "AttributeName": "PK", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "PK", "AttributeType": "S" }],
        });
        database.create_table(serde_json::from_value(table).unwrap()).unwrap();
        assert_eq!(run("first"), None);
        assert_eq!(run("second").map(|answer| answer.0), Some(200));
    }
}
