//! What the kernel says about this process, by the names that every Prometheus client uses, Node's too.

use std::fmt;
use std::fs;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, getrlimit};

use super::encode::Writer;

/// Writes what can be read; where there is no `/proc`, that is nothing.
pub(super) fn encode(to: &mut Writer<'_>) -> fmt::Result {
    if let Some(Times { cpu_s, started_s }) = times() {
        to.counter_f64("process_cpu_seconds", "Total user and system CPU time spent in seconds.", cpu_s)?;
        let help = "Start time of the process since unix epoch in seconds.";
        to.gauge("process_start_time_seconds", help, started_s)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, name, help) in [
        ("VmRSS:", "process_resident_memory_bytes", "Resident memory size in bytes."),
        ("VmSize:", "process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ] {
        if let Some(kib) = kib(&status, field) {
            to.gauge(name, help, kib * 1024.0)?;
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The look itself has one open.
        let open = super::count(open.count().saturating_sub(1));
        to.gauge("process_open_fds", "Number of open file descriptors.", open)?;
    }
    if let Some(max) = getrlimit(Resource::Nofile).current.and_then(|max| usize::try_from(max).ok()) {
        to.gauge("process_max_fds", "Maximum number of open file descriptors.", super::count(max))?;
    }
    Ok(())
}

struct Times {
    cpu_s: f64,
    started_s: f64,
}

fn times() -> Option<Times> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    let ticks = clock_ticks_per_second() as f64;
    let [user, system, started] = fields(&stat)?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(Times { cpu_s: (user + system) / ticks, started_s: boot + started / ticks })
}

/// The ticks of `/proc/self/stat`: in user code, in the kernel, and from the boot to our start. The name of the program
/// comes before, in brackets, and may hold anything.
fn fields(stat: &str) -> Option<[f64; 3]> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse().ok();
    Some([number(11)?, number(12)?, number(19)?])
}

fn kib(status: &str, field: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_skipped() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 5 6 7 8 900 80 0 0 20 0 3 0 12345 1 2\n";
        assert_eq!(fields(stat), Some([900.0, 80.0, 12345.0]));
        assert_eq!(fields("junk"), None);
    }
}
