//! The item `POLICY`: the text of the policy in its canonical form, replaced as a whole at the version that was read.

use super::attributes::{self as a, Item, Reader};
use super::change::written;
use super::{PolicyStore, keys, n, s};
use crate::{StoreError, StoredPolicy, Write};

/// No policy was written yet.
const THERE_IS_NONE: &str = "attribute_not_exists(PK)";
/// It is the one that was read.
const IT_IS_AS_READ: &str = "version = :seen";

impl PolicyStore {
    /// The policy that is in force (one consistent read), if one was ever applied.
    pub async fn get(&self) -> Result<Option<StoredPolicy>, StoreError> {
        let item = self.table.get(keys::policy()).await?;
        item.map(|item| read(&item)).transpose()
    }

    /// Puts `policy` in place of the one of version `seen`, or where there is none. It moved on if another one stands there.
    pub async fn put(&self, policy: &StoredPolicy, seen: Option<u64>) -> Result<Write, StoreError> {
        let call = self
            .table
            .client
            .put_item()
            .table_name(&self.table.name)
            .set_item(Some(write(policy)))
            .condition_expression(if seen.is_some() { IT_IS_AS_READ } else { THERE_IS_NONE })
            .set_expression_attribute_values(seen.map(|seen| [(":seen".to_owned(), n(seen))].into()));
        written(Box::pin(call.send()).await, "put_policy", &self.table.name)
    }
}

fn write(policy: &StoredPolicy) -> Item {
    let mut item = keys::policy().into_map();
    item.extend(
        [
            (a::POLICY_TEXT, s(&policy.text)),
            (a::POLICY_DIGEST, s(&policy.digest)),
            (a::VERSION, n(policy.version)),
            (a::APPLIED_AT, n(policy.applied_at.as_secs())),
            (a::APPLIED_BY, s(&policy.applied_by)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    item
}

fn read(item: &Item) -> Result<StoredPolicy, StoreError> {
    let read = Reader(item);
    let text = |text: &str| Ok::<_, ()>(text.to_owned());
    Ok(StoredPolicy {
        text: read.text(a::POLICY_TEXT, text)?,
        digest: read.text(a::POLICY_DIGEST, text)?,
        version: read.number(a::VERSION)?,
        applied_at: read.time(a::APPLIED_AT)?,
        applied_by: read.text(a::APPLIED_BY, text)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_domain::Timestamp;

    #[test]
    fn a_policy_reads_back_as_it_is_stored() {
        let policy = StoredPolicy {
            text: "[flavour.small]\nprefix = \"lab-\"\n".to_owned(),
            digest: "0f".to_owned(),
            version: 3,
            applied_at: Timestamp::from_secs(7),
            applied_by: "ops".to_owned(),
        };
        assert_eq!(read(&write(&policy)).unwrap(), policy);
    }
}
