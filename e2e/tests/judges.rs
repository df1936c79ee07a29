//! The judges themselves, judged on files that ffmpeg made: what they say of the platform rests on this. Needs no cluster.
#![allow(clippy::unwrap_used)]

use lectern_e2e::browser::{Sample, Trouble};
use lectern_e2e::{Browser, Coding, Publisher, Shot, Sound, settings};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A lecture of 30 s as HLS in fMP4, 320 × 180 at 250 kbit/s, made twice lossy: by the publisher and by a transcoder.
fn coded_lecture(folder: &Path) {
    std::fs::remove_dir_all(folder).ok();
    std::fs::create_dir_all(folder).unwrap();
    let shot = Shot { frames: Some(900), coding: Coding::BFrames, hurry: true, sound: Sound::Steady, ..Shot::default() };
    let flv = folder.join("lecture.flv");
    let mut publisher = Publisher::start(folder, shot, &["-f", "flv", flv.to_str().unwrap()]).unwrap();
    assert!(publisher.wait(SOON).unwrap().success(), "{}", publisher.words());
    let ladder = "-map 0:v -map 0:v -map 0:a -c:v libx264 -preset veryfast -g 60 -keyint_min 60 -sc_threshold 0 -s:v:0 320x180 -b:v:0 250k -s:v:1 426x240 -b:v:1 300k \
                  -maxrate 250k -bufsize 250k -c:a aac -b:a 64k -f hls -hls_time 2 -hls_list_size 0 -hls_playlist_type vod -hls_segment_type fmp4";
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.current_dir(folder).args(["-hide_banner", "-loglevel", "error", "-i", "lecture.flv"]).args(ladder.split_whitespace());
    ffmpeg.args(["-var_stream_map", "v:0,agroup:a v:1,agroup:a a:0,agroup:a,default:yes", "-master_pl_name", "live.m3u8", "%v.m3u8"]);
    let made = ffmpeg.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Serves the driver's page and, under `/lecture/`, a folder.
async fn serve(folder: PathBuf) -> String {
    let page = tokio::task::spawn_blocking(lectern_e2e::browser::installed).await.unwrap().unwrap();
    let files = axum::Router::new().fallback(move |uri: http::Uri| {
        let path = uri.path().strip_prefix("/lecture/").map_or_else(|| page.join(&uri.path()[1..]), |name| folder.join(name));
        async move {
            let kind = match path.extension().and_then(|end| end.to_str()) {
                Some("html") => "text/html",
                Some("js") => "text/javascript",
                _ => "application/octet-stream",
            };
            std::fs::read(&path).map(|bytes| ([("content-type", kind)], bytes)).map_err(|_| http::StatusCode::NOT_FOUND)
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, files).into_future());
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_reads_every_counter_through_lossy_coding() {
    let out = settings::out_folder("judge-browser");
    let folder = out.join("lecture");
    let made = folder.clone();
    tokio::task::spawn_blocking(move || coded_lecture(&made)).await.unwrap();
    let at = serve(folder).await;

    let mut browser = Browser::start(&out).await.unwrap();
    browser.open(&format!("{at}/page.html?src=/lecture/live.m3u8"), None, SOON).await.unwrap();
    let first = browser.seek(0.0, SOON).await.unwrap();
    assert_eq!(first.counter, 0, "{first:?}");

    browser.playing(SOON).await.unwrap();
    let frame = browser.first_frame(SOON).await.unwrap();
    assert!(frame.counter.is_some() && frame.in_hand > 1.0, "{frame:?}");
    let sample = browser.sample(10).await.unwrap();
    assert_eq!(sample.complaints(&(0..900)), Vec::<String>::new());
    assert!((0.95..=1.05).contains(&sample.rate), "{}", sample.rate);
    let margin = sample.frames.iter().map(|frame| frame.margin).fold(127.0, f64::min);
    assert!(margin > 40.0, "the least clear cell was {margin} of 127 from undecided");
    assert!(!sample.complaints(&(0..10)).is_empty(), "pictures that nobody published are not noticed");

    // A page that is busy does not see what is shown meanwhile, but it was shown.
    let told_late = |sample: &Sample| sample.frames.windows(2).any(|pair| pair[1].at - pair[0].at >= 1000.0);
    let busy = browser.sample_while(4, Trouble::BusyPage).await.unwrap();
    assert!(told_late(&busy) && busy.longest_stall() < 900.0, "{} ms", busy.longest_stall());
    let paused = browser.sample_while(4, Trouble::Pause).await.unwrap();
    assert!(paused.longest_stall() > 900.0, "{} ms", paused.longest_stall());
    assert!(paused.longest_wait() < 900.0, "a player that was paused is taken for one without media: {:?}", paused.frames);

    let heard = browser.sound(SOON).await.unwrap();
    assert!((heard.hertz - 880.0).abs() < 30.0, "{heard:?}");
    let offered = browser.renditions().await.unwrap();
    assert_eq!(offered.video.len(), 2, "{offered:?}");
    for level in &offered.video {
        let shown = browser.select(level.index, SOON).await.unwrap();
        assert_eq!((shown.width, shown.height, shown.ordered, shown.unread), (level.width, level.height, true, 0), "{shown:?}");
    }
    let heard = browser.listen(&offered.audio[0].url, SOON).await.unwrap();
    assert!((heard.hertz - 880.0).abs() < 30.0, "{heard:?}");
    browser.screenshot("player").await.unwrap();
    browser.close().await.unwrap();
}
