//! An index that follows its table later: for each item that changed a moment ago, how the index still shows it.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::writes::Item;
use super::{Answer, Broken, Passing, wire};

/// What the index carries.
const PROJECTED: [&str; 9] = [
    "PK",
    "SK",
    "state_shard",
    "state_key",
    "sandbox_id",
    "name",
    "external_id",
    "version",
    "lab_duration_hours",
];

/// How an item stood in the index before a change; `None`: not at all.
type Projection = Option<Value>;

/// Changes that the index does not show yet, by table and partition key, the oldest first.
#[derive(Debug, Default)]
pub(super) struct IndexLag(HashMap<(String, String), Vec<(Projection, Instant)>>);

/// Whether a call reads the index.
pub(super) fn reads_index(operation: &str, request: &Value) -> bool {
    match operation {
        "Query" => request.get("IndexName").is_some(),
        "ExecuteStatement" => request["Statement"].as_str().is_some_and(|said| said.contains("\".\"")),
        _ => false,
    }
}

/// How each item stands in the index once that is current; read in one call.
pub(super) async fn projections(forward: &Passing, items: &[&Item]) -> Result<Vec<Projection>, Broken> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = Map::new();
    for item in items {
        let key = json!({ "PK": { "S": item.pk }, "SK": { "S": item.sk } });
        let of_table =
            asked.entry(&item.table).or_insert_with(|| json!({ "Keys": [], "ConsistentRead": true }));
        of_table["Keys"].as_array_mut().into_iter().for_each(|keys| keys.push(key.clone()));
    }
    let request = json!({ "RequestItems": asked });
    let answer = forward.pass_on("BatchGetItem", Bytes::from(request.to_string())).await?;
    let answer: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let found = |item: &Item| {
        let mut found = answer["Responses"][&item.table].as_array()?.iter();
        found.find(|found| found["PK"]["S"] == item.pk && found["SK"]["S"] == item.sk)?.as_object()
    };
    Ok(items.iter().map(|item| projection(found(item)?)).collect())
}

/// What the index carries of an item, if it shows it.
fn projection(item: &Map<String, Value>) -> Projection {
    item.get("state_shard")?;
    let projected = PROJECTED.iter().filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone())));
    Some(Value::Object(projected.collect()))
}

/// What a read of the index asks for.
struct AskedKey {
    table: String,
    shards: Vec<String>,
    prefix: Option<String>,
    until: Option<String>,
    /// Beyond this the page begins; a read of several partitions has none.
    after: Option<String>,
    /// What it asks for that is not on this page is on another.
    is_whole: bool,
}

impl AskedKey {
    fn of(operation: &str, request: &Value) -> Self {
        let value = |name: &str| request["ExpressionAttributeValues"][name]["S"].as_str().map(str::to_owned);
        if operation == "Query" {
            return Self {
                table: request["TableName"].as_str().unwrap_or_default().to_owned(),
                shards: value(":shard").into_iter().collect(),
                prefix: value(":prefix"),
                until: value(":until"),
                after: request["ExclusiveStartKey"]["state_key"]["S"].as_str().map(str::to_owned),
                is_whole: true,
            };
        }
        let statement = request["Statement"].as_str().unwrap_or_default();
        let parameters = request["Parameters"].as_array().into_iter().flatten();
        let mut shards: Vec<_> =
            parameters.filter_map(|value| value["S"].as_str().map(str::to_owned)).collect();
        let prefix = if statement.contains("begins_with") { shards.pop() } else { None };
        Self {
            table: table_of(statement).to_owned(),
            shards,
            prefix,
            until: None,
            after: None,
            is_whole: request.get("NextToken").is_none(),
        }
    }

    /// Whether a row of the index is asked for.
    fn wants(&self, row: &Value) -> bool {
        let (shard, key) = (text(row, "state_shard"), text(row, "state_key"));
        self.shards.iter().any(|wanted| wanted == shard)
            && self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_str()))
            && self.until.as_ref().is_none_or(|until| key <= until.as_str())
            && self.after.as_ref().is_none_or(|after| key > after.as_str())
    }
}

/// The table's name in `… FROM "table"."index" …`.
fn table_of(statement: &str) -> &str {
    let mut parts = statement.split('"');
    let from = parts.find(|part| part.trim_end().ends_with("FROM"));
    from.and(parts.next()).unwrap_or_default()
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name]["S"].as_str().unwrap_or_default()
}

fn pk_of(row: &Value) -> String {
    match row["PK"]["S"].as_str() {
        Some(pk) => pk.to_owned(),
        None => format!("SBX#{}", text(row, "sandbox_id")),
    }
}

impl IndexLag {
    /// An item changed that stood so in the index, which shows the change from `visible_at` on.
    pub(super) fn changed(&mut self, item: &Item, was: Projection, visible_at: Instant) {
        let changes = self.0.entry((item.table.clone(), item.pk.clone())).or_default();
        // Changes of an item are shown in their order.
        let visible_at = changes.last().map_or(visible_at, |(_, before)| visible_at.max(*before));
        changes.push((was, visible_at));
    }

    /// Whether everything is shown.
    pub(super) fn is_current(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|_, changes| {
            changes.retain(|(_, visible_at)| *visible_at > now);
            !changes.is_empty()
        });
    }

    /// The answer to a read of the index as the index stands at `now`.
    pub(super) fn as_seen(
        &mut self,
        operation: &str,
        request: &Value,
        answer: Answer,
        now: Instant,
    ) -> Answer {
        self.forget(now);
        if self.0.is_empty() || !answer.status().is_success() {
            return answer;
        }
        let asked = AskedKey::of(operation, request);
        wire::edited(answer, |page| {
            let last = page["LastEvaluatedKey"]["state_key"]["S"].as_str().map(str::to_owned);
            let Some(rows) = page["Items"].as_array_mut() else { return };
            let late = |row: &Value| self.0.contains_key(&(asked.table.clone(), pk_of(row)));
            rows.retain(|row| !late(row));
            if asked.is_whole {
                let own = self.0.iter().filter(|((table, _), _)| *table == asked.table);
                let shown = own.filter_map(|(_, changes)| changes.first()?.0.as_ref());
                let on_page =
                    |row: &&Value| last.as_ref().is_none_or(|last| text(row, "state_key") <= last.as_str());
                rows.extend(shown.filter(|row| asked.wants(row)).filter(on_page).cloned());
                rows.sort_by(|a, b| text(a, "state_key").cmp(text(b, "state_key")));
            }
            let count = rows.len();
            if page.get("Count").is_some() {
                page["Count"] = count.into();
            }
        })
    }
}
