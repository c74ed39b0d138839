//! Rules: the calls that get a fault.

use super::Fault;

/// A fault with the calls it is meant for: all, unless narrowed.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    operations: Vec<String>,
    containing: Option<String>,
    chance: f64,
    left: Option<u32>,
}

impl Rule {
    /// `fault`, for every call that it can be done to.
    pub const fn new(fault: Fault) -> Self {
        Self { fault, operations: Vec::new(), containing: None, chance: 1.0, left: None }
    }

    /// Only for calls of this operation, such as `TransactWriteItems`; of any of them, if called several times.
    pub fn on(mut self, operation: &str) -> Self {
        self.operations.push(operation.to_owned());
        self
    }

    /// Only for calls whose body contains `text`, such as a queue's name.
    pub fn containing(self, text: &str) -> Self {
        Self { containing: Some(text.to_owned()), ..self }
    }

    /// Only for this part of the calls, from 0 to 1.
    pub fn chance(self, chance: f64) -> Self {
        Self { chance: chance.clamp(0.0, 1.0), ..self }
    }

    /// Only for the next `count` of them.
    pub const fn times(mut self, count: u32) -> Self {
        self.left = Some(count);
        self
    }

    pub(super) const fn odds(&self) -> f64 {
        self.chance
    }

    pub(super) fn fits(&self, operation: &str, body: &[u8]) -> bool {
        self.left != Some(0)
            && self.fault.can_be_done_to(operation)
            && (self.operations.is_empty() || self.operations.iter().any(|wanted| wanted == operation))
            && self.containing.as_ref().is_none_or(|text| contains(body, text.as_bytes()))
    }

    /// The fault, which is used up by one.
    pub(super) fn spend(&mut self) -> Fault {
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        self.fault
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len().max(1)).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_its_operation_its_text_and_its_number_of_times() {
        let mut rule = Rule::new(Fault::Reset).on("SendMessageBatch").containing("b-replies-").times(1);
        assert!(!rule.fits("SendMessageBatch", b"{\"QueueUrl\":\"http://x/b-requests\"}"));
        assert!(!rule.fits("ReceiveMessage", b"b-replies-1"));
        assert!(rule.fits("SendMessageBatch", b"http://x/b-replies-1"));
        rule.spend();
        assert!(!rule.fits("SendMessageBatch", b"http://x/b-replies-1"));
    }

    #[test]
    fn a_fault_is_only_done_to_calls_that_can_have_it() {
        assert!(!Rule::new(Fault::Conflict).fits("SendMessageBatch", b""));
        assert!(!Rule::new(Fault::Duplicate).fits("TransactWriteItems", b""));
        assert!(Rule::new(Fault::Conflict).fits("TransactWriteItems", b""));
    }
}
