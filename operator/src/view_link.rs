//! `lectern-operator view-link`: a link to a signed lecture, for those who may watch it.

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{BadKey, CURRENT, LONGEST, ViewingKey, link, sign};
use lectern_crds::{LiveStream, PlaybackStatus, Viewing, viewing_secret};

/// Which lecture, what of it, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct ViewLinkArgs {
    /// The LiveStream: NAMESPACE/NAME.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = stream)]
    stream: (String, String),
    /// How long the link opens the lecture, `4h` or `30 days`: 30 days at most.
    #[arg(long = "for", value_name = "TIME", default_value = "4h", value_parser = time)]
    lasts: SignedDuration,
    /// What it leads to.
    #[arg(long = "as", value_name = "WHAT", value_enum, default_value_t)]
    what: What,
}

/// What a link leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// The page for students, live and recorded.
    #[default]
    Player,
    /// The live HLS playlist.
    Hls,
    /// The live DASH manifest.
    Dash,
    /// The recording's HLS playlist.
    Vod,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ViewLinkError {
    /// The API server.
    #[error("{what} cannot be read: {source}")]
    Kube {
        /// What was asked for.
        what: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is nothing to sign.
    #[error("{0} is public: anybody can watch it by the addresses in its status.playback")]
    Public(String),
    /// The addresses are not known yet.
    #[error("{0} has no address of this kind yet: see its conditions")]
    NotYet(String),
    /// The Secret has no key.
    #[error("the Secret {0} has no entry {CURRENT:?}: the operator makes it")]
    NoKey(String),
    /// The Secret's key is none.
    #[error("the Secret {secret} is not as the operator makes it: {source}")]
    BadKey {
        /// Its name.
        secret: String,
        /// What is wrong with it.
        #[source]
        source: BadKey,
    },
}

/// Prints the link. The keys lie in `namespace`, the operator's.
///
/// # Errors
/// The API server's, and those of a stream that has nothing to link to.
pub async fn run(args: &ViewLinkArgs, client: Client, namespace: &str) -> Result<(), ViewLinkError> {
    let (of, name) = &args.stream;
    let unreadable = |what: String| move |source| ViewLinkError::Kube { what, source: Box::new(source) };
    let stream =
        Api::<LiveStream>::namespaced(client.clone(), of).get(name).await.map_err(unreadable(format!("LiveStream {of}/{name}")))?;
    let to = target(&stream, args)?;
    let secret = viewing_secret(&stream.spec.pool_name);
    let held =
        Api::<Secret>::namespaced(client, namespace).get(&secret).await.map_err(unreadable(format!("Secret {namespace}/{secret}")))?;
    println!("{}", signed(to, &held, args, Timestamp::now())?);
    Ok(())
}

/// The address that is asked for, and the run that the token is for.
fn target<'a>(stream: &'a LiveStream, args: &ViewLinkArgs) -> Result<(&'a str, RunPrefix), ViewLinkError> {
    let name = format!("{}/{}", args.stream.0, args.stream.1);
    if stream.spec.viewing == Viewing::Public {
        return Err(ViewLinkError::Public(name));
    }
    let playback = stream.status.as_ref().and_then(|status| status.playback.as_ref());
    playback.and_then(|playback| Some((address(playback, args.what)?, prefix(playback)?))).ok_or(ViewLinkError::NotYet(name))
}

/// The link, by the key in `secret`.
fn signed((url, prefix): (&str, RunPrefix), secret: &Secret, args: &ViewLinkArgs, now: Timestamp) -> Result<String, ViewLinkError> {
    let secret_name = || secret.metadata.name.clone().unwrap_or_default();
    let bytes = secret.data.as_ref().and_then(|data| data.get(CURRENT)).ok_or_else(|| ViewLinkError::NoKey(secret_name()))?;
    let key = ViewingKey::try_from(bytes.0.as_slice()).map_err(|source| ViewLinkError::BadKey { secret: secret_name(), source })?;
    let expiry = now.as_second().saturating_add(args.lasts.as_secs());
    Ok(link(url, &sign(&key, &prefix, u64::try_from(expiry).unwrap_or(0))))
}

fn address(playback: &PlaybackStatus, what: What) -> Option<&str> {
    match what {
        What::Player => Some(&playback.player),
        What::Hls => Some(&playback.hls),
        What::Dash => playback.dash.as_deref(),
        What::Vod => playback.vod.as_deref(),
    }
}

fn prefix(playback: &PlaybackStatus) -> Option<RunPrefix> {
    RunPrefix::of_key(&format!("{}/live.m3u8", playback.prefix)).map(|(prefix, _)| prefix)
}

fn stream(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => Ok((namespace.into(), name.into())),
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

fn time(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    let lasts = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    match lasts.as_secs() {
        1.. if lasts.unsigned_abs() <= LONGEST => Ok(lasts),
        _ => Err(format!("a link lasts a second or more, and at most {} days", LONGEST.as_secs() / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use k8s_openapi::ByteString;
    use lectern_contract::viewing::{USUAL, verify};
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ViewLinkArgs,
    }

    fn args(line: &[&str]) -> Result<ViewLinkArgs, String> {
        Line::try_parse_from(["view-link"].iter().chain(line)).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn lecture(viewing: &str) -> LiveStream {
        serde_json::from_value(json!({
            "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream", "metadata": {"name": "algebra", "namespace": "school"},
            "spec": {"viewing": viewing},
            "status": {"playback": {
                "prefix": "28/school/algebra/s-1", "player": "https://l.example/watch/28/school/algebra/s-1", "hls": "https://l.example/28/school/algebra/s-1/live.m3u8",
            }},
        }))
        .unwrap()
    }

    fn secret(bytes: &[u8]) -> Secret {
        Secret { data: Some([(CURRENT.to_owned(), ByteString(bytes.to_vec()))].into()), ..Secret::default() }
    }

    fn made(line: &[&str], viewing: &str, bytes: &[u8]) -> Result<String, String> {
        let (lecture, args) = (lecture(viewing), args(line).unwrap());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        target(&lecture, &args).and_then(|to| signed(to, &secret(bytes), &args, now)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_link_opens_the_lecture_for_as_long_as_was_asked_for() {
        let prefix = RunPrefix::of_key("28/school/algebra/s-1/x").unwrap().0;
        let key = ViewingKey::from([1; 32]);
        for (line, url, until) in [
            (&["school/algebra"][..], "https://l.example/watch/28/school/algebra/s-1", 1_800_000_000 + USUAL.as_secs()),
            (&["school/algebra", "--for", "30 days", "--as", "hls"], "https://l.example/28/school/algebra/s-1/live.m3u8", 1_802_592_000),
            (&["school/algebra", "--for", "90m"], "https://l.example/watch/28/school/algebra/s-1", 1_800_005_400),
        ] {
            let link = made(line, "Signed", &[1; 32]).unwrap();
            let (address, token) = link.split_once("?token=").unwrap();
            assert_eq!((address, verify([&key], &prefix, token, 1_800_000_000)), (url, Ok(until)), "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_linked_to_is_said() {
        assert!(made(&["school/algebra"], "Public", &[1; 32]).unwrap_err().contains("school/algebra is public"));
        assert!(made(&["school/algebra", "--as", "dash"], "Signed", &[1; 32]).unwrap_err().contains("no address of this kind yet"));
        assert!(made(&["school/algebra"], "Signed", &[1; 3]).unwrap_err().contains("32 bytes and not 3"));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused() {
        for line in [
            &["algebra"][..],
            &["a/b/c"],
            &["a/b", "--for", "31d"],
            &["a/b", "--for", "0s"],
            &["a/b", "--for", "-4h"],
            &["a/b", "--for", "soon"],
        ] {
            assert!(args(line).is_err(), "{line:?}");
        }
    }
}
