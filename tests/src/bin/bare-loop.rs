//! The limit that `tests/bench/run` holds a full sync against: a file goes to another one over a TCP connection of this machine, with
//! nothing else around it. Either as a feed moves payload (`splice`: `sendfile` into the socket, `splice` out of it), or as
//! programs with buffers do (`copy`: read, send, receive, write). What both cost says how much a machine's memory lets the first
//! save: where cold memory is the bottleneck, little.
//!
//! `bare-loop splice|copy FROM TO`; the target is durable when it ends.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::{io, thread};

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;

/// Bytes of one step: what a pipe takes at once, and what stays in a core's cache between two copies.
const CHUNK: usize = 256 << 10;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, from, to] = arguments.as_slice() else {
        return Err(io::Error::other("bare-loop splice|copy FROM TO"));
    };
    let in_kernel = match how.as_str() {
        "splice" => true,
        "copy" => false,
        other => return Err(io::Error::other(format!("no such way: {other}"))),
    };
    let source = File::open(from)?;
    let size = source.metadata()?.len();
    let target = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)?;
    target.set_len(size)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let out = TcpStream::connect(listener.local_addr()?)?;
    let (into, _) = listener.accept()?;
    thread::scope(|scope| {
        let sink = scope.spawn(move || receive(in_kernel, &into, &target, size));
        send(in_kernel, &source, out, size)?;
        sink.join()
            .map_err(|_| io::Error::other("the receiving thread panicked"))?
    })
}

/// Sends all of `source`; the stream ends with it.
fn send(in_kernel: bool, source: &File, mut out: TcpStream, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0u64;
    while at < size {
        let want = CHUNK.min(usize::try_from(size - at).unwrap_or(CHUNK));
        at += if in_kernel {
            let mut offset = i64::try_from(at).map_err(io::Error::other)?;
            sendfile64(&out, source, Some(&mut offset), want)? as u64
        } else {
            let n = source.read_at(&mut buffer[..want], at)?;
            out.write_all(&buffer[..n])?;
            n as u64
        };
    }
    Ok(())
}

/// Writes what comes to `target` until it has `size` bytes, then makes it durable.
fn receive(in_kernel: bool, mut into: &TcpStream, target: &File, size: u64) -> io::Result<()> {
    let (pipe_out, pipe_in) = nix::unistd::pipe()?;
    let pipe_size = i32::try_from(CHUNK).map_err(io::Error::other)?;
    fcntl(&pipe_in, FcntlArg::F_SETPIPE_SZ(pipe_size))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0u64;
    while at < size {
        if in_kernel {
            let mut left = splice(
                into,
                None,
                &pipe_in,
                None,
                CHUNK,
                SpliceFFlags::SPLICE_F_MOVE,
            )?;
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while left > 0 {
                let mut offset = i64::try_from(at).map_err(io::Error::other)?;
                let n = splice(
                    &pipe_out,
                    None,
                    target,
                    Some(&mut offset),
                    left,
                    SpliceFFlags::SPLICE_F_MOVE,
                )?;
                left -= n;
                at += n as u64;
            }
        } else {
            let n = into.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            target.write_all_at(&buffer[..n], at)?;
            at += n as u64;
        }
    }
    target.sync_data()
}
