//! Other people's clients against the state machines, by way of the example's server. Each test
//! says "skipped" and passes where its client is not installed.

#[path = "../examples/mem-server/server.rs"]
mod server;

use blockio::{Flags, Op};
use server::{Disk, serve};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

const SIZE: u64 = 16 << 20;

struct Server {
    disk: Arc<Disk>,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(block: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("nbd")).unwrap();
        let disk = Arc::new(Disk::new("vg/lv", SIZE, block));
        let shared = disk.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let disk = shared.clone();
                std::thread::spawn(move || match serve(socket.unwrap(), &disk) {
                    Ok(end) => eprintln!("server: {end}"),
                    Err(error) => eprintln!("server: {error}"),
                });
            }
        });
        Self { disk, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn uri(&self) -> String {
        format!("nbd+unix:///vg/lv?socket={}", self.path("nbd").display())
    }

    /// A file of random-looking bytes with a hole in the middle.
    fn sample(&self) -> PathBuf {
        let mut state = 0x9e37_79b9u32;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(SIZE as usize)
        .collect();
        bytes[5 << 20..9 << 20].fill(0);
        let path = self.path("sample");
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Is it there? Says so where it is not.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: {program} not installed");
    }
    found
}

/// Runs it, for a minute at most, and returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(args)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(
        status.success(),
        "{program} {args:?}: {status}\n{stdout}\n{stderr}"
    );
    stdout
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn nbdinfo_lists_and_maps() {
    if !have("nbdinfo") {
        return;
    }
    let server = Server::start(512);
    let list = format!("nbd+unix://?socket={}", server.path("nbd").display());
    let listed = run("nbdinfo", &["--list", &list]);
    assert!(
        listed.contains("export=\"vg/lv\"") && listed.contains("base:allocation"),
        "{listed}"
    );
    let json = run("nbdinfo", &["--json", &server.uri()]);
    for part in [
        "\"structured\": true",
        "\"export-size\": 16777216",
        "\"base:allocation\"",
        "\"can_multi_conn\": true",
        "\"can_fast_zero\": true",
        "\"can_df\": true",
        "\"can_cache\": true",
        "\"is_read_only\": false",
        "\"block_size_minimum\": 512",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
    let map = run("nbdinfo", &["--map", &server.uri()]);
    let words: Vec<_> = map.split_whitespace().collect();
    assert_eq!(words, ["0", "16777216", "3", "hole,zero"]);
    assert_eq!(
        run("nbdinfo", &["--size", &server.uri()]).trim(),
        "16777216"
    );
}

#[test]
fn nbdcopy_both_ways() {
    if !have("nbdcopy") {
        return;
    }
    for options in [
        &["--connections=4", "--requests=32"][..],
        &["--connections=1", "--request-size=4194304"],
        &["--synchronous"],
    ] {
        let server = Server::start(4096);
        let (sample, back, uri) = (server.sample(), server.path("back"), server.uri());
        let there = [options, &["--flush", sample.to_str().unwrap(), &uri]].concat();
        run("nbdcopy", &there);
        let here = [options, &[&uri, back.to_str().unwrap()]].concat();
        run("nbdcopy", &here);
        assert!(same(&sample, &back), "{options:?}");
        assert!(server.disk.seen(Op::Flush, Flags::empty()) > 0);
    }
}

#[test]
fn qemu_img_knows_and_converts() {
    if !have("qemu-img") {
        return;
    }
    let server = Server::start(512);
    let info = run("qemu-img", &["info", &server.uri()]);
    assert!(info.contains("16 MiB (16777216 bytes)"), "{info}");
    let (sample, back) = (server.sample(), server.path("back"));
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let convert = |options: &[&str], from: &str, to: &str| {
        run(
            "qemu-img",
            &[&["convert", "-f", "raw", "-O", "raw"], options, &[from, to]].concat(),
        );
    };
    convert(&["-n", "-W"], &file(&sample), &server.uri());
    convert(&[], &server.uri(), &file(&back));
    assert!(same(&sample, &back));
    run(
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            &file(&sample),
            &server.uri(),
        ],
    );
    let map = run(
        "qemu-img",
        &["map", "-f", "raw", "--output=json", &server.uri()],
    );
    let hole = "\"start\": 5242880, \"length\": 4194304, \"depth\": 0, \"present\": true, \"zero\": true, \"data\": false";
    let hole_without_present = hole.replace("\"present\": true, ", "");
    assert!(
        map.contains(hole) || map.contains(&hole_without_present),
        "{map}"
    );
}

#[test]
fn qemu_io_uses_every_command() {
    if !have("qemu-io") {
        return;
    }
    let server = Server::start(4096);
    let commands = [
        "write -P 0xaa 0 1M",
        "write -f -P 0xbb 1M 64k",
        "flush",
        "read -P 0xaa 0 1M",
        "read -P 0xbb 1M 64k",
        // Unaligned: the client reads, changes and writes whole blocks.
        "write -P 0xcc 512 512",
        "read -P 0xcc 512 512",
        "read -P 0xaa 1024 3072",
        "write -z 64k 64k",
        "read -P 0 64k 64k",
        "write -z -u 128k 64k",
        "write -z -f 192k 64k",
        "discard 512k 512k",
        "read -P 0 512k 512k",
        "read -P 0xaa 256k 256k",
        "read 0 16M",
    ];
    // By default it would make every write durable.
    let mut args = vec!["-t", "writeback", "-f", "raw"];
    for command in &commands {
        args.extend(["-c", command]);
    }
    let uri = server.uri();
    args.push(&uri);
    let said = run("qemu-io", &args);
    assert!(
        !said.contains("failed") && !said.contains("error"),
        "{said}"
    );
    let seen = |op, flags| server.disk.seen(op, flags) > 0;
    assert!(seen(Op::Write, Flags::FUA));
    assert!(seen(Op::WriteZeroes, Flags::NO_UNMAP));
    assert!(seen(Op::WriteZeroes, Flags::empty()));
    assert!(seen(Op::WriteZeroes, Flags::NO_UNMAP | Flags::FUA));
    assert!(seen(Op::Discard, Flags::empty()));
    assert!(seen(Op::Flush, Flags::empty()));
    let past_the_end = Command::new("qemu-io")
        .args(["-f", "raw", "-c", "write 16M 64k", &uri])
        .output()
        .unwrap();
    assert!(!past_the_end.status.success());
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have("fio") {
        return;
    }
    let engines = Command::new("fio").arg("--enghelp").output().unwrap();
    if !String::from_utf8_lossy(&engines.stdout).contains("nbd") {
        println!("skipped: fio's nbd engine not installed");
        return;
    }
    let server = Server::start(512);
    let uri = format!("--uri={}", server.uri());
    let aux = format!("--aux-path={}", server.folder.path().display());
    run(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-512k",
            "--iodepth=32",
            "--size=16M",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--fsync=16",
            "--randrepeat=1",
            // Its notes go into the server's folder, not here.
            &aux,
        ],
    );
    assert!(server.disk.seen(Op::Flush, Flags::empty()) > 0);
    assert!(server.disk.seen(Op::Read, Flags::empty()) > 0);
}
