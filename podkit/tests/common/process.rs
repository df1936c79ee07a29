//! A pod as a process of its own, on addresses that nobody else has.
//!
//! Shared by path with the tests of other crates.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// An address to listen on. All of 127.0.0.0/8 is this machine (RFC 1122 §3.2.1.3), so each process of tests has one of its own there; the ports are
/// below those that the kernel gives away.
pub fn address() -> SocketAddr {
    static PORTS: AtomicU16 = AtomicU16::new(20_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 | high, middle, low), PORTS.fetch_add(1, Ordering::Relaxed)).into()
}

/// Starts `command`, killed when dropped, and waits until it says at `health` that it is ready.
pub async fn ready(mut command: Command, health: SocketAddr) -> Child {
    let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let since = Instant::now();
    loop {
        let said = readyz(health).await;
        if matches!(&said, Ok(said) if said.starts_with("HTTP/1.0 200") || said.starts_with("HTTP/1.1 200")) {
            return child;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && since.elapsed() < Duration::from_secs(60), "not ready: {said:?}, {ended:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn readyz(health: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(health).await?;
    socket.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
