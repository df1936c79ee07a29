//! Folders that Kubernetes mounts Secrets into, watched by reading them: a few small files every few seconds cost nothing,
//! and reading finds what inotify misses (the kubelet swaps a symbolic link, other volumes do not).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often a folder is read.
pub const EVERY: Duration = Duration::from_secs(2);

/// A bigger file is no key and no certificate.
const MAX_BYTES: u64 = 1024 * 1024;

/// All files of `folder` by name, without those whose name starts with a dot (the kubelet's own links) and those that are
/// larger than 1 MiB.
pub async fn read(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Follows links: a mounted Secret consists of them.
        let metadata = tokio::fs::metadata(entry.path()).await?;
        if !name.starts_with('.') && metadata.is_file() && metadata.len() <= MAX_BYTES {
            files.insert(name, tokio::fs::read(entry.path()).await?);
        }
    }
    Ok(files)
}
