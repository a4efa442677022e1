//! The machine: its limits, this process's use of it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, getrlimit};

/// CPU time of this process so far, user and system.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Ties this thread, and the threads it starts from now on, to some processors.
pub fn pin(processors: &[usize]) {
    let mut set = rustix::thread::CpuSet::new();
    processors.iter().for_each(|n| set.set(*n));
    if let Err(error) = rustix::thread::sched_setaffinity(None::<Pid>, &set) {
        eprintln!("cannot pin to processors {processors:?} ({error}); figures will be noisier");
    }
}

/// Memory of this process in MiB: resident now, and at its highest.
pub fn memory_mib() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        number.unwrap_or(f64::NAN) / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Raises nothing, but says how many files may be open; shown with the results.
pub fn files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(0)
}

/// Median and 99th percentile, in microseconds, of an fdatasync after overwriting 4 KiB of a
/// preallocated file whose blocks were written before.
pub fn sync_of_written_block(directory: &Path, rounds: usize) -> std::io::Result<(f64, f64)> {
    let path = directory.join("limit-sync");
    let mut file = File::create(&path)?;
    let block = [1u8; 4096];
    for _ in 0..rounds {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut times = Vec::with_capacity(rounds);
    for i in 0..rounds {
        let started = Instant::now();
        file.write_all_at(&block, i as u64 * 4096)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    times.sort_by(f64::total_cmp);
    Ok((times[rounds / 2], times[rounds * 99 / 100]))
}

/// MiB/s of writing a new file in 1 MiB pieces, each synced, and of the same unsynced until the
/// end.
pub fn sequential_write(directory: &Path, mib: usize) -> std::io::Result<(f64, f64)> {
    let piece = vec![7u8; 1 << 20];
    let mut speeds = [0.0; 2];
    for (each, speed) in [true, false].into_iter().zip(&mut speeds) {
        let path = directory.join("limit-write");
        let mut file = File::create(&path)?;
        let started = Instant::now();
        for _ in 0..mib {
            file.write_all(&piece)?;
            if each {
                file.sync_data()?;
            }
        }
        file.sync_data()?;
        *speed = mib as f64 / started.elapsed().as_secs_f64();
        std::fs::remove_file(&path)?;
    }
    Ok((speeds[0], speeds[1]))
}
