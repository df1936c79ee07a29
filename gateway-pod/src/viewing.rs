//! Links to lectures that only those may watch who have one: who holds a bearer key gets them, and hands them on.

use crate::error::StreamError;
use k8s_openapi::api::core::v1::Secret;
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{CURRENT, USUAL, ViewingKey, link, sign};
use lectern_crds::{LiveStream, Viewing};

/// What is added to a lecture's addresses: a token, or nothing where anybody may watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass(Option<String>);

/// The run that links to `stream` need a token for; `None`: it is public, or has no addresses yet.
pub fn signed_run(stream: &LiveStream) -> Option<RunPrefix> {
    let playback = stream.status.as_ref().and_then(|status| status.playback.as_ref())?;
    let (prefix, _) = RunPrefix::of_key(&format!("{}/live.m3u8", playback.prefix))?;
    (stream.spec.viewing == Viewing::Signed).then_some(prefix)
}

impl Pass {
    /// One for the run at `prefix`, from `now` (seconds since 1970) on for [`USUAL`], by the key in the pool's `secret`.
    ///
    /// # Errors
    /// There is no such Secret, or no key in it.
    pub fn signed(prefix: &RunPrefix, secret: Option<&Secret>, now: u64) -> Result<Self, StreamError> {
        let bytes = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(CURRENT));
        let key = bytes.and_then(|bytes| ViewingKey::try_from(bytes.0.as_slice()).ok()).ok_or(StreamError::NoViewingKey)?;
        Ok(Self(Some(sign(&key, prefix, now.saturating_add(USUAL.as_secs())))))
    }

    /// `url` for who may watch.
    pub fn to(&self, url: &str) -> String {
        self.0.as_ref().map_or_else(|| url.to_owned(), |token| link(url, token))
    }
}
