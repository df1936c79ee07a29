//! The wall clock of a machine on which it steps, by libfaketime.
//!
//! Shared by path with the tests of other crates.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// The wall clock of processes that are started with it; timers run by another one, which no step moves (clock_gettime(2), CLOCK_MONOTONIC).
pub struct Clock(PathBuf);

impl Clock {
    /// One that tells the true time.
    pub fn new() -> Self {
        static CLOCKS: AtomicU32 = AtomicU32::new(0);
        let name = format!("lectern-clock-{}-{}", std::process::id(), CLOCKS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let clock = Self(folder);
        clock.steps_to(0);
        clock
    }

    /// So many hours from the true time; whoever reads it next sees that.
    pub fn steps_to(&self, hours: i64) {
        let new = self.0.join("new");
        std::fs::write(&new, format!("{:+}", hours * 3600)).unwrap();
        std::fs::rename(new, self.0.join("clock")).unwrap(); // nobody reads half of it
    }

    /// What a process is started with.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let library = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| {
            let path = entry.unwrap().path().join("faketime/libfaketimeMT.so.1");
            path.exists().then_some(path)
        });
        let library = library.last().expect("libfaketime; scripts/install test");
        vec![
            ("LD_PRELOAD", library.to_str().unwrap().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.join("clock").to_str().unwrap().to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
