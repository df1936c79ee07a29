//! A connection's bytes, plain or through TLS, read and written without waiting: the same code serves a socket of tokio's
//! while a peer sets itself up, and one of the pump's while it publishes.

use bytes::{Buf, BytesMut};
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// A socket that never waits.
pub(super) trait Socket {
    /// Reads what is there; `WouldBlock` where nothing is, zero at the end.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;
    /// Writes what fits; `WouldBlock` where nothing does.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl Socket for tokio::net::TcpStream {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, into)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}

impl Socket for mio::net::TcpStream {
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut socket = self;
        socket.read(into)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self;
        socket.write(bytes)
    }
}

/// A socket as rustls wants it.
struct Ciphertext<'a, S>(&'a S);

impl<S: Socket> Read for Ciphertext<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl<S: Socket> Write for Ciphertext<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What lies between a socket and its RTMP.
#[derive(Debug, Default)]
pub(super) struct Wire {
    tls: Option<Box<ServerConnection>>,
    /// Not written yet.
    out: BytesMut,
}

impl Wire {
    /// A wire without TLS, or with it under `config`.
    ///
    /// # Errors
    /// TLS cannot be set up: the configuration is unusable.
    pub(super) fn new(config: Option<Arc<ServerConfig>>) -> Result<Self, rustls::Error> {
        let tls = config.map(ServerConnection::new).transpose()?.map(Box::new);
        Ok(Self { tls, out: BytesMut::new() })
    }

    /// Whether a read that did not fill its buffer has emptied the socket.
    pub(super) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is; `InvalidData` where the peer's TLS is broken.
    pub(super) fn read(&mut self, socket: &impl Socket, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return socket.try_read(into) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many publishers close the socket without a word of TLS: that is an end as any.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if tls.read_tls(&mut Ciphertext(socket))? == 0 {
                return Ok(0);
            }
            let processed = tls.process_new_packets();
            // Answers of the handshake, or the alert that says what is wrong.
            while tls.wants_write() {
                match tls.write_tls(&mut Ciphertext(socket)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    written => drop(written?),
                }
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Queues bytes for the peer.
    pub(super) fn write(&mut self, bytes: &mut BytesMut) {
        self.out.unsplit(bytes.split());
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() + usize::from(self.tls.as_ref().is_some_and(|tls| tls.wants_write()))
    }

    /// Says that nothing follows, where TLS has a word for it.
    pub(super) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Writes what fits of what is queued. True if nothing is left.
    pub(super) fn flush(&mut self, socket: &impl Socket) -> io::Result<bool> {
        while self.waiting() > 0 {
            let written = match &mut self.tls {
                None => socket.try_write(&self.out).map(|count| self.out.advance(count)),
                Some(tls) => {
                    let count = tls.writer().write(&self.out)?;
                    self.out.advance(count);
                    if tls.wants_write() { tls.write_tls(&mut Ciphertext(socket)).map(drop) } else { Ok(()) }
                }
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                written => written?,
            }
        }
        if self.out.capacity() > 0 {
            self.out = BytesMut::new(); // a publisher is seldom answered: no buffer is kept for it
        }
        Ok(true)
    }
}
