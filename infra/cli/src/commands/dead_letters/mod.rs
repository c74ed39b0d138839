//! `broker dead-letters`: list, show, replay, discard; the same code as over HTTP (`broker_dead_letters`).

pub(crate) mod action;
pub(crate) mod list;
pub(crate) mod show;

use broker_domain::Timestamp;

/// The age in words that fit a column.
fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_unit_that_fits() {
        let age =
            |seconds: u64| age(Timestamp::from_secs(1_000_000 - seconds), Timestamp::from_secs(1_000_000));
        assert_eq!(
            [age(119), age(120), age(7_199), age(7_200), age(172_800)],
            ["119s", "2m", "119m", "2h", "2d"]
        );
    }
}
