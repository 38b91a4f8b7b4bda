//! What the machine itself says of its use: processor, memory, file systems.

use std::path::Path;

use jiff::Timestamp;

/// How the processor time in `/proc/stat` is counted.
const TICKS_PER_SECOND: u64 = 100;

/// The machine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Nanoseconds that all processors together have worked since the start.
    pub cpu_nanoseconds: u64,
    pub memory_total: u64,
    pub memory_available: u64,
    pub memory_free: u64,
    pub boot_time: i64,
}

impl Machine {
    pub(super) fn read() -> Machine {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Machine::parse(&stat, &memory)
    }

    fn parse(stat: &str, memory: &str) -> Machine {
        let kibibytes = |name: &str| field(memory, name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024;
        Machine {
            cpu_nanoseconds: busy_ticks(stat) * (1_000_000_000 / TICKS_PER_SECOND),
            memory_total: kibibytes("MemTotal:"),
            memory_available: kibibytes("MemAvailable:"),
            memory_free: kibibytes("MemFree:"),
            boot_time: field(stat, "btime").and_then(|text| text.parse().ok()).unwrap_or(0),
        }
    }

    pub(super) fn memory_working_set(&self) -> u64 {
        self.memory_total.saturating_sub(self.memory_available)
    }

    pub(super) fn booted(&self) -> Timestamp {
        Timestamp::from_second(self.boot_time).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
}

/// User, nice, system, interrupts and stolen time; not idle nor waiting.
fn busy_ticks(stat: &str) -> u64 {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at)).sum()
}

/// A file system's size and use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl FileSystem {
    pub(super) fn of(path: &Path) -> Option<FileSystem> {
        let stat = nix::sys::statvfs::statvfs(path).ok()?;
        let block = stat.fragment_size();
        Some(FileSystem {
            capacity: stat.blocks() * block,
            available: stat.blocks_available() * block,
            used: (stat.blocks() - stat.blocks_free()) * block,
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let machine = Machine::parse(
            "cpu  10 1 5 1000 7 2 1 1 0 0\ncpu0 10 1 5 1000 7 2 1 1 0 0\nbtime 1700000000\n",
            "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:    1024 kB\n",
        );
        assert_eq!(machine.cpu_nanoseconds, 20 * 10_000_000);
        assert_eq!(machine.memory_working_set(), 1 << 20);
        assert_eq!(machine.boot_time, 1_700_000_000);
        assert_eq!(Machine::parse("", ""), Machine::default());
    }
}
