//! A link that is as late as a long one, for `tests/bench/live`: what comes in at one end goes out at the other after so many
//! milliseconds, in both directions, however much of it is on its way.
//!
//! `late-link FROM-PORT TO-PORT MS` takes connections at 127.0.0.1; MS is the time of one direction. When it ends, the link is cut.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

/// Bytes taken at once.
const CHUNK: usize = 64 << 10;

/// Chunks on their way in one direction: what a fast link holds in some ten milliseconds.
const ON_THE_WAY: usize = 512;

fn main() -> io::Result<()> {
    let usage = || io::Error::other("late-link FROM-PORT TO-PORT MS");
    let numbers: Result<Vec<u16>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let numbers = numbers.map_err(|_| usage())?;
    let [from, to, ms] = numbers[..] else {
        return Err(usage());
    };
    let late = Duration::from_millis(ms.into());
    let listener = TcpListener::bind(("127.0.0.1", from))?;
    println!("ready");
    for near in listener.incoming() {
        let near = near?;
        // Nobody there: whoever has called is hung up on.
        let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else {
            continue;
        };
        for end in [&near, &far] {
            end.set_nodelay(true)?;
        }
        direction(near.try_clone()?, far.try_clone()?, late);
        direction(far, near, late);
    }
    Ok(())
}

/// Two threads: one that takes what comes, one that passes it on when its time has come.
fn direction(from: TcpStream, to: TcpStream, late: Duration) {
    let (sender, receiver) = sync_channel(ON_THE_WAY);
    thread::spawn(move || take(from, &sender, late));
    thread::spawn(move || pass(&receiver, to));
}

fn take(mut from: TcpStream, to: &SyncSender<(Instant, Vec<u8>)>, late: Duration) {
    loop {
        let mut chunk = vec![0; CHUNK];
        // An end and an error are the same here: nothing more comes.
        let Ok(length @ 1..) = from.read(&mut chunk) else {
            return;
        };
        chunk.truncate(length);
        if to.send((Instant::now() + late, chunk)).is_err() {
            return;
        }
    }
}

fn pass(from: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, chunk)) = from.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    // The other end hears of it; where it is gone already there is nobody to tell.
    let _gone = to.shutdown(Shutdown::Both);
}
