//! How many connections the operating system lets one process have.
//!
//! Each takes a file descriptor, of which a process gets 1,024 unless it asks for more (the soft limit), up to what its
//! administrator grants (the hard one). Invariant: no more connections are accepted than descriptors are granted for; more
//! wait in the kernel. What it does not do: fail; a process with fewer connections still serves.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors beside those of clients: connections to AWS, listeners, logs.
const OTHERS: u64 = 512;

/// Asks for as many descriptors as `connections` need, tells if they are not granted, and how many connections they
/// suffice for.
pub(crate) fn allow(connections: usize) -> usize {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let granted = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let asked = wanted.clamp(soft, hard.max(soft));
        setrlimit(Resource::RLIMIT_NOFILE, asked, hard).map(|()| asked)
    });
    match granted {
        Ok(granted) if granted >= wanted => connections,
        Ok(granted) => {
            let suffices = suffices_for(granted);
            tracing::warn!(
                granted,
                wanted,
                connections = suffices,
                "few open files are allowed, so fewer connections at a time: raise ulimit -n, or lower BROKER_MAX_CONNECTIONS"
            );
            suffices
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            connections
        }
    }
}

/// The connections that `granted` descriptors suffice for; with very few, half of them.
fn suffices_for(granted: u64) -> usize {
    let left = granted.saturating_sub(OTHERS).max(granted / 2).max(1);
    usize::try_from(left).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::suffices_for;

    #[test]
    fn some_connections_are_left_however_few_descriptors_there_are() {
        assert_eq!([0, 1, 256, 700, 1_024, 20_512].map(suffices_for), [1, 1, 128, 350, 512, 20_000]);
    }
}
