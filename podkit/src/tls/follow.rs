//! What is made of a folder's files, made anew when they change.

use super::{Identity, TlsError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a folder is read: three small files cost nothing, and reading finds what inotify misses (the kubelet swaps a
/// symbolic link, other volumes do not).
const EVERY: Duration = Duration::from_secs(2);

/// Makes something of an identity.
pub(super) type Make<T> = fn(&Identity) -> Result<T, TlsError>;

/// The newest `T` that could be made of a folder. Clones share it; with the last of them the folder is no longer read.
#[derive(Debug)]
pub(super) struct Followed<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// Made of what `folder` holds now.
    pub(super) async fn load(folder: &Path, make: Make<T>) -> Result<Self, TlsError> {
        let identity = Identity::load(folder).await?;
        let (newest, seen) = watch::channel(Arc::new(make(&identity)?));
        tokio::spawn(follow(folder.to_owned(), make, identity, newest));
        Ok(Self(seen))
    }

    /// As [`Followed::load`], however long it takes the files to come. Each new obstacle is logged, and told to `waiting`.
    pub(super) async fn when_there(folder: &Path, make: Make<T>, waiting: impl Fn(&str)) -> Self {
        let mut said = String::new();
        loop {
            match Self::load(folder, make).await {
                Ok(followed) => return followed,
                Err(error) => {
                    let obstacle = format!("waiting for a certificate in {}: {error}", folder.display());
                    if obstacle != said {
                        tracing::info!("{obstacle}");
                        waiting(&obstacle);
                        said = obstacle;
                    }
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The newest.
    pub(super) fn now(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Waits until there is a newer one than this handle has waited for before.
    pub(super) async fn renewed(&mut self) {
        // An Err says that the task which reads the folder is gone, which it is only once the runtime is.
        let _ = self.0.changed().await;
    }
}

async fn follow<T>(folder: PathBuf, make: Make<T>, mut current: Identity, newest: watch::Sender<Arc<T>>) {
    let mut said = String::new();
    loop {
        tokio::select! {
            () = newest.closed() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let loaded = match Identity::load(&folder).await {
            Ok(identity) if identity == current => {
                said.clear();
                continue;
            }
            Ok(identity) => make(&identity).map(|made| (identity, made)),
            Err(error) => Err(error),
        };
        match loaded {
            Ok((identity, made)) => {
                current = identity;
                newest.send_replace(Arc::new(made));
                said.clear();
                tracing::info!(folder = %folder.display(), "a new certificate is in use");
            }
            Err(error) if error.to_string() != said => {
                tracing::warn!(folder = %folder.display(), %error, "the certificate cannot be used; the last one stays");
                said = error.to_string();
            }
            Err(_) => {}
        }
    }
}
