//! What the kernel's accounting says of a process.

use anyhow::{Context as _, Result};

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, which is 100 wherever Linux runs today (proc(5)).
const TICKS: f64 = 100.0;

/// CPU seconds, user and system, of all threads so far (fields 14 and 15 of proc(5)'s stat).
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    seconds(pid, [14, 15])
}

/// CPU seconds of all children that have ended and were waited for (fields 16 and 17).
pub fn children_cpu_seconds(pid: u32) -> Result<f64> {
    seconds(pid, [16, 17])
}

fn seconds(pid: u32, fields: [usize; 2]) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, may hold anything but ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let all: Vec<_> = rest.split_whitespace().collect();
    let ticks = |field: usize| all.get(field - 3).and_then(|text| text.parse::<f64>().ok()).context("/proc/PID/stat");
    Ok((ticks(fields[0])? + ticks(fields[1])?) / TICKS)
}

/// Resident memory of its own, in bytes: heap and stacks, without the program's text, which is there once however many publish.
pub fn own_bytes(pid: u32) -> Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).context("no Anonymous in smaps_rollup")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}

/// CPU seconds that the whole machine has used so far: all of the first line of proc(5)'s stat but idling and waiting for disks.
pub fn machine_cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("/proc/stat")?.split_whitespace().skip(1);
    let ticks = fields.map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    // user nice system idle iowait irq softirq steal; guests are in user and nice.
    let used = [0, 1, 2, 5, 6].iter().filter_map(|field| ticks.get(*field)).sum::<f64>();
    Ok(used / TICKS)
}

/// Resident memory now, and the most that it ever was, in bytes (proc(5)'s status).
pub fn resident_bytes(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in /proc/PID/status"))?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    };
    Ok((of("VmRSS:")?, of("VmHWM:")?))
}
