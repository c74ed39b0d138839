//! Judge of a run: everything here must be exact, whatever the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use broker_tests::cli::{Output, Stats, Verdict};

use crate::k6::{Grant, Run};
use crate::profile::{Length, Plan, Profile};

/// How many surprising lines are worth a screen.
const SHOWN: usize = 5;

/// Everything that is not as the plan promises.
pub(crate) fn faults(plan: &Plan, run: &Run, stats: &Stats, verdict: &Output) -> Vec<String> {
    let mut faults = Faults(Vec::new());
    let answers = run.answers();
    let tracks: u64 = [201, 409].iter().filter_map(|status| answers.get(status)).sum();
    let promise = plan.promise(tracks);
    if let Length::Rounds(rounds) = plan.length {
        faults.check("tracks that were answered", tracks, plan.users * rounds);
    }
    faults.check("answers by status", &answers, &promise.answers);
    faults.check("the pool", stats, &promise.stats);

    let owners = owners(&run.grants);
    faults.check("tracks with a sandbox", owners.len() as u64, promise.winners);
    faults.check("tracks that were told several sandboxes", several(&owners), Vec::new());
    let sandboxes: BTreeSet<_> = owners.values().flatten().collect();
    faults.check("different sandboxes", sandboxes.len() as u64, promise.winners);

    faults.check("exit code of pool verify", verdict.code, 0);
    if verdict.code != 0 {
        faults.0.push(format!("pool verify says: {}{}", verdict.stdout, verdict.stderr));
    } else if plan.profile == Profile::MultiStudent {
        faults.check("sandboxes by lab", verdict.json::<Verdict>().by_lab, by_lab(&run.grants));
    }
    faults.0.extend(run.surprises.iter().take(SHOWN).map(|line| format!("surprise: {line}")));
    faults.0
}

struct Faults(Vec<String>);

impl Faults {
    fn check<T: PartialEq + Debug>(&mut self, what: &str, found: T, promised: T) {
        if found != promised {
            self.0.push(format!("{what}: {found:?}, promised: {promised:?}"));
        }
    }
}

type Owners<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The sandboxes of each track, in any response.
fn owners(grants: &[Grant]) -> Owners<'_> {
    let mut owners = Owners::new();
    for grant in grants {
        owners.entry(&grant.track).or_default().insert(&grant.sandbox);
    }
    owners
}

fn several<'a>(owners: &Owners<'a>) -> Vec<&'a str> {
    owners.iter().filter(|(_, sandboxes)| sandboxes.len() > 1).map(|(track, _)| *track).collect()
}

/// The number of sandboxes of each lab.
fn by_lab(grants: &[Grant]) -> BTreeMap<String, u64> {
    let told: BTreeSet<_> = grants.iter().filter_map(|g| Some((g.lab.clone()?, &g.sandbox))).collect();
    let mut labs = BTreeMap::new();
    for (lab, _) in told {
        *labs.entry(lab).or_default() += 1;
    }
    labs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(track: &str, sandbox: &str) -> Grant {
        Grant { track: track.to_owned(), lab: Some("lab".to_owned()), sandbox: sandbox.to_owned() }
    }

    #[test]
    fn a_track_with_two_sandboxes_is_seen() {
        let grants = [grant("a", "1"), grant("a", "1"), grant("b", "2"), grant("b", "3")];
        assert_eq!(several(&owners(&grants)), ["b"]);
        assert_eq!(by_lab(&grants), BTreeMap::from([("lab".to_owned(), 3)]));
    }
}
