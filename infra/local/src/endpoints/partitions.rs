//! Partitions of an index that a PartiQL `SELECT` names with `IN`: each is read by a query.
//!
//! AWS reads them so ("PartiQL select statements for DynamoDB", AWS documentation); the library would read the whole index, a page
//! of `Limit` rows at a time, and a look at a pool of 40,000 for what is arriving took 400 calls. Statements of one form are
//! answered here, which is the form of the broker's store:
//!
//! `SELECT "a", "b" FROM "table"."index" WHERE "k" IN [?, ?]`, alone, or with ` AND begins_with("s", ?)` or ` AND "s" <= ?`
//!
//! Invariant: whatever is not of that form, or fails, is left to the library, and so is its error.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use dynoxide::Database;
use dynoxide::actions::query::QueryRequest;
use dynoxide::types::{AttributeValue, Item};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `ExecuteStatement`, as it comes over the wire.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct StatementCall {
    statement: String,
    #[serde(default)]
    parameters: Vec<AttributeValue>,
    limit: Option<usize>,
    next_token: Option<String>,
    return_consumed_capacity: Option<String>,
}

/// A statement of the form that is answered here.
#[derive(Debug, PartialEq, Eq)]
struct Select<'a> {
    columns: Vec<&'a str>,
    table: &'a str,
    index: &'a str,
    partition_key: &'a str,
    partitions: usize,
    /// The condition on the sort key `#sort` with the last parameter `:sort`, and that key.
    sort: Option<(&'static str, &'a str)>,
}

/// Where the next page begins. It is good for the statement and the parameters of the page before.
#[derive(Debug, Serialize, Deserialize)]
struct NextToken {
    of: u64,
    partition: usize,
    after: Option<Item>,
}

/// The answer to the body of an `ExecuteStatement`; `None` if the library is to answer.
pub(super) fn answer(database: &Database, body: &[u8]) -> Option<String> {
    let asked: StatementCall = serde_json::from_slice(body).ok()?;
    let select = Select::parse(&asked.statement)?;
    let of = {
        let mut hasher = DefaultHasher::new();
        asked.statement.hash(&mut hasher);
        serde_json::to_string(&asked.parameters).ok()?.hash(&mut hasher);
        hasher.finish()
    };
    if asked.parameters.len() != select.partitions + usize::from(select.sort.is_some()) {
        return None;
    }
    let (partitions, sort) = asked.parameters.split_at(select.partitions);
    let (mut partition, mut after) = (0, None);
    if let Some(token) = &asked.next_token {
        let token: NextToken = serde_json::from_str(token).ok()?;
        if token.of != of || token.partition >= select.partitions {
            return None;
        }
        (partition, after) = (token.partition, token.after);
    }
    let (mut items, mut units, mut left) = (Vec::new(), 0.0, asked.limit);
    let next = loop {
        let Some(key) = partitions.get(partition) else { break None };
        if left == Some(0) {
            break Some(NextToken { of, partition, after: None });
        }
        let page = database.query(select.query(key, sort.first(), left, after.take())).ok()?;
        left = left.map(|left| left.saturating_sub(page.scanned_count));
        items.extend(page.items.unwrap_or_default());
        units += page.consumed_capacity.map_or(0.0, |capacity| capacity.capacity_units);
        if let Some(last) = page.last_evaluated_key {
            // AWS ends a page at 1 MB, wherever it is.
            break Some(NextToken { of, partition, after: Some(last) });
        }
        partition += 1;
    };
    let mut told = json!({ "Items": items });
    if let Some(next) = next {
        told["NextToken"] = Value::String(serde_json::to_string(&next).ok()?);
    }
    if asked.return_consumed_capacity.is_some_and(|level| level != "NONE") {
        told["ConsumedCapacity"] = json!({ "TableName": select.table, "CapacityUnits": units });
    }
    serde_json::to_string(&told).ok()
}

impl<'a> Select<'a> {
    fn parse(statement: &'a str) -> Option<Self> {
        let mut rest = statement.strip_prefix("SELECT ")?;
        let mut columns = Vec::new();
        loop {
            let (column, behind) = quoted(rest)?;
            columns.push(column);
            match behind.strip_prefix(", ") {
                Some(more) => rest = more,
                None => {
                    rest = behind;
                    break;
                }
            }
        }
        let (table, rest) = quoted(rest.strip_prefix(" FROM ")?)?;
        let (index, rest) = quoted(rest.strip_prefix('.')?)?;
        let (partition_key, rest) = quoted(rest.strip_prefix(" WHERE ")?)?;
        let (marks, rest) = rest.strip_prefix(" IN [")?.split_once(']')?;
        if !marks.split(", ").all(|mark| mark == "?") {
            return None;
        }
        let sort = match rest.strip_prefix(" AND ") {
            None if rest.is_empty() => None,
            None => return None,
            Some(rest) => match rest.strip_prefix("begins_with(") {
                Some(rest) => {
                    let (key, rest) = quoted(rest)?;
                    (rest == ", ?)").then_some(Some(("begins_with(#sort, :sort)", key)))?
                }
                None => {
                    let (key, rest) = quoted(rest)?;
                    (rest == " <= ?").then_some(Some(("#sort <= :sort", key)))?
                }
            },
        };
        Some(Self { columns, table, index, partition_key, partitions: marks.split(", ").count(), sort })
    }

    /// The query of the partition `key`.
    fn query(
        &self,
        key: &AttributeValue,
        sort: Option<&AttributeValue>,
        limit: Option<usize>,
        after: Option<Item>,
    ) -> QueryRequest {
        let mut names = HashMap::from([("#partition".to_owned(), self.partition_key.to_owned())]);
        let mut values = HashMap::from([(":partition".to_owned(), key.clone())]);
        let mut condition = "#partition = :partition".to_owned();
        if let (Some((of_sort, name)), Some(value)) = (self.sort, sort) {
            condition.push_str(" AND ");
            condition.push_str(of_sort);
            names.insert("#sort".to_owned(), name.to_owned());
            values.insert(":sort".to_owned(), value.clone());
        }
        let columns: Vec<_> = (0..self.columns.len()).map(|at| format!("#c{at}")).collect();
        names.extend(columns.iter().cloned().zip(self.columns.iter().map(|name| (*name).to_owned())));
        QueryRequest {
            table_name: self.table.to_owned(),
            index_name: Some(self.index.to_owned()),
            key_condition_expression: Some(condition),
            projection_expression: Some(columns.join(", ")),
            expression_attribute_names: Some(names),
            expression_attribute_values: Some(values),
            scan_index_forward: true,
            limit,
            exclusive_start_key: after,
            return_consumed_capacity: Some("TOTAL".to_owned()),
            ..QueryRequest::default()
        }
    }
}

/// The name in double quotes at the beginning of `text`, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix('"')?.split_once('"')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_plain)).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_store_is_understood_and_no_other() {
        let begin = r#"SELECT "a", "b" FROM "t-1"."i" WHERE "k" IN [?, ?, ?]"#;
        let expected = |sort| Select {
            columns: vec!["a", "b"],
            table: "t-1",
            index: "i",
            partition_key: "k",
            partitions: 3,
            sort,
        };
        assert_eq!(Select::parse(begin), Some(expected(None)));
        let prefixed = format!(r#"{begin} AND begins_with("s", ?)"#);
        assert_eq!(Select::parse(&prefixed), Some(expected(Some(("begins_with(#sort, :sort)", "s")))));
        let until = format!(r#"{begin} AND "s" <= ?"#);
        assert_eq!(Select::parse(&until), Some(expected(Some(("#sort <= :sort", "s")))));
        for other in [
            r#"SELECT * FROM "t"."i" WHERE "k" IN [?]"#,
            r#"SELECT "a" FROM "t" WHERE "k" IN [?]"#,
            r#"SELECT "a" FROM "t"."i" WHERE "k" IN ['x']"#,
            r#"SELECT "a" FROM "t"."i" WHERE "k" = ?"#,
            r#"SELECT "a" FROM "t"."i" WHERE "k" IN [?] OR "s" <= ?"#,
            r#"SELECT "a" FROM "t"."i" WHERE "k" IN [?] AND "s" <= ? AND "b" = ?"#,
            r#"SELECT "a b" FROM "t"."i" WHERE "k" IN [?]"#,
            r#"DELETE FROM "t" WHERE "k" = ?"#,
        ] {
            assert_eq!(Select::parse(other), None, "{other}");
        }
    }
}
