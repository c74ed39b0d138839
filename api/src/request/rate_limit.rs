//! Rate limit: a rate and a burst for each token and client address.
//!
//! The generic cell rate algorithm: for each caller one instant is kept, at which its burst is full again. Invariants: a
//! caller that stays below the rate is never refused; a refused request costs nothing; the callers kept are bounded, and
//! those beyond the bound share one allowance per token. Probes are not limited, and each process limits on its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_runtime::config::RateLimit;
use http::header::{HeaderName, HeaderValue};

use crate::response::codes::Code;
use crate::response::problem::Problem;

/// The most callers with an allowance of their own.
const MOST_CALLERS: usize = 10_000;
/// The pause between two removals of callers whose burst is full again.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// The key of an allowance: a token, from an address. `None`: no known token; an address beyond the bound.
type RateKey = (Option<Arc<str>>, Option<IpAddr>);

/// The limit and its use.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The time that one request costs.
    cost: Duration,
    limit: RateLimit,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    /// When each caller's burst is full again.
    whole_at: HashMap<RateKey, Instant>,
    swept_at: Instant,
}

impl Rate {
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Self {
        let used = Used { whole_at: HashMap::new(), swept_at: now };
        Self { cost: Duration::from_secs(1) / limit.per_s.max(1), limit, used: Mutex::new(used) }
    }

    /// Takes one request of the caller's allowance at `now`, or refuses with 429.
    pub(crate) fn admit(
        &self,
        token: Option<Arc<str>>,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Problem> {
        self.admit_caller((token, Some(network(address))), now)
    }

    /// The same for one that has an allowance wherever it comes from.
    pub(crate) fn admit_anywhere(&self, name: &str, now: Instant) -> Result<(), Problem> {
        self.admit_caller((Some(name.into()), None), now)
    }

    fn admit_caller(&self, caller: RateKey, now: Instant) -> Result<(), Problem> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = used.caller(caller, now);
        let whole_at = used.whole_at.get(&caller).copied().unwrap_or(now).max(now);
        let after = whole_at + self.cost;
        match after.duration_since(now).checked_sub(self.cost * self.limit.burst.max(1)) {
            None | Some(Duration::ZERO) => {
                used.whole_at.insert(caller, after);
                Ok(())
            }
            Some(too_early) => Err(self.refusal(too_early)),
        }
    }

    /// 429, with the policy and the rest of it as in draft-ietf-httpapi-ratelimit-headers-10.
    fn refusal(&self, too_early: Duration) -> Problem {
        let whole_s = |time: Duration| time.as_millis().div_ceil(1_000).max(1);
        let RateLimit { per_s, burst } = self.limit;
        let window = whole_s(self.cost * burst);
        let wait = u64::try_from(whole_s(too_early)).unwrap_or(u64::MAX);
        let problem = Problem::new(Code::RateLimitExceeded, format!("More than {per_s} requests a second."))
            .retry_after(wait);
        let headers = [
            (POLICY, format!("\"default\";q={burst};w={window}")),
            (STANDING, format!("\"default\";r=0;t={wait}")),
        ];
        headers.into_iter().fold(problem, |problem, (name, value)| match HeaderValue::try_from(value) {
            Ok(value) => problem.with(name, value),
            Err(_never) => problem,
        })
    }
}

impl Used {
    /// `caller`, or, when too many are kept, the allowance that it shares with others of its token.
    fn caller(&mut self, caller: RateKey, now: Instant) -> RateKey {
        let full = self.whole_at.len() >= MOST_CALLERS;
        if full && now.duration_since(self.swept_at) >= SWEEP_EVERY {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
            self.swept_at = now;
        }
        let room = self.whole_at.len() < MOST_CALLERS || self.whole_at.contains_key(&caller);
        if room { caller } else { (caller.0, None) }
    }
}

/// The unit of one client: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::clock::Clock;
    use broker_runtime::entropy::Entropy;
    use proptest::prelude::*;

    use super::*;

    fn rate(per_s: u32, burst: u32) -> (Rate, Instant) {
        let now = Clock::system().instant();
        (Rate::new(RateLimit { per_s, burst }, now), now)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_burst_passes_and_what_follows_waits_its_turn() {
        let (rate, now) = rate(10, 5);
        let admitted = |ms| rate.admit(None, address(1), now + Duration::from_millis(ms)).is_ok();
        assert!((0..5).all(|_| admitted(0)));
        assert!(!admitted(0) && !admitted(99));
        assert!(admitted(100), "a refused request costs nothing");
        assert!(!admitted(199));
        assert!((0..5).all(|_| admitted(1_000)));
    }

    #[test]
    fn tokens_and_addresses_are_limited_apart_from_each_other() {
        let (rate, now) = rate(1, 1);
        let token = |name: &str| Some(Arc::from(name));
        assert!(rate.admit(token("a"), address(1), now).is_ok());
        assert!(rate.admit(token("a"), address(1), now).is_err());
        assert!(rate.admit(token("b"), address(1), now).is_ok());
        assert!(rate.admit(token("a"), address(2), now).is_ok());
        assert!(rate.admit(None, address(1), now).is_ok());
        let v6 = |text: &str| rate.admit(None, text.parse().unwrap(), now).is_ok();
        assert!(v6("2001:db8::1") && !v6("2001:db8::2") && v6("2001:db8:0:1::1"));
    }

    #[test]
    fn a_refusal_says_the_policy_and_when_to_come_back() {
        let (rate, now) = rate(2, 10);
        (0..10).for_each(|_| rate.admit(None, address(1), now).unwrap());
        let problem = rate.admit(None, address(1), now).unwrap_err();
        assert_eq!(problem.code(), Code::RateLimitExceeded);
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let response = problem.into_response(id).into_http(id);
        assert_eq!(response.headers()["ratelimit-policy"], "\"default\";q=10;w=5");
        assert_eq!(response.headers()["ratelimit"], "\"default\";r=0;t=1");
        assert_eq!(response.headers()["retry-after"], "1");
    }

    #[test]
    fn callers_beyond_the_bound_share_an_allowance_until_others_are_forgotten() {
        let (rate, now) = rate(1, 1);
        for n in 0..u32::try_from(MOST_CALLERS).unwrap() {
            rate.admit(None, IpAddr::from((0x0a00_0000 + n).to_be_bytes()), now).unwrap();
        }
        assert!(rate.admit(None, address(1), now).is_ok());
        assert!(rate.admit(None, address(2), now).is_err());
        let later = now + Duration::from_secs(3);
        assert!(rate.admit(None, address(1), later).is_ok() && rate.admit(None, address(2), later).is_ok());
        assert!(rate.used.lock().unwrap().whole_at.len() <= 3);
    }

    proptest! {
        #[test]
        fn whoever_stays_below_the_rate_is_never_refused(per_s in 1_u32..2_000, burst in 1_u32..50) {
            let (rate, now) = rate(per_s, burst);
            let step = Duration::from_secs(1).div_f64(f64::from(per_s)) + Duration::from_micros(1);
            prop_assert!((0..200).all(|n| rate.admit(None, address(1), now + step * n).is_ok()));
        }

        #[test]
        fn nobody_gets_more_than_the_burst_and_the_rate(gaps in prop::collection::vec(0_u64..50, 1..200)) {
            let (rate, start) = rate(100, 7);
            let (mut now, mut admitted) = (start, 0_u64);
            for gap in gaps {
                now += Duration::from_millis(gap);
                admitted += u64::from(rate.admit(None, address(1), now).is_ok());
            }
            let earned = now.duration_since(start).as_millis() as u64 / 10;
            prop_assert!(admitted <= 7 + earned, "{} of {}", admitted, earned);
        }
    }
}
