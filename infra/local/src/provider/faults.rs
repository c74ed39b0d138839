//! Faults of the provider stand-in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::hooks::HookFault;

/// The current faults; a `PUT` replaces them, and `{}` ends them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Of `GET /current_user/accounts`.
    pub list: Fault,
    /// Of `DELETE /sandbox/accounts/{uuid}`.
    pub delete: Fault,
    /// Of the hook `gate`.
    pub gate: HookFault,
    /// Of the hook `before-delete`.
    pub before_delete: HookFault,
    /// Of the hook `refill`.
    pub refill: HookFault,
}

/// The fault of one kind of call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// The number of calls with the fault; absent, until the faults are replaced.
    pub times: Option<u32>,
    /// Only every n-th call has it.
    pub every: Option<u32>,
    /// The response is delayed by this.
    pub delay_ms: u64,
    /// The response has this status, and nothing is done.
    pub status: Option<u16>,
    /// The response has this `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// With this `Retry-After`, byte for byte.
    pub retry_after: Option<String>,
    /// With this `Location`; `{path}` is the path that was asked for, `{base}` its own URL. A path that ends in a slash is
    /// answered as ever, and so is one that the location names.
    pub location: Option<String>,
    /// With a web page for a body; without a status, 200.
    pub html: bool,
    /// Delete: only of the account with this `csp_id`.
    pub only: Option<String>,
    /// List: what the row of this `csp_id` says instead, member by member; `*` is every row.
    pub rows: BTreeMap<String, BTreeMap<String, Value>>,
    /// List: rows beside those of the accounts, on the last page.
    pub more_rows: Vec<Value>,
    /// List: accounts that are left out.
    pub forget: Vec<String>,
    /// List: every row comes twice.
    pub double: bool,
    /// List: the rows of a page come in another order.
    pub reorder: bool,
    /// List: each page after the first begins so many rows early (late, if negative), as if the list had grown (shrunk).
    pub shift: i64,
    /// List: how many rows there are, as each page says; `true` is the truth.
    pub count: Option<Value>,
    /// List: how a page names its next; `{page}` is its number, `{base}` its own URL, `{host}` and `{port}` are parts of it.
    pub next: Option<String>,
    /// List: what the last page says of its next.
    pub last: Option<Value>,
    /// List: so many bytes more on each page.
    pub padding: usize,
    /// List: no accounts.
    pub empty: bool,
    /// List: the first page is the last.
    pub no_next: bool,
    /// List: the page ends in the middle.
    pub truncated: bool,
    /// List: each page links to itself.
    #[serde(rename = "loop")]
    pub looping: bool,
    /// Delete: 404, and nothing is done.
    pub not_found: bool,
    /// Delete: is done, and the connection breaks before the response.
    pub lost: bool,
}

impl Fault {
    pub(super) const fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The fault of call number `call` (from 1), or none.
    pub(super) fn of_call(&mut self, call: u32) -> Self {
        if self.every.is_some_and(|every| !call.is_multiple_of(every.max(1))) {
            return Self::default();
        }
        match &mut self.times {
            Some(0) => Self::default(),
            Some(left) => {
                *left -= 1;
                self.clone()
            }
            None => self.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_ends_after_its_times_and_hits_every_nth_call_only() {
        let mut twice = Fault { times: Some(2), lost: true, ..Fault::default() };
        assert_eq!([1, 2, 3].map(|call| twice.of_call(call).lost), [true, true, false]);
        let mut third = Fault { every: Some(3), lost: true, ..Fault::default() };
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(|call| third.of_call(call).lost),
            [false, false, true, false, false, true]
        );
    }
}
