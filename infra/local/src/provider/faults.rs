//! How the stand-in misbehaves on demand.

use std::time::Duration;

use serde::Deserialize;

/// The faults of this moment; a `PUT` replaces them, and `{}` ends them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Of `GET /current_user/accounts`.
    pub list: Fault,
    /// Of `DELETE /sandbox/accounts/{uuid}`.
    pub delete: Fault,
}

/// What is wrong with one kind of call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// For so many calls; absent, until the faults are replaced.
    pub times: Option<u32>,
    /// Only every n-th call has it.
    pub every: Option<u32>,
    /// It answers after this.
    pub delay_ms: u64,
    /// It answers with this, and does nothing.
    pub status: Option<u16>,
    /// With this `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// List: no accounts.
    pub empty: bool,
    /// List: the first page is said to be the last.
    pub no_next: bool,
    /// List: the page breaks off in the middle.
    pub truncated: bool,
    /// List: each page is its own next.
    #[serde(rename = "loop")]
    pub looping: bool,
    /// Delete: says 404 and does nothing.
    pub not_found: bool,
    /// Delete: does it, and breaks the connection instead of answering.
    pub lost: bool,
}

impl Fault {
    pub(super) const fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The fault of call number `call` (from 1): this one, or none.
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
