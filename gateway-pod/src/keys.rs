//! Bearer keys: who may call.

use crate::files;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A shorter key could be guessed.
pub const MIN_CHARS: usize = 20;

/// The clients and the SHA-256 of their keys; the keys themselves are not kept.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(Arc<str>, [u8; 32])>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(client, _)| client)).finish()
    }
}

impl Keys {
    /// Keys of a folder's files: the name is the client's, the content its key, white space around it aside. Keys of fewer
    /// than [`MIN_CHARS`] characters are left out; their clients come back as the second value.
    pub fn of_files(files: &BTreeMap<String, Vec<u8>>) -> (Self, Vec<String>) {
        let (mut keys, mut weak) = (Vec::new(), Vec::new());
        for (client, content) in files {
            let key = content.trim_ascii();
            if key.len() < MIN_CHARS {
                weak.push(client.clone());
            } else {
                keys.push((Arc::from(client.as_str()), hash(key)));
            }
        }
        (Self(keys), weak)
    }

    /// Whose key `token` is. Takes the same time whichever key it is, and whether it is one.
    pub fn client_of(&self, token: &[u8]) -> Option<Arc<str>> {
        let hash = hash(token);
        let (mut found, mut at) = (Choice::from(0), 0u64);
        for (index, (_, key)) in self.0.iter().enumerate() {
            let same = key.as_slice().ct_eq(hash.as_slice());
            at.conditional_assign(&(index as u64), same);
            found |= same;
        }
        let index = usize::try_from(at).ok().filter(|_| bool::from(found))?;
        self.0.get(index).map(|(client, _)| client.clone())
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Nobody may call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The keys of `folder`, kept up to date by the returned task until `stop`. A folder that cannot be read keeps the keys
/// that were there; an empty one revokes them all.
pub fn keep(
    folder: PathBuf,
    stop: CancellationToken,
) -> (watch::Receiver<Keys>, impl Future<Output = Result<(), Infallible>> + Send + 'static) {
    let (sender, receiver) = watch::channel(Keys::default());
    let task = async move {
        // What was last said of the folder, so that it is said once.
        let mut said = None::<String>;
        loop {
            let (now, news) = match files::read(&folder).await {
                Ok(files) => {
                    let (keys, weak) = Keys::of_files(&files);
                    let weak = if weak.is_empty() {
                        String::new()
                    } else {
                        format!("; left out, because shorter than {MIN_CHARS} characters: {}", weak.join(", "))
                    };
                    let news = format!("{} bearer keys in {}{weak}", keys.len(), folder.display());
                    (Some(keys), news)
                }
                Err(error) => (None, format!("the bearer keys in {} cannot be read, those known stay: {error}", folder.display())),
            };
            let changed = now.is_some_and(|keys| sender.send_if_modified(|known| std::mem::replace(known, keys.clone()) != keys));
            if changed || said.as_deref() != Some(&news) {
                tracing::info!("{news}");
                said = Some(news);
            }
            if stop.run_until_cancelled(tokio::time::sleep(files::EVERY)).await.is_none() {
                return Ok(());
            }
        }
    };
    (receiver, task)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &[u8] = b"ada-0123456789-0123456789";
    const BOB: &[u8] = b"bob-0123456789-0123456789";

    fn files(entries: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        entries.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
    }

    #[test]
    fn a_key_leads_to_its_client_and_another_one_to_nobody() {
        let (keys, _) = Keys::of_files(&files(&[("ada", ADA), ("bob", BOB)]));
        assert_eq!(keys.client_of(ADA).as_deref(), Some("ada"));
        assert_eq!(keys.client_of(BOB).as_deref(), Some("bob"));
        assert_eq!(keys.client_of(b"eve-0123456789-0123456789"), None);
        assert_eq!(keys.client_of(b""), None);
    }

    #[test]
    fn a_line_end_in_the_file_is_not_part_of_the_key() {
        let (keys, _) = Keys::of_files(&files(&[("ada", b"ada-0123456789-0123456789\n")]));
        assert_eq!(keys.client_of(ADA).as_deref(), Some("ada"));
    }

    #[test]
    fn an_empty_or_short_key_is_left_out_and_said() {
        let (keys, weak) = Keys::of_files(&files(&[("ada", b""), ("bob", b"short")]));
        assert!(keys.is_empty());
        assert_eq!(weak, ["ada", "bob"]);
        assert_eq!(keys.client_of(b""), None);
    }

    #[test]
    fn keys_are_not_shown() {
        let (keys, _) = Keys::of_files(&files(&[("ada", ADA)]));
        assert_eq!(format!("{keys:?}"), r#"["ada"]"#);
    }

    #[tokio::test]
    async fn a_key_that_is_added_or_removed_is_taken_up() {
        let folder = std::env::temp_dir().join(format!("lectern-keys-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ada"), ADA).unwrap();
        let stop = CancellationToken::new();
        let (mut keys, keeping) = keep(folder.clone(), stop.clone());
        let keeping = tokio::spawn(keeping);
        keys.wait_for(|keys| keys.client_of(ADA).is_some()).await.unwrap();
        std::fs::write(folder.join("bob"), BOB).unwrap();
        std::fs::remove_file(folder.join("ada")).unwrap();
        keys.wait_for(|keys| keys.client_of(BOB).is_some() && keys.client_of(ADA).is_none()).await.unwrap();
        stop.cancel();
        keeping.await.unwrap().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
