//! Real clients, each for what it does best.

use super::rig::{MIB, Rig, have, run, sample, try_run};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn copy_both_ways(rig: &Rig, options: &[&str]) {
    let there = rig.path("there");
    let back = rig.path("back");
    let bytes = sample(1);
    fs::write(&there, &bytes).expect("write");
    let uri = rig.uri();
    let to = [options, &["--flush", there.to_str().expect("utf8"), &uri]].concat();
    run("nbdcopy", &to);
    let from = [options, &[&uri, back.to_str().expect("utf8")]].concat();
    run("nbdcopy", &from);
    assert!(fs::read(&back).expect("read") == bytes, "{options:?}");
    assert!(rig.plexes_equal() == bytes, "what is on the disks");
}

#[test]
fn nbdcopy_copies_both_ways() {
    if !have("nbdcopy") {
        return;
    }
    for (plexes, columns) in [(1, 1), (2, 1), (2, 2)] {
        let rig = Rig::new(plexes, columns);
        copy_both_ways(&rig, &["--connections=4", "--requests=32"]);
        copy_both_ways(&rig, &["--synchronous"]);
        copy_both_ways(&rig, &["--connections=1", "--request-size=4194304"]);
    }
}

#[test]
fn a_small_pool_only_makes_it_slower() {
    if !have("nbdcopy") {
        return;
    }
    let rig = Rig::with(2, 1, |spec| spec.pool_bytes = 512 << 10);
    copy_both_ways(&rig, &["--connections=8", "--requests=64"]);
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have("fio") || !run("fio", &["--enghelp"]).contains("nbd") {
        println!("skipped: fio's nbd engine not installed");
        return;
    }
    let rig = Rig::new(1, 1);
    fio(&rig, &[]);
    let rig = Rig::new(2, 2);
    fio(
        &rig,
        &["--numjobs=2", "--size=16M", "--offset_increment=16M"],
    );
    rig.plexes_equal();
}

fn fio(rig: &Rig, more: &[&str]) {
    let uri = format!("--uri={}", rig.uri());
    let aux = format!("--aux-path={}", rig.folder.path().display());
    let mut args = vec![
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        &aux,
        "--rw=randwrite",
        "--bsrange=4k-512k",
        "--iodepth=32",
        "--size=32M",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        "--fsync=16",
        "--randrepeat=1",
    ];
    args.extend_from_slice(more);
    run("fio", &args);
}

#[test]
fn qemu_io_zeroes_discards_and_flushes() {
    if !have("qemu-io") {
        return;
    }
    for plexes in [1, 2] {
        let rig = Rig::new(plexes, 1);
        let commands = [
            "write -P 0xaa 0 1M",
            "write -f -P 0xbb 1M 64k",
            "flush",
            "write -P 0xcc 512 512",
            "read -P 0xcc 512 512",
            "read -P 0xaa 1024 3072",
            "write -z 64k 64k",
            "read -P 0 64k 64k",
            "write -z -u 128k 64k",
            "write -z -f 192k 64k",
            "discard 512k 512k",
            "read -P 0xaa 256k 256k",
            "read -P 0 128k 128k",
            "read -P 0xbb 1M 64k",
            "read 0 32M",
        ];
        let uri = rig.uri();
        let mut args = vec!["-t", "writeback", "-f", "raw"];
        for command in &commands {
            args.extend(["-c", command]);
        }
        args.push(&uri);
        let said = run("qemu-io", &args);
        assert!(!said.contains("failed") && !said.contains("rror"), "{said}");
        let bytes = rig.plexes_equal();
        assert_eq!((bytes[0], bytes[512], bytes[64 << 10]), (0xaa, 0xcc, 0));
        let (good, _) = try_run("qemu-io", &["-f", "raw", "-c", "write 32M 64k", &uri]);
        assert!(!good, "behind the end");
    }
}

#[test]
fn the_map_shows_holes() {
    if !have("nbdinfo") || !have("qemu-io") {
        return;
    }
    for columns in [1, 2] {
        let rig = Rig::new(1, columns);
        let uri = rig.uri();
        run(
            "qemu-io",
            &["-f", "raw", "-c", "write -P 1 4M 2M", "-c", "flush", &uri],
        );
        let map = run("nbdinfo", &["--map", "--totals", &uri]);
        let words: Vec<&str> = map.split_whitespace().collect();
        assert!(words.contains(&"2097152"), "{map}");
        assert!(words.contains(&"hole,zero"), "{map}");
    }
}

#[test]
fn what_was_written_is_there_after_a_stop() {
    if !have("nbdcopy") {
        return;
    }
    let mut rig = Rig::new(2, 2);
    copy_both_ways(&rig, &[]);
    rig.wait("clients gone", || rig.handle.opens() == 0);
    rig.stop();
    rig.restart();
    let back = rig.path("again");
    let uri = rig.uri();
    run("nbdcopy", &[&uri, back.to_str().expect("utf8")]);
    assert!(fs::read(&back).expect("read") == sample(1));
    assert!(rig.plexes_equal() == sample(1));
}

/// Connects and negotiates, then leaves the socket to the caller.
fn connect(rig: &Rig) -> UnixStream {
    let mut socket = UnixStream::connect(rig.path("nbd")).expect("connect");
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting).expect("greeting");
    let name = b"vg/lv";
    let mut hello = 3_u32.to_be_bytes().to_vec();
    hello.extend_from_slice(b"IHAVEOPT");
    hello.extend_from_slice(&1_u32.to_be_bytes());
    hello.extend_from_slice(&(name.len() as u32).to_be_bytes());
    hello.extend_from_slice(name);
    socket.write_all(&hello).expect("hello");
    let mut export = [0; 10];
    socket.read_exact(&mut export).expect("export");
    socket
}

fn header(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn a_client_that_takes_nothing_does_not_block_others() {
    if !have("qemu-io") {
        return;
    }
    let rig = Rig::with(1, 1, |spec| spec.pool_bytes = 2 << 20);
    let mut dead = connect(&rig);
    for cookie in 0..16 {
        dead.write_all(&header(0, cookie, 0, 1 << 20))
            .expect("read");
    }
    let mut half = connect(&rig);
    half.write_all(&header(1, 1, 8 * MIB, 256 << 10))
        .expect("write");
    half.write_all(&[5; 1000]).expect("part of the payload");
    rig.wait("both are there", || rig.handle.opens() == 2);
    let uri = rig.uri();
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 1 0 8M",
            "-c",
            "read -P 1 0 8M",
            &uri,
        ],
    );
    drop(half);
    rig.wait("the half one is gone", || rig.handle.opens() == 1);
    // The stop does not wait for the dead one for ever.
    rig.stop();
    assert_eq!(rig.plex(0)[8 * MIB as usize], 0, "half a write is no write");
}

#[test]
fn clients_that_sit_on_all_memory_are_cut_off() {
    if !have("qemu-io") {
        return;
    }
    let rig = Rig::with(1, 1, |spec| spec.pool_bytes = 512 << 10);
    let dead: Vec<UnixStream> = (0..4)
        .map(|_| {
            let mut client = connect(&rig);
            for cookie in 0..16 {
                client
                    .write_all(&header(0, cookie, 0, 1 << 20))
                    .expect("read");
            }
            client
        })
        .collect();
    rig.wait("they are there", || rig.handle.opens() == 4);
    let uri = rig.uri();
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 1 0 4M",
            "-c",
            "read -P 1 0 4M",
            &uri,
        ],
    );
    drop(dead);
}

#[test]
fn a_stop_answers_what_was_asked() {
    let rig = Rig::new(1, 1);
    let mut client = connect(&rig);
    rig.wait("connected", || rig.handle.opens() == 1);
    client.write_all(&header(1, 1, 0, 4096)).expect("write");
    client.write_all(&[7; 4096]).expect("payload");
    let mut answer = [0; 16];
    client.read_exact(&mut answer).expect("answer");
    assert_eq!((answer[7], answer[15]), (0, 1));
    client.write_all(&header(0, 2, 0, 4096)).expect("read");
    let mut answer = [0; 16 + 4096];
    client.read_exact(&mut answer).expect("answer");
    assert_eq!((answer[7], answer[15]), (0, 2));
    rig.stop();
    assert_eq!(client.read(&mut answer).expect("end"), 0);
    assert_eq!(rig.plex(0)[..4096], [7; 4096]);
}
