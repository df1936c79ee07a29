//! The pool's viewing keys, as the kubelet mounts their Secret.

use lectern_contract::viewing::{CURRENT, PREVIOUS, ViewingKey};
use lectern_podkit::{CancellationToken, Task};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the folder is read, as podkit does with certificates: reading finds what inotify misses.
const EVERY: Duration = Duration::from_secs(2);

/// Those that count now, the one that signs first. None: nobody gets in.
pub(super) type Keys = Arc<[ViewingKey]>;

/// Reads the folder again and again until `stop`. `said`: what [`look`] said of it last.
pub(super) fn keep(folder: PathBuf, keys: watch::Sender<Keys>, said: String, stop: CancellationToken) -> Task<Infallible> {
    Box::pin(async move {
        let mut said = said;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            said = look(&folder, &keys, Some(said)).await;
        }
        Ok(())
    })
}

/// Reads the folder once: what is in it counts, and what is not does not any more. Says what there is, unless that was `said` last, and returns it.
pub(super) async fn look(folder: &Path, keys: &watch::Sender<Keys>, said: Option<String>) -> String {
    let (found, trouble) = read(folder).await;
    let now = match (found.len(), trouble.as_slice()) {
        (0, trouble) => format!("no viewing keys in {}, signed lectures are answered 503: {}", folder.display(), trouble.join("; ")),
        (count, []) => format!("{count} viewing keys in {}", folder.display()),
        (count, trouble) => format!("{count} viewing keys in {}, and {}", folder.display(), trouble.join("; ")),
    };
    let is_new = keys.send_if_modified(|known| {
        let is_new = known[..] != found[..];
        *known = found.into();
        is_new
    });
    if is_new || said.as_ref() != Some(&now) {
        if trouble.is_empty() { tracing::info!("{now}") } else { tracing::warn!("{now}") }
    }
    now
}

/// The keys, and what is wrong with those that are none.
async fn read(folder: &Path) -> (Vec<ViewingKey>, Vec<String>) {
    let (mut found, mut trouble) = (Vec::new(), Vec::new());
    for file in [CURRENT, PREVIOUS] {
        match tokio::fs::read(folder.join(file)).await {
            Ok(bytes) => match ViewingKey::try_from(bytes.as_slice()) {
                Ok(key) => found.push(key),
                Err(error) => trouble.push(format!("{file}: {error}")),
            },
            // Until the first change there is one key.
            Err(error) if file == PREVIOUS && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => trouble.push(format!("{file} cannot be read: {error}")),
        }
    }
    (found, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::viewing::Viewing;

    #[tokio::test]
    async fn a_folder_that_changes_changes_who_gets_in() {
        let folder = std::env::temp_dir().join(format!("lectern-viewing-{}", std::process::id()));
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder).unwrap();
        let stop = CancellationToken::new();
        let (Viewing(mut keys), task) = Viewing::follow(Some(folder.clone()), stop.clone()).await;
        let task = tokio::spawn(task);
        let key = |fill: u8| ViewingKey::from([fill; 32]);
        assert!(keys.borrow().is_empty());
        std::fs::write(folder.join(CURRENT), [1; 32]).unwrap();
        keys.wait_for(|keys| keys[..] == [key(1)]).await.unwrap();
        std::fs::write(folder.join(PREVIOUS), [1; 32]).unwrap();
        std::fs::write(folder.join(CURRENT), [2; 32]).unwrap();
        keys.wait_for(|keys| keys[..] == [key(2), key(1)]).await.unwrap();
        std::fs::write(folder.join(CURRENT), "no key\n").unwrap();
        keys.wait_for(|keys| keys[..] == [key(1)]).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        keys.wait_for(|keys| keys.is_empty()).await.unwrap();
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
