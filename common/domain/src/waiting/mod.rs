//! Waiting: lines of requests that found no sandbox, and the deal of arriving sandboxes to them.
//!
//! Invariants: a line is in the order of asking; a sandbox goes only to places that it fits; tenants of the same weight have
//! the same chance, whatever the number of their waiting requests. A place is a message that waits in the table instead of the
//! queue: its claim decides, as for any other message (ARCHITECTURE.md, "Waiting").

mod deal;
mod estimate;
mod marks;

use std::fmt;
use std::time::Duration;

use super::{NamePrefix, RequestId, SandboxName, TenantName, Timestamp};

pub use deal::{Dealt, FreeSandbox, TenantPlaces, deal};
pub use estimate::{GrantCount, GrantRate, Granted, RecentGrants, WalkedLine, grants_until_served};
pub use marks::{Marks, Standing, minted_at};

/// The longest that a request can wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// The most lines of one tenant; more requests do not wait.
pub const MOST_LINES: usize = 200;
/// About how many places one tenant may have; more requests do not wait.
pub const MOST_PLACES: u64 = 10_000;
/// How long a line is listed after the last deadline in it: longer than clocks differ and calls take.
const LISTED_AFTER: Duration = Duration::from_secs(600);

/// The places of one tenant and one requested prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Whose requests they are.
    pub tenant: TenantName,
    /// What the sandbox's name must begin with.
    pub prefix: Option<NamePrefix>,
}

impl Line {
    /// Whether a sandbox of this name is of use to the line.
    pub fn fits(&self, name: &SandboxName) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| name.as_str().starts_with(prefix.as_str()))
    }

    /// From the text that [`Display`](fmt::Display) writes. A tenant's name has no `#`, so the first one ends it.
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, prefix) = text.split_once('#')?;
        let prefix = match prefix {
            "" => None,
            prefix => Some(NamePrefix::new(prefix).ok()?),
        };
        Some(Self { tenant: TenantName::new(tenant).ok()?, prefix })
    }

    /// Until when a line must be listed that has a place with this deadline.
    pub fn listed_until(deadline: Timestamp) -> Timestamp {
        deadline.plus(LISTED_AFTER)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.tenant, self.prefix.as_ref().map_or("", NamePrefix::as_str))
    }
}

/// One parked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its line.
    pub line: Line,
    /// The request. Ids are minted by the broker and sort by time, so they are the order of asking.
    pub request_id: RequestId,
    /// Until when it waits.
    pub deadline: Timestamp,
    /// Its message.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tenant: &str, prefix: Option<&str>) -> Line {
        let prefix = prefix.map(|prefix| NamePrefix::new(prefix).unwrap());
        Line { tenant: TenantName::new(tenant).unwrap(), prefix }
    }

    #[test]
    fn a_line_is_read_as_it_is_written_whatever_its_prefix() {
        for line in [line("acme", None), line("acme", Some("lab-")), line("a.b:c@d-e_f", Some("#odd # name"))]
        {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        for wrong in ["", "acme", "#lab-", "two words#lab-"] {
            assert_eq!(Line::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_sandbox_fits_every_line_whose_prefix_begins_its_name() {
        let name = SandboxName::new("lab-eu-1").unwrap();
        let fits = [None, Some("lab-"), Some("lab-eu-1"), Some("lab-us"), Some("lab-eu-10")];
        let fits = fits.map(|prefix| line("t", prefix).fits(&name));
        assert_eq!(fits, [true, true, true, false, false]);
    }
}
