//! The API server's audit log: each request of the operator's that writes, whether it changed anything or not.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// How many requests there were of a kind: `patch livestreams/status`.
#[derive(Debug, Clone, Default)]
pub struct Audit(BTreeMap<String, u64>);

/// The log, as far as it has been read.
pub struct Log {
    path: PathBuf,
    read: u64,
    so_far: Audit,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    object_ref: Object,
    response_status: Answer,
}

#[derive(Deserialize)]
struct Object {
    resource: String,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    code: Option<u16>,
}

impl Log {
    /// Nothing is read yet.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0, so_far: Audit::default() }
    }

    /// Everything up to now.
    pub fn read(&mut self) -> Result<Audit> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Audit::default()), // nobody has asked for anything
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut file = BufReader::new(file);
        let mut line = String::new();
        // A line that is just being written is for the next time.
        while file.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.read += line.len() as u64;
            self.so_far.count(&line).with_context(|| format!("the audit log: {line}"))?;
            line.clear();
        }
        Ok(self.so_far.clone())
    }
}

impl Audit {
    fn count(&mut self, line: &str) -> Result<()> {
        let Line { verb, object_ref: Object { resource, subresource }, response_status } = serde_json::from_str(line)?;
        let what = subresource.map_or_else(|| resource.clone(), |sub| format!("{resource}/{sub}"));
        // A refused one, mostly of an old copy, has written nothing.
        let how = if response_status.code.is_some_and(|code| code >= 400) { " refused" } else { "" };
        *self.0.entry(format!("{verb} {what}{how}")).or_default() += 1;
        Ok(())
    }

    /// What has come since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let left = self.0.iter().map(|(what, count)| (what.clone(), count - before.0.get(what).copied().unwrap_or(0)));
        Self(left.filter(|(_, count)| *count > 0).collect())
    }

    /// Without the Lease, which its holder renews every two seconds whatever happens.
    pub fn without_leases(&self) -> Self {
        Self(self.0.iter().filter(|(what, _)| !what.contains(" leases")).map(|(what, count)| (what.clone(), *count)).collect())
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Those of a resource and its parts, refused ones left out.
    pub fn of(&self, resource: &str) -> u64 {
        let is_of = |what: &str| {
            let object = what.split(' ').nth(1).unwrap_or_default();
            !what.ends_with(" refused") && object.split('/').next() == Some(resource)
        };
        self.0.iter().filter(|(what, _)| is_of(what)).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self.0.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(if kinds.is_empty() { "none" } else { "" })?;
        f.write_str(&kinds.join(", "))
    }
}
