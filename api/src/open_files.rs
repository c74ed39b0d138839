//! How many connections the operating system lets one process have.
//!
//! Each takes a file descriptor, of which a process gets 1,024 unless it asks for more (the soft limit), up to what its
//! administrator grants (the hard one). What it does not do: fail; a process with fewer connections still serves.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors beside those of clients: connections to AWS, listeners, logs.
const OTHERS: u64 = 512;

/// Asks for as many descriptors as `connections` need, and tells if they are not granted.
pub(crate) fn allow(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let granted = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let asked = wanted.clamp(soft, hard.max(soft));
        setrlimit(Resource::RLIMIT_NOFILE, asked, hard).map(|()| asked)
    });
    match granted {
        Ok(granted) if granted >= wanted => {}
        Ok(granted) => {
            let connections = granted.saturating_sub(OTHERS);
            tracing::warn!(
                granted,
                wanted,
                connections,
                "too few open files are allowed (ulimit -Hn) for BROKER_MAX_CONNECTIONS"
            );
        }
        Err(error) => tracing::warn!(%error, "the limit of open files is not known"),
    }
}
