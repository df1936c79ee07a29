//! The peer: nginx with its RTMP module, from Debian, one worker, in a folder and on a port of its own.

use anyhow::{Context as _, Result, bail};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A running nginx. Dropping it ends it, and nothing else.
pub struct Nginx {
    child: Child,
    pub rtmp: SocketAddr,
}

impl Nginx {
    /// Starts it in `folder`, which is emptied.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::remove_dir_all(folder).ok();
        std::fs::create_dir_all(folder)?;
        let rtmp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let at = folder.display();
        let config = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
user root; daemon off; master_process off; pid {at}/pid; error_log {at}/error.log error;
events {{ worker_connections 8192; }}
rtmp {{ access_log off; server {{ listen {rtmp}; application live {{ live on; }} }} }}
"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
        let child = nginx.spawn().context("nginx cannot be started; scripts/install bench")?;
        let mut nginx = Self { child, rtmp };
        let begun = Instant::now();
        while TcpStream::connect(rtmp).is_err() {
            if begun.elapsed() > STARTS_WITHIN || nginx.child.try_wait()?.is_some() {
                bail!("nginx does not answer; see {at}/error.log");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(nginx)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
