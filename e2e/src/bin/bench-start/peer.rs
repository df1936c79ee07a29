//! nginx with its RTMP module and HLS, from Debian, in a folder and on ports of its own.

use anyhow::{Context as _, Result};
use lectern_e2e::settings::free_port;
use lectern_e2e::wait::{Look, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// A running nginx. Dropping it ends it, and nothing else.
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    rtmp: u16,
    http: u16,
}

impl Nginx {
    /// Starts it in `folder`, which is emptied; `page` is the folder of the player page.
    pub async fn start(folder: &Path, page: &Path) -> Result<Self> {
        std::fs::remove_dir_all(folder).ok();
        std::fs::create_dir_all(folder.join("hls"))?;
        let (rtmp, http) = (free_port()?, free_port()?);
        let (at, page) = (folder.display(), page.display());
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
user root; daemon off; master_process off; pid {at}/pid; error_log {at}/error.log info;
events {{}}
rtmp {{ server {{ listen 127.0.0.1:{rtmp}; application live {{ live on; hls on; hls_path {at}/hls; hls_fragment 2s; hls_playlist_length 20s; }} }} }}
http {{
  types {{ text/html html; text/javascript js; application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}
  access_log off; client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3; uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;
  server {{ listen 127.0.0.1:{http}; location / {{ root {page}; }} location /hls/ {{ root {at}; add_header Cache-Control no-store; }} }}
}}
"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
        let child = nginx.spawn().context("nginx cannot be started; apt-get install nginx libnginx-mod-rtmp")?;
        let nginx = Self { child, folder: folder.to_owned(), rtmp, http };
        eventually("nginx answers", Duration::from_secs(20), async || {
            let answer = reqwest::get(format!("http://127.0.0.1:{http}/page.html")).await?;
            Ok(if answer.status().is_success() { Look::Found(()) } else { Look::NotYet(answer.status().to_string()) })
        })
        .await?;
        Ok(nginx)
    }

    pub fn rtmp(&self) -> String {
        format!("rtmp://127.0.0.1:{}/live", self.rtmp)
    }

    pub fn page(&self, stream: &str) -> String {
        format!("http://127.0.0.1:{}/page.html?src=/hls/{stream}.m3u8", self.http)
    }

    pub fn playlist(&self, stream: &str) -> PathBuf {
        self.folder.join("hls").join(format!("{stream}.m3u8"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
