//! Limit of open files: the number of connections that the operating system lets a process have.
//!
//! Each takes a file descriptor; a process has 1,024 unless it raises its soft limit, up to the hard one. Invariant: no more
//! connections are accepted than there are descriptors for; more wait in the kernel. A low limit is no error.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for other uses: connections to AWS, listeners, logs.
const OTHERS: u64 = 512;

/// Raises the limit for `connections`, warns if that fails, and returns the number of connections that the limit suffices
/// for.
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
            tracing::warn!(%error, "limit of open files unknown");
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
