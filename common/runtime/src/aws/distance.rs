//! Distance of a service: whether its calls cross a network, told by the quickest of the last ones.
//!
//! On one machine some calls are quick, however busy it is, and each costs the processor that everything shares: few and full
//! ones are best. Where none is quick, a call takes its time elsewhere and costs this machine little: more of them at a time make
//! items and messages wait less. Pure.

use std::time::Duration;

/// Calls that all take so long cross a network.
const FAR: Duration = Duration::from_millis(5);

/// What is known of the calls to one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distance {
    /// What the quickest of the last calls took; a little more with each that took longer.
    quickest: Duration,
}

impl Distance {
    /// Learns from a call that took so long.
    pub fn learn(&mut self, took: Duration) {
        let longer = self.quickest + self.quickest / 16 + Duration::from_micros(100);
        self.quickest = took.min(longer);
    }

    /// Whether none of the last calls was quick; false until some thirty calls are known.
    pub fn is_far(self) -> bool {
        self.quickest >= FAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_far_once_none_of_its_last_calls_was_quick() {
        let mut distance = Distance::default();
        let mut is_far_after = |took: Duration, calls: usize| {
            (0..calls).for_each(|_| distance.learn(took));
            distance.is_far()
        };
        assert!(!is_far_after(3 * FAR, 5), "too few to tell");
        assert!(is_far_after(3 * FAR, 35));
        assert!(!is_far_after(FAR / 5, 1), "one was quick");
        assert!(!is_far_after(2 * FAR, 5), "five later it is not forgotten");
        assert!(is_far_after(2 * FAR, 35));
    }
}
