//! The record of each account of the provider: which sandbox has it.
//!
//! Invariant: whatever gives a sandbox its external id, or another one, writes the account's record in the same
//! transaction, on the condition that no other sandbox has the account and none had it for good. What was never handed
//! out releases its account when its record goes; what was handed out or to be deleted keeps it, or, when its record becomes
//! another account's, leaves the account's record retired. What it does not do: touch a claim, which changes no external id.

use aws_sdk_dynamodb::types::builders::ConditionCheckBuilder;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use super::attributes::{self as a, Item, Reader};
use super::errors::{built_wrong, cancelled};
use super::foreign;
use super::keys::{self, ACCOUNT_PREFIX, PK, SANDBOX_PREFIX};
use super::pool::passable;
use super::transact::Group;
use super::{AccountStore, TableClient, n, s};
use crate::{EntryConflict, Page, PageKey, StoreError, Write};
use broker_domain::{AccountKey, AccountRecord, ExternalId, LabDuration, SandboxId, Status, Timestamp};

/// No sandbox has the account, or this one has it.
const ACCOUNT_IS_FREE: &str =
    "attribute_not_exists(PK) or (sandbox_id = :holder and attribute_not_exists(retired_at))";
/// The account may be forgotten, or retired: it is not another sandbox's.
const ACCOUNT_IS_NOT_ANOTHERS: &str = "attribute_not_exists(PK) or sandbox_id = :holder";
/// The sandbox is (still) this account.
const SANDBOX_HAS_ACCOUNT: &str = "external_id = :external_id";
/// The record's holder is not there, or it is as it was when it was another account.
const HOLDER_IS_GONE: &str = "attribute_not_exists(PK)";
const HOLDER_IS_AS_SEEN: &str = "version = :seen";
/// The record still names that sandbox.
const ACCOUNT_IS_HOLDERS: &str = "sandbox_id = :holder and attribute_not_exists(retired_at)";
const ACCOUNT_IS_RETIRED: &str = "sandbox_id = :holder and attribute_exists(retired_at)";
/// The account has no record, or one that says the same.
const ACCOUNT_IS_UNKNOWN_OR_RETIRED: &str =
    "attribute_not_exists(PK) or (sandbox_id = :holder and attribute_exists(retired_at))";

/// What a sandbox's write does with an account, in the same transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum AccountChange<'a> {
    /// The sandbox has it from now on.
    Hold(&'a ExternalId),
    /// The sandbox had it, and was never used nor to be deleted.
    Release(&'a ExternalId),
    /// The sandbox had it, it was handed out or to be deleted, and it is gone.
    Retire(&'a ExternalId, Timestamp),
}

impl AccountChange<'_> {
    fn key(self) -> AccountKey {
        match self {
            Self::Hold(id) | Self::Release(id) | Self::Retire(id, _) => AccountKey::of(id),
        }
    }
}

/// What becomes of the account `was` of a sandbox that is `is` from now on: nothing, if they are one.
pub(super) fn replaced<'a>(
    was: &'a ExternalId,
    is: &'a ExternalId,
    old: AccountChange<'a>,
) -> Vec<AccountChange<'a>> {
    let hold = AccountChange::Hold(is);
    if AccountKey::of(was) == AccountKey::of(is) { vec![hold] } else { vec![hold, old] }
}

/// A sandbox as far as its account goes.
#[derive(Clone, Debug)]
pub(crate) struct AccountHolder {
    /// Which.
    pub id: SandboxId,
    /// Its account.
    pub external_id: ExternalId,
    /// Its state.
    pub status: Status,
    /// The version at which it was read.
    pub version: u64,
    /// Whether another tool wrote it and it is not adopted yet.
    pub foreign: bool,
    /// Whether it would be forgotten by its `ttl`.
    pub expires: bool,
}

/// The record of an account under an id in another spelling: an older version told accounts apart by case.
#[derive(Clone, Debug)]
pub(crate) struct OldSpelling {
    /// What it says.
    pub record: AccountRecord,
    /// As it is stored.
    item: Item,
    stored: keys::Key,
}

/// What a scan reads of accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountRows {
    /// Sandboxes.
    pub holders: Vec<AccountHolder>,
    /// The records of accounts.
    pub records: Vec<AccountRecord>,
    /// Those that stand under another spelling.
    pub old_spellings: Vec<OldSpelling>,
}

/// The outcome of a write of a sandbox with its accounts; with the sandbox's item, if the write asked for it.
pub(super) type Entered = Write<EntryConflict<Option<Item>>>;

impl AccountStore {
    /// One page of the whole table, as far as accounts go, read leniently: another tool may have written some rows.
    pub(crate) async fn page(
        &self,
        segment: i32,
        segments: i32,
        after: Option<PageKey>,
        now: Timestamp,
    ) -> Result<Page<AccountRows>, StoreError> {
        let page = self.table.scan_items(segment, segments, after).await?;
        let mut rows = AccountRows::default();
        for item in page.items {
            let pk = item.get(PK).and_then(|pk| pk.as_s().ok()).map(String::as_str).unwrap_or_default();
            if pk.starts_with(ACCOUNT_PREFIX) {
                let Some(record) = passable(read_account(&item)) else { continue };
                if keys::account(&record.key).as_str() == pk {
                    rows.records.push(record);
                } else {
                    let stored = keys::account_as_stored(pk.to_owned());
                    rows.old_spellings.push(OldSpelling { record, item, stored });
                }
            } else if pk.starts_with(SANDBOX_PREFIX) {
                rows.holders.extend(passable(holder(&item, now)));
            }
        }
        Ok(Page { items: rows, next: page.next })
    }

    /// Writes the record of the account of an existing sandbox without one.
    pub(crate) async fn record(
        &self,
        sandbox: &SandboxId,
        external_id: &ExternalId,
    ) -> Result<Write<EntryConflict>, StoreError> {
        const OPERATION: &str = "record_account";
        let check = self
            .check(sandbox, SANDBOX_HAS_ACCOUNT)
            .expression_attribute_values(":external_id", s(external_id.as_str()));
        let check = built(OPERATION, check)?;
        let accounts = [AccountChange::Hold(external_id)];
        self.table
            .write_with_accounts(OPERATION, sandbox, check, &accounts, Vec::new())
            .await
            .map(Write::without_current)
    }

    /// Removes the record of an account whose holder is not there, or is another account at the version `seen`.
    pub(crate) async fn drop_dangling(
        &self,
        record: &AccountRecord,
        seen: Option<u64>,
    ) -> Result<Write<EntryConflict>, StoreError> {
        const OPERATION: &str = "drop_dangling";
        let check = match seen {
            None => self.check(&record.holder, HOLDER_IS_GONE),
            Some(seen) => {
                self.check(&record.holder, HOLDER_IS_AS_SEEN).expression_attribute_values(":seen", n(seen))
            }
        };
        let key = keys::account(&record.key);
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .set_key(Some(key.clone().into_map()))
            .condition_expression(ACCOUNT_IS_HOLDERS)
            .expression_attribute_values(":holder", s(record.holder.as_str()))
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let others = vec![(key, TransactWriteItem::builder().delete(delete).build())];
        let check = built(OPERATION, check)?;
        self.table
            .write_with_accounts(OPERATION, &record.holder, check, &[], others)
            .await
            .map(Write::without_current)
    }

    /// Moves the record of an account to the spelling of today. Rejected: it is not as it was read, or the account has a
    /// record in that spelling that says otherwise.
    pub(crate) async fn respell(&self, old: &OldSpelling) -> Result<Write, StoreError> {
        const OPERATION: &str = "respell_account";
        let key = keys::account(&old.record.key);
        let mut item = old.item.clone();
        item.extend(key.clone().into_map());
        let condition = if old.record.retired { ACCOUNT_IS_UNKNOWN_OR_RETIRED } else { ACCOUNT_IS_FREE };
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(item))
            .condition_expression(condition)
            .expression_attribute_values(":holder", s(old.record.holder.as_str()))
            .build()
            .map_err(|error| built_wrong(OPERATION, error))?;
        let items =
            vec![TransactWriteItem::builder().put(put).build(), self.without_old_spelling(OPERATION, old)?];
        self.table.transactions.transact(OPERATION, vec![key, old.stored.clone()], items).await
    }

    /// Removes the record of an account under an old spelling, if it is as it was read.
    pub(crate) async fn forget_spelling(&self, old: &OldSpelling) -> Result<Write, StoreError> {
        const OPERATION: &str = "forget_spelling";
        let items = vec![self.without_old_spelling(OPERATION, old)?];
        self.table.transactions.transact(OPERATION, vec![old.stored.clone()], items).await
    }

    fn without_old_spelling(
        &self,
        operation: &'static str,
        old: &OldSpelling,
    ) -> Result<TransactWriteItem, StoreError> {
        let condition = if old.record.retired { ACCOUNT_IS_RETIRED } else { ACCOUNT_IS_HOLDERS };
        let delete = Delete::builder()
            .table_name(&self.table.name)
            .set_key(Some(old.stored.clone().into_map()))
            .condition_expression(condition)
            .expression_attribute_values(":holder", s(old.record.holder.as_str()))
            .build()
            .map_err(|error| built_wrong(operation, error))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    fn check(&self, sandbox: &SandboxId, condition: &str) -> ConditionCheckBuilder {
        ConditionCheck::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(sandbox).into_map()))
            .condition_expression(condition)
    }
}

impl TableClient {
    /// Writes a sandbox, and what goes with it, together with the records of its accounts. An account that another
    /// sandbox has cannot be released or retired by this one: then that is left out.
    pub(super) async fn write_with_accounts(
        &self,
        operation: &'static str,
        sandbox: &SandboxId,
        write: TransactWriteItem,
        accounts: &[AccountChange<'_>],
        others: Vec<(keys::Key, TransactWriteItem)>,
    ) -> Result<Entered, StoreError> {
        let mut accounts = accounts.to_vec();
        loop {
            let mut keys = vec![keys::sandbox(sandbox)];
            let mut items = vec![write.clone()];
            for change in &accounts {
                keys.push(keys::account(&change.key()));
                items.push(self.account_item(operation, sandbox, *change)?);
            }
            for (key, item) in &others {
                keys.push(key.clone());
                items.push(item.clone());
            }
            let reasons = match self.transactions.submit(operation, Group { keys, items }).await? {
                Write::Applied => return Ok(Write::Applied),
                Write::Rejected(reasons) => reasons,
            };
            let (own, rest) = reasons.split_at(reasons.len().min(1));
            let (of_accounts, of_others) = rest.split_at(rest.len().min(accounts.len()));
            if own.iter().chain(of_others).any(condition_failed) {
                return Ok(Write::Rejected(EntryConflict::MovedOn(
                    own.first().and_then(CancellationReason::item).cloned(),
                )));
            }
            let Some(position) = of_accounts.iter().position(condition_failed) else {
                return Err(cancelled(operation, &reasons));
            };
            match accounts[position] {
                AccountChange::Hold(_) => return taken(&of_accounts[position]),
                AccountChange::Release(_) | AccountChange::Retire(..) => accounts.remove(position),
            };
        }
    }

    fn account_item(
        &self,
        operation: &'static str,
        holder: &SandboxId,
        change: AccountChange<'_>,
    ) -> Result<TransactWriteItem, StoreError> {
        let key = keys::account(&change.key());
        let (condition, retired_at) = match change {
            AccountChange::Hold(_) => (ACCOUNT_IS_FREE, None),
            AccountChange::Retire(_, at) => (ACCOUNT_IS_NOT_ANOTHERS, Some(at)),
            AccountChange::Release(_) => {
                let delete = Delete::builder()
                    .table_name(&self.name)
                    .set_key(Some(key.into_map()))
                    .condition_expression(ACCOUNT_IS_NOT_ANOTHERS)
                    .expression_attribute_values(":holder", s(holder.as_str()))
                    .build()
                    .map_err(|error| built_wrong(operation, error))?;
                return Ok(TransactWriteItem::builder().delete(delete).build());
            }
        };
        let mut item = key.into_map();
        item.insert(a::SANDBOX_ID.to_owned(), s(holder.as_str()));
        item.extend(retired_at.map(|at| (a::RETIRED_AT.to_owned(), n(at.as_secs()))));
        let put = Put::builder()
            .table_name(&self.name)
            .set_item(Some(item))
            .condition_expression(condition)
            .expression_attribute_values(":holder", s(holder.as_str()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| built_wrong(operation, error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }
}

fn built(operation: &'static str, check: ConditionCheckBuilder) -> Result<TransactWriteItem, StoreError> {
    let check = check.build().map_err(|error| built_wrong(operation, error))?;
    Ok(TransactWriteItem::builder().condition_check(check).build())
}

fn holder(item: &Item, now: Timestamp) -> Result<AccountHolder, StoreError> {
    let (sandbox, row) = foreign::read(item, LabDuration::SHORTEST, now)?;
    let foreign = foreign::is_foreign(item);
    Ok(AccountHolder {
        expires: sandbox.status == Status::Deleted && item.contains_key(a::TTL) && !foreign,
        id: sandbox.id,
        external_id: sandbox.external_id,
        status: sandbox.status,
        version: row.version,
        foreign,
    })
}

fn condition_failed(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

/// Whose the account is.
fn taken(reason: &CancellationReason) -> Result<Entered, StoreError> {
    // AWS may leave the item out: another attempt meets it again.
    let item = reason.item().ok_or(StoreError::Conflict)?;
    read_account(item).map(|record| Write::Rejected(EntryConflict::AccountTaken { by: record.holder }))
}

pub(super) fn read_account(item: &Item) -> Result<AccountRecord, StoreError> {
    let read = Reader(item);
    let key = |pk: &str| pk.strip_prefix(ACCOUNT_PREFIX).and_then(AccountKey::from_stored).ok_or(());
    Ok(AccountRecord {
        key: read.text(PK, key)?,
        holder: read.text(a::SANDBOX_ID, SandboxId::new)?,
        retired: read.optional_time(a::RETIRED_AT)?.is_some(),
    })
}
