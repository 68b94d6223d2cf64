//! The limit that `tests/bench/run` holds a full sync against: a file goes to another one over a TCP connection of this machine, with
//! nothing else around it. Either as a feed moves payload (`splice`: `sendfile` into the socket, `splice` out of it), or as
//! programs with buffers do (`copy`: read, send, receive, write). What both cost says how much a machine's memory lets the first
//! save: where cold memory is the bottleneck, little.
//!
//! Two processes: `bare-loop splice|copy receive TO SIZE ADDRESS:PORT`, which says `ready` and ends when the target has SIZE bytes, durably,
//! and `bare-loop splice|copy send FROM ADDRESS:PORT`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use nix::sys::sendfile::sendfile64;

/// Bytes of one step: what a pipe takes at once, and what stays in a core's cache between two copies.
const CHUNK: usize = 256 << 10;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let way = |how: &str| match how {
        "splice" => Ok(true),
        "copy" => Ok(false),
        other => Err(io::Error::other(format!("no such way: {other}"))),
    };
    match arguments.as_slice() {
        [how, "send", from, address] => {
            let source = File::open(from)?;
            send(way(how)?, &source, TcpStream::connect(address)?)
        }
        [how, "receive", to, size, address] => {
            let size = size.parse().map_err(io::Error::other)?;
            let target = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(to)?;
            target.set_len(size)?;
            let listener = TcpListener::bind(address)?;
            println!("ready");
            let (into, _) = listener.accept()?;
            receive(way(how)?, &into, &target, size)
        }
        _ => Err(io::Error::other(
            "bare-loop splice|copy send FROM ADDRESS:PORT, or receive TO SIZE ADDRESS:PORT",
        )),
    }
}

/// Sends all of `source`; the stream ends with it.
fn send(in_kernel: bool, source: &File, mut out: TcpStream) -> io::Result<()> {
    let size = source.metadata()?.len();
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
