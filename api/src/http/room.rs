//! Room: how many connections a process has file descriptors and memory for.
//!
//! Each connection takes a descriptor, and memory: hyper's buffers, a body, and the kernel's buffers of a request that is
//! not read and of an answer that the client does not take. Invariant: by default no more are accepted than both suffice for; a set
//! number is used, but never more than there are descriptors for; one that does not fit is logged. A process with fewer than
//! [`LEAST_FILES`] descriptors does not start.

use std::fs;

use broker_runtime::config::ConfigError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The setting.
const SETTING: &str = "BROKER_MAX_CONNECTIONS";
/// The largest default of the number of connections.
const MOST: u64 = 20_000;
/// Descriptors for other uses: connections to AWS, listeners, logs.
const OTHERS: u64 = 512;
/// The fewest open files with which a process starts.
const LEAST_FILES: u64 = 64;
/// What a connection may cost at the worst, in bytes: 32 KiB of hyper's, 32 KiB of head and body, and twice 64 KiB in the
/// kernel, which doubles what `broker_runtime::process` asks for.
const CONNECTION_BYTES: u64 = 192 * 1024;
/// What a process takes without connections, calls that wait for replies included, in bytes.
const OWN_BYTES: u64 = 128 * 1024 * 1024;

/// What the operating system grants.
#[derive(Clone, Copy, Debug)]
struct Granted {
    /// Open files, after the soft limit was raised; `None`: not known.
    files: Option<u64>,
    /// Memory; `None`: not limited, or not known.
    memory: Option<u64>,
}

/// The number of connections to accept: `set`, or what there is room for. Raises the limit of open files for them.
pub(crate) fn connections(set: Option<usize>) -> Result<usize, ConfigError> {
    let wanted = set.map_or(MOST, |set| u64::try_from(set).unwrap_or(u64::MAX));
    decide(set, Granted { files: raise_files(wanted.saturating_add(OTHERS)), memory: memory() })
}

fn decide(set: Option<usize>, granted: Granted) -> Result<usize, ConfigError> {
    if let Some(files) = granted.files.filter(|files| *files < LEAST_FILES) {
        let problem =
            format!("only {files} open files are allowed: raise ulimit -n to {LEAST_FILES} at least");
        return Err(ConfigError::new(SETTING, problem));
    }
    let by_files = granted.files.map_or(u64::MAX, files_suffice_for);
    let by_memory = granted.memory.map_or(u64::MAX, memory_suffices_for);
    let Some(set) = set else { return Ok(count(MOST.min(by_files).min(by_memory))) };
    let wanted = u64::try_from(set).unwrap_or(u64::MAX);
    if wanted > by_memory {
        let (memory_mib, connections) = (granted.memory.unwrap_or_default() >> 20, by_memory);
        tracing::warn!(
            wanted,
            memory_mib,
            connections,
            "BROKER_MAX_CONNECTIONS is more than the memory limit suffices for"
        );
    }
    if wanted > by_files {
        let (files, connections) = (granted.files, by_files);
        tracing::warn!(
            wanted,
            files,
            connections,
            "few open files are allowed, so fewer connections at a time: raise ulimit -n, or lower BROKER_MAX_CONNECTIONS"
        );
    }
    Ok(count(wanted.min(by_files)))
}

fn count(connections: u64) -> usize {
    usize::try_from(connections.max(1)).unwrap_or(usize::MAX)
}

/// The connections that so many descriptors suffice for; with very few, half of them.
fn files_suffice_for(files: u64) -> u64 {
    files.saturating_sub(OTHERS).max(files / 2)
}

/// The connections that so many bytes suffice for.
fn memory_suffices_for(bytes: u64) -> u64 {
    bytes.saturating_sub(OWN_BYTES).max(bytes / 2) / CONNECTION_BYTES
}

/// Raises the soft limit of open files to `wanted`, if the hard one allows it; what holds then.
fn raise_files(wanted: u64) -> Option<u64> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let asked = wanted.clamp(soft, hard.max(soft));
        setrlimit(Resource::RLIMIT_NOFILE, asked, hard).map(|()| asked)
    });
    raised.inspect_err(|error| tracing::warn!(%error, "limit of open files unknown")).ok()
}

/// The memory that this process may take: of its container, else of the machine.
fn memory() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let of_container = of_container.into_iter().find_map(number);
    of_container
        .into_iter()
        .chain(fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)))
        .min()
}

/// The line `MemTotal:  16314564 kB` of a machine's account.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn with(set: Option<usize>, files: u64, memory_mib: u64) -> usize {
        decide(set, Granted { files: Some(files), memory: Some(memory_mib * MIB) }).unwrap()
    }

    #[test]
    fn the_default_follows_from_files_and_memory_and_a_set_number_from_files_only() {
        assert_eq!(with(None, 1_000_000, 1_000_000), 20_000);
        assert_eq!(with(None, 20_512, 16_000), 20_000);
        assert_eq!(with(None, 1_024, 16_000), 512);
        assert_eq!(with(None, 20_512, 512), 2_048);
        assert_eq!(with(None, 20_512, 64), 170, "some, however little there is");
        assert_eq!(with(Some(5_000), 20_512, 512), 5_000);
        assert_eq!(with(Some(5_000), 1_024, 512), 512);
        let unknown = Granted { files: None, memory: None };
        assert_eq!((decide(None, unknown).unwrap(), decide(Some(7), unknown).unwrap()), (20_000, 7));
    }

    #[test]
    fn with_too_few_files_to_serve_anybody_it_does_not_start_and_says_what_to_do() {
        let error = decide(None, Granted { files: Some(40), memory: None }).unwrap_err().to_string();
        assert!(error.contains("BROKER_MAX_CONNECTIONS") && error.contains("ulimit -n"), "{error}");
    }

    #[test]
    fn a_machine_says_its_memory_in_kib() {
        assert_eq!(total("MemTotal:       24684084 kB\nMemFree: 1 kB\n"), Some(24_684_084 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    /// The number behind `key` in the first line after `section` that has it.
    fn shipped(text: &str, section: &str, key: &str) -> u64 {
        let (_, of_section) = text.split_once(section).expect("the section");
        let (_, value) = of_section.split_once(key).expect("the key");
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    #[test]
    fn what_all_connections_may_cost_fits_the_limits_that_terraform_and_kubernetes_ship() {
        let chart = include_str!("../../../infra/kubernetes/chart/values.yaml");
        let terraform = include_str!("../../../infra/terraform/modules/ecs/variables_services.tf");
        let limits_mib = [
            shipped(chart, "\napi:", "limits: {memory: "),
            shipped(terraform, "variable \"api\"", "memory      = optional(number, "),
        ];
        for limit_mib in limits_mib {
            let connections = u64::try_from(with(None, 65_536, limit_mib)).unwrap();
            let worst = OWN_BYTES + connections * CONNECTION_BYTES;
            assert!(worst <= limit_mib * MIB, "{connections} connections in {limit_mib} MiB");
            assert!(connections >= 2_000, "{connections} connections in {limit_mib} MiB");
        }
        // What a connection may cost is what its bounds say.
        let buffers = u64::try_from(crate::limits::BUFFER_BYTES).unwrap();
        let kernel = 2 * 2 * u64::from(broker_runtime::process::SOCKET_BUFFER_BYTES);
        assert!(32 * 1024 + buffers + kernel <= CONNECTION_BYTES);
    }
}
