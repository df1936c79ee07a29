//! A process of the benchmark's own that is told what to do line by line. Dropped, it ends, and nothing else does.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Whoever says nothing for so long is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Part {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Part {
    /// Starts this program once more, as one of its subcommands.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).env("LECTERN_LOG", "warn").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no pipe")?);
        let (said, lines) = channel();
        // Ends with the process, or when nobody listens.
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Ok(Self { name: arguments.first().cloned().unwrap_or_default(), child, stdin, lines })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for what it says next.
    pub fn hear(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.with_context(|| format!("`{}` ended or hung; what it says is above", self.name))?;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// Tells it to do something, and waits until that is done.
    pub fn ask(&mut self, what: &str) -> Result<Value> {
        let stdin = self.stdin.as_mut().context("no pipe")?;
        writeln!(stdin, "{what}").with_context(|| format!("`{}` has ended; what it says is above", self.name))?;
        self.hear()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.stdin.take()); // its end
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
