//! Who may watch what is signed: whoever brings a token of the pool's, in the query or in a cookie. What is not signed is open to all.
//!
//! A token in the query is answered with a cookie for the lecture's objects and one for its page, because playlists name segments
//! without a query. Nothing is looked up before a request has passed here.

mod keys;

use crate::metrics::Why;
use axum::http::header::{COOKIE, ORIGIN, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use jiff::Timestamp;
use keys::Keys;
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{self as contract, Invalid, ViewingKey};
use lectern_podkit::clock::wall_now;
use lectern_podkit::{CancellationToken, Task};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Cookies of ours that one request may bring: one for the page, one for the objects, and some that are left of before.
const MOST_COOKIES: usize = 8;

/// The pool's keys, the newest for each request. Clones share them.
#[derive(Debug, Clone)]
pub struct Viewing(watch::Receiver<Keys>);

/// A request has come over HTTPS: an extension of those that did.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// What a request shows of who sends it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its address, with the query.
    pub uri: &'a Uri,
    /// Its headers, with the cookies.
    pub headers: &'a HeaderMap,
    /// It came over HTTPS, to this origin.
    pub over_tls: bool,
}

/// Who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// Anybody may: the lecture is public.
    Anybody,
    /// Somebody with a token, who gets these cookies with the answer.
    Guest(Vec<HeaderValue>),
}

/// Who was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No token came.
    NoToken,
    /// One came that does not open this lecture.
    Invalid(Invalid),
    /// This origin has no keys to tell by.
    NoKeys,
}

impl Viewing {
    /// The keys in `folder`, and the task that reads them again until `stop`. Without a folder nobody gets in to what is signed.
    pub async fn follow(folder: Option<PathBuf>, stop: CancellationToken) -> (Self, Task<Infallible>) {
        let (sender, keys) = watch::channel(Keys::default());
        let Some(folder) = folder else {
            tracing::warn!("there is no folder of viewing keys: requests for signed lectures are answered 503");
            let idle = async move {
                stop.cancelled().await;
                Ok(())
            };
            return (Self(keys), Box::pin(idle));
        };
        let said = keys::look(&folder, &sender, None).await;
        (Self(keys), keys::keep(folder, sender, said, stop))
    }

    /// These keys, for ever.
    pub fn of(keys: impl IntoIterator<Item = ViewingKey>) -> Self {
        Self(watch::channel(keys.into_iter().collect::<Arc<[_]>>()).1)
    }

    /// Whether who sent the request may watch the run at `prefix`, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, prefix: &RunPrefix, shown: Shown<'_>, now: u64) -> Result<Admitted, Refused> {
        if !prefix.is_signed() {
            return Ok(Admitted::Anybody);
        }
        let keys = self.0.borrow().clone();
        if keys.is_empty() {
            return Err(Refused::NoKeys);
        }
        let verify = |token: &str| contract::verify(keys.iter(), prefix, token, now);
        let in_query = shown.token();
        let first = in_query.map(verify);
        if let (Some(token), Some(Ok(expiry))) = (in_query, first) {
            let known = shown.cookies().any(|cookie| cookie == token);
            return Ok(Admitted::Guest(if known {
                Vec::new()
            } else {
                cookies(prefix, token, expiry.saturating_sub(now), shown.is_secure())
            }));
        }
        // Who comes with an old link and a good cookie has been let in before.
        let mut refusal = first.and_then(Result::err);
        for cookie in shown.cookies() {
            match verify(cookie) {
                Ok(_) => return Ok(Admitted::Guest(Vec::new())),
                Err(invalid) => refusal = refusal.or(Some(invalid)),
            }
        }
        Err(refusal.map_or(Refused::NoToken, Refused::Invalid))
    }
}

impl<'a> Shown<'a> {
    /// The token in the query; it needs no escapes.
    fn token(self) -> Option<&'a str> {
        let pairs = self.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find_map(|(name, value)| (name == contract::QUERY).then_some(value))
    }

    /// The tokens in cookies: in one header, or by HTTP/2 in several (RFC 9113 §8.2.3).
    fn cookies(self) -> impl Iterator<Item = &'a str> {
        let pairs = self.headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok()).flat_map(|text| text.split(';'));
        let named = pairs.filter_map(|pair| pair.trim_ascii().split_once('=').filter(|(name, _)| *name == contract::COOKIE));
        named.map(|(_, value)| value).take(MOST_COOKIES)
    }

    /// The browser asked over HTTPS, this origin or a CDN before it. Who lies about it gets a cookie that his browser does not take.
    fn is_secure(self) -> bool {
        let says_https = |name| self.headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
        self.over_tls || says_https("x-forwarded-proto") || says_https("cloudfront-forwarded-proto")
    }
}

/// The cookies that carry `token` to the run's objects and to its page for `seconds`.
///
/// Over HTTPS they come along inside other sites' pages too, each site's apart from the others' (`Partitioned`): no other site can watch by the
/// cookie of a student who came to it. Without HTTPS browsers allow neither, and the cookies serve the origin's own pages.
fn cookies(prefix: &RunPrefix, token: &str, seconds: u64, secure: bool) -> Vec<HeaderValue> {
    let name = contract::COOKIE;
    let site = if secure { "SameSite=None; Secure; Partitioned" } else { "SameSite=Lax" };
    let of = |path: String| HeaderValue::try_from(format!("{name}={token}; Path={path}; Max-Age={seconds}; HttpOnly; {site}")).ok();
    [format!("/{prefix}"), format!("/watch/{prefix}")].into_iter().filter_map(of).collect()
}

impl Admitted {
    /// Gives the guest's cookies to the answer.
    pub fn dress(self, headers: &mut HeaderMap) {
        let Self::Guest(cookies) = self else { return };
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

impl Refused {
    /// The answer's status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::Invalid(_) => StatusCode::FORBIDDEN,
            Self::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// As metrics call it.
    pub const fn why(self) -> Why {
        match self {
            Self::NoToken => Why::NoToken,
            Self::Invalid(Invalid::Malformed) => Why::Malformed,
            Self::Invalid(Invalid::Foreign) => Why::Foreign,
            Self::Invalid(Invalid::Expired(_)) => Why::Expired,
            Self::NoKeys => Why::NoKeys,
        }
    }

    /// When it may be otherwise, for the answer's headers.
    pub fn dress(self, headers: &mut HeaderMap) {
        if self == Self::NoKeys {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoToken => f.write_str("this lecture is watched by a link from who holds it; there was no token with the request"),
            Self::Invalid(Invalid::Expired(expiry)) => {
                match i64::try_from(*expiry).ok().and_then(|second| Timestamp::from_second(second).ok()) {
                    Some(at) => write!(f, "the link has run out at {at}; ask for a new one"),
                    None => f.write_str("the link has run out; ask for a new one"),
                }
            }
            Self::Invalid(invalid) => write!(f, "{invalid}; ask for a new link"),
            Self::NoKeys => f.write_str("signed lectures cannot be watched just now: the origin has no viewing keys; its log says why"),
        }
    }
}

/// The time by which tokens are judged, in seconds since 1970.
pub fn now() -> u64 {
    wall_now().0 / 1000
}

/// The site whose page asks, if it is one that can be named: a page of no site (`null`: a file, a sandbox) could be anybody's.
pub fn site(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ORIGIN).filter(|origin| *origin != "null").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lectern_contract::StreamRef;

    const NOW: u64 = 1_800_000_000;

    fn key() -> ViewingKey {
        ViewingKey::from([1; 32])
    }

    fn prefix(run: &str) -> RunPrefix {
        RunPrefix::of(&StreamRef { namespace: "school".into(), name: "algebra".into() }, &run.into())
    }

    fn admit(query: &str, headers: &[(&'static str, &str)], over_tls: bool) -> Result<Admitted, Refused> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Viewing::of([key()]).admit(&prefix("s-1"), Shown { uri: &uri, headers: &headers, over_tls }, NOW)
    }

    fn given(admitted: Result<Admitted, Refused>) -> Vec<String> {
        let Ok(Admitted::Guest(cookies)) = admitted else { panic!("{admitted:?}") };
        cookies.iter().map(|cookie| cookie.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_link_is_answered_with_cookies_for_objects_and_page_until_it_runs_out() {
        let token = contract::sign(&key(), &prefix("s-1"), NOW + 60);
        let prefix = prefix("s-1");
        let query = format!("_HLS_msn=7&token={token}");
        let plain = |path| format!("lectern-view={token}; Path={path}{prefix}; Max-Age=60; HttpOnly; SameSite=Lax");
        assert_eq!(given(admit(&query, &[], false)), [plain("/"), plain("/watch/")]);
        for (headers, over_tls) in
            [(&[][..], true), (&[("x-forwarded-proto", "https")], false), (&[("cloudfront-forwarded-proto", "HTTPS")], false)]
        {
            let cookies = given(admit(&query, headers, over_tls));
            assert!(cookies.iter().all(|cookie| cookie.ends_with("; HttpOnly; SameSite=None; Secure; Partitioned")), "{cookies:?}");
        }
    }

    #[test]
    fn a_cookie_opens_too_whatever_comes_beside_it() {
        let (good, old) = (contract::sign(&key(), &prefix("s-1"), NOW + 60), contract::sign(&key(), &prefix("s-1"), NOW));
        let cookie = format!("a=b; lectern-view={old};lectern-view={good}");
        assert_eq!(given(admit("", &[("cookie", &cookie)], false)), Vec::<String>::new());
        assert_eq!(given(admit("", &[("cookie", "a=b"), ("cookie", &cookie)], false)), Vec::<String>::new(), "HTTP/2 may split the header");
        assert_eq!(given(admit(&format!("token={old}"), &[("cookie", &cookie)], false)), Vec::<String>::new(), "an old link, a new cookie");
        assert_eq!(given(admit(&format!("token={good}"), &[("cookie", &cookie)], false)), Vec::<String>::new(), "it is there already");
    }

    #[test]
    fn who_is_refused_hears_why() {
        let foreign = contract::sign(&key(), &prefix("s-2"), NOW + 60);
        let old = contract::sign(&key(), &prefix("s-1"), NOW - 60);
        for (query, why, said) in [
            (String::new(), Why::NoToken, "no token"),
            ("token=".into(), Why::Malformed, "no token: it was cut short"),
            (format!("token={foreign}"), Why::Foreign, "not for this lecture"),
            (format!("token={old}"), Why::Expired, "run out at 2027-01-15T07:59:00Z"),
        ] {
            let refused = admit(&query, &[], true).unwrap_err();
            assert_eq!((refused.status().as_u16(), refused.why()), (403, why));
            assert!(refused.to_string().contains(said) && !refused.to_string().contains('\n'), "{refused}");
        }
        let spam = format!("lectern-view=x; {}", "lectern-view=y; ".repeat(MOST_COOKIES)) + &format!("lectern-view={foreign}");
        assert_eq!(admit("", &[("cookie", &spam)], true).unwrap_err().why(), Why::Malformed);
    }

    #[test]
    fn without_keys_only_what_is_public_is_served() {
        let uri: Uri = "/x".parse().unwrap();
        let (none, headers) = (Viewing::of([]), HeaderMap::new());
        let shown = Shown { uri: &uri, headers: &headers, over_tls: false };
        assert_eq!(none.admit(&prefix("1-s"), shown, NOW), Ok(Admitted::Anybody));
        assert_eq!(none.admit(&prefix("s-1"), shown, NOW).unwrap_err().status(), 503);
    }
}
