//! An origin as a process on a machine whose clock steps, by libfaketime: players notice nothing but its `Date`, which is the clock's. S3 is SeaweedFS, which refuses
//! requests that are signed for another time as AWS does.
#![allow(clippy::unwrap_used)]

#[path = "../../podkit/tests/common/clock.rs"]
mod clock;
mod common;
#[path = "../../podkit/tests/common/process.rs"]
mod process;

use clock::Clock;
use common::{Lab, Packager, key, prefix, prefix_of};
use jiff::fmt::rfc2822;
use lectern_cloud::testing::Backend;
use lectern_contract::keys::RunPrefix;
use lectern_contract::viewing::{USUAL, sign};
use lectern_origin_pod::viewing::now;
use std::path::PathBuf;
use tokio::process::{Child, Command};

const HOUR: i64 = 3600;

/// An origin and its machine.
struct Machine {
    _origin: Child,
    clock: Clock,
    keys: PathBuf,
    lab: Lab,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.keys);
    }
}

impl Machine {
    async fn start(prefix: RunPrefix) -> Self {
        let mut lab = Lab::start_at(Backend::seaweedfs().await.unwrap(), prefix).await;
        let (clock, [http, health]) = (Clock::new(), [process::address(), process::address()]);
        let keys = std::env::temp_dir().join(format!("lectern-viewing-keys-{}-{}", std::process::id(), http.port()));
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(keys.join("current"), [1; 32]).unwrap(); // key()
        let mut command = Command::new(env!("CARGO_BIN_EXE_lectern-origin"));
        command.args(["--pod-name", "origin-0", "--bucket", "lectures", "--bucket-endpoint", &lab.backend.endpoint()]);
        command.arg(format!("--http-listen={http}")).arg(format!("--health-listen={health}")).arg("--viewing-keys-dir").arg(&keys);
        command.envs(lab.backend.environment()).envs(clock.environment());
        let origin = process::ready(command, health).await;
        lab.asks(http);
        Self { _origin: origin, clock, keys, lab }
    }

    /// How far the clock that the origin shows to players is from the true time, in hours.
    async fn hours_off(&self, path: &str) -> i64 {
        let answer = reqwest::Client::new().head(self.lab.url(path)).send().await.unwrap(); // over a connection of its own
        let date = rfc2822::parse(answer.headers()["date"].to_str().unwrap()).unwrap().timestamp();
        (date.as_second() - now() as i64 + HOUR / 2).div_euclid(HOUR)
    }
}

/// What lists so many segments.
fn playlist(segments: u64) -> String {
    (1..=segments).fold("#EXTM3U\n".to_owned(), |text, number| format!("{text}#EXTINF:2.00000,\n{number}.m4s\n"))
}

#[tokio::test]
async fn a_clock_that_steps_an_hour_ahead_and_back_under_a_lecture_takes_nothing_from_players() {
    let machine = Machine::start(prefix()).await;
    let lab = &machine.lab;
    let mut owner = Packager::start_under(1).await;
    owner.push("360p/live.m3u8", &playlist(1));
    lab.owned_by(Some(&owner.address), 1, false).await;
    lab.eventually("360p/live.m3u8", &playlist(1)).await;
    for (at, hours) in (2..).step_by(2).zip([1, 0, -1, 0]) {
        machine.clock.steps_to(hours);
        assert_eq!(machine.hours_off("360p/live.m3u8").await, hours, "what the origin's clock tells");
        // From the owner that it knows.
        owner.push(&format!("360p/{at}.m4s"), &format!("segment {at}"));
        owner.push("360p/live.m3u8", &playlist(at));
        lab.eventually("360p/live.m3u8", &playlist(at)).await;
        assert_eq!(lab.get(&format!("360p/{at}.m4s")).await, (200, format!("segment {at}")));
        // From S3.
        lab.store(&format!("360p/{}.m4s", at - 1), "from S3").await;
        assert_eq!(lab.get(&format!("360p/{}.m4s", at - 1)).await, (200, "from S3".into()));
        // From another owner, of which S3 tells.
        let next = Packager::start_under(at).await;
        next.push("360p/live.m3u8", &playlist(at + 1));
        lab.owned_by(Some(&next.address), at, false).await;
        std::mem::replace(&mut owner, next).kill();
        lab.eventually("360p/live.m3u8", &playlist(at + 1)).await;
    }
}

/// DASH players go by it, and caches.
#[tokio::test]
async fn its_date_is_true_again_as_soon_as_its_clock_is() {
    let machine = Machine::start(prefix()).await;
    machine.lab.store("360p/7.m4s", "segment seven").await;
    for hours in [0, 1, 0, -1, 0] {
        machine.clock.steps_to(hours);
        for _ in 0..20 {
            assert_eq!(machine.hours_off("360p/7.m4s").await, hours);
        }
    }
}

#[tokio::test]
async fn a_link_opens_its_lecture_but_for_the_hour_by_which_the_clock_is_past_its_time() {
    let signed = prefix_of("algebra", "s-r1");
    let machine = Machine::start(signed.clone()).await;
    machine.lab.store("vod.m3u8", "#EXTM3U\n").await;
    let (usual, short) = (sign(&key(), &signed, now() + USUAL.as_secs()), sign(&key(), &signed, now() + HOUR as u64 / 2));
    for hours in [0, 1, 0, -1, 0] {
        machine.clock.steps_to(hours);
        let open = async |token: &str| machine.lab.get(&format!("vod.m3u8?token={token}")).await.0;
        assert_eq!((open(&usual).await, open(&short).await), (200, if hours > 0 { 403 } else { 200 }), "{hours} h");
    }
}
