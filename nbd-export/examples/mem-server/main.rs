//! A small NBD server that keeps everything in memory: the two state machines with blocking
//! sockets around them. `mem-server [--size BYTES] [--block BYTES] unix:PATH|tcp:ADDR:PORT`.

mod server;

use server::{Disk, serve};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mem-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let (mut size, mut block) = (64 << 20, 512);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--size" => size = value()?.parse()?,
            "--block" => block = value()?.parse()?,
            _ => {
                let disk = Arc::new(Disk::new("mem", size, block));
                return match arg.split_once(':') {
                    Some(("unix", path)) => accept_unix(&UnixListener::bind(path)?, &disk),
                    Some(("tcp", addr)) => accept_tcp(&TcpListener::bind(addr)?, &disk),
                    _ => Err(format!("{arg}: neither unix:PATH nor tcp:ADDR:PORT").into()),
                };
            }
        }
    }
    Err("where? unix:PATH or tcp:ADDR:PORT".into())
}

fn accept_unix(
    listener: &UnixListener,
    disk: &Arc<Disk>,
) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let (socket, _) = listener.accept()?;
        spawn(socket, disk);
    }
}

fn accept_tcp(listener: &TcpListener, disk: &Arc<Disk>) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        spawn(socket, disk);
    }
}

fn spawn(socket: impl std::io::Read + std::io::Write + Send + 'static, disk: &Arc<Disk>) {
    let disk = disk.clone();
    std::thread::spawn(move || match serve(socket, &disk) {
        Ok(end) => eprintln!("mem-server: {end}"),
        Err(error) => eprintln!("mem-server: {error}"),
    });
}
