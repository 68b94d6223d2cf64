"""Writers whose blocks tell which write they are from, and a judge of what a copy may hold.

  history.py write SOCKET EXPORT LOG SIZE WRITER WRITERS SEED STOP   over NBD, one write after the other, until STOP exists
  history.py check IMAGE LOG... [--from T] [--to T]                  is this a moment of the order? T: monotonic nanoseconds

A block of 4 KiB holds writer, number and place of its write, and a checksum. A log has a line for each write: number, block, when
it was submitted, when it was acknowledged ("-": never). A writer waits for each acknowledgement, so its own writes have one order; between
writers, a write that was acknowledged before another was submitted comes first. An image is allowed if some moment of that order
has just these contents. With --from, everything acknowledged before that moment must be in it; with --to, nothing submitted later.
"""
import os, random, socket, struct, sys, time, zlib

BLOCK, HEAD = 4096, struct.Struct("<8sIQQ")


def content(writer, number, block):
    head = HEAD.pack(b"campaign", writer, number, block)
    body = (head * (BLOCK // len(head) + 1))[: BLOCK - 4]
    return body + struct.pack("<I", zlib.crc32(body))


def taken(sock, count):
    parts = b""
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        if not part:
            raise ConnectionError("closed")
        parts += part
    return parts


class Nbd:
    def __init__(self, path, export):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        if taken(self.sock, 18)[:16] != b"NBDMAGICIHAVEOPT":
            raise ConnectionError("not NBD")
        name = export.encode()
        body = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self.sock.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(body)) + body)
        while True:
            _, _, kind, length = struct.unpack(">QIII", taken(self.sock, 20))
            reply = taken(self.sock, length)
            if kind == 1:
                return
            if kind & 0x80000000:
                raise ConnectionError("refused")
            if kind == 3 and struct.unpack(">HQH", reply[:12])[0] == 0 and struct.unpack(">HQH", reply[:12])[2] & 2:
                raise ConnectionError("read-only")

    def ask(self, command, offset=0, length=0, payload=b""):
        self.sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, 1, offset, length) + payload)
        _, error, _ = struct.unpack(">IIQ", taken(self.sock, 16))
        if error:
            raise ConnectionError(f"error {error}")


def write(path, export, log, size, writer, writers, seed, stop):
    writer, writers = int(writer), int(writers)
    number = sum(1 for _ in open(log)) if os.path.exists(log) else 0
    rng = random.Random(f"{seed}/{writer}/{number}")
    mine = range(writer, int(size) // BLOCK, writers)
    out, nbd = open(log, "a", buffering=1), None
    while not os.path.exists(stop):
        try:
            nbd = nbd or Nbd(path, export)
            if rng.random() < 0.05:
                nbd.ask(3)
        except OSError:
            nbd = None
            time.sleep(0.05)
            continue
        number += 1
        # Some blocks again and again, some now and then.
        block = mine[rng.randrange(min(32, len(mine)) if rng.random() < 0.5 else len(mine))]
        began, done = time.monotonic_ns(), "-"
        try:
            nbd.ask(1, block * BLOCK, BLOCK, content(writer, number, block))
            done = time.monotonic_ns()
        except OSError:
            nbd = None
        out.write(f"{number} {block} {began} {done}\n")
        time.sleep(rng.random() * 0.004)


def check(image, logs, since, until):
    data, faults = open(image, "rb").read(), []
    logs = [[tuple(line.split()) for line in open(log)] for log in logs]
    held = {}  # block -> number of its write
    for block in range(len(data) // BLOCK):
        bytes_ = data[block * BLOCK : (block + 1) * BLOCK]
        if not any(bytes_):
            continue
        magic, writer, number, place = HEAD.unpack_from(bytes_)
        if magic != b"campaign" or bytes_ != content(writer, number, block) or block % len(logs) != writer:
            faults.append(f"block {block} holds what nobody wrote there ({magic!r} {writer} {number} {place})")
        else:
            held[block] = number
    last_in, first_out = 0, None
    for writer, log in enumerate(logs):
        newest = max((number for block, number in held.items() if block % len(logs) == writer), default=0)
        may = {}  # block -> writes of which one must be there
        for number, block, began, done in log:
            number, block, began = int(number), int(block), int(began)
            if number <= newest:
                if done != "-":
                    may[block] = {number}
                    last_in = max(last_in, began)
                else:
                    may.setdefault(block, {0}).add(number)
                    if held.get(block, 0) == number:
                        last_in = max(last_in, began)
            elif done != "-":
                first_out = min(first_out or int(done), int(done))
        for block, allowed in may.items():
            if held.get(block, 0) not in allowed:
                faults.append(f"writer {writer} is at {newest}, but block {block} is from {held.get(block, 0)}, not {sorted(allowed)}")
    if first_out is not None and first_out < last_in:
        faults.append(f"a write is there that was submitted {(last_in - first_out) / 1e6:.1f} ms after one that is not was acknowledged")
    if since and first_out is not None and first_out < since:
        faults.append(f"a write is missing that was acknowledged {(since - first_out) / 1e6:.1f} ms before the moment")
    if until and last_in > until:
        faults.append(f"a write is there that was submitted {(last_in - until) / 1e6:.1f} ms after the moment")
    for fault in faults[:10]:
        print(f"{os.path.basename(image)}: {fault}")
    writes = sum(len(log) for log in logs)
    print(f"{writes} writes so far, {len(held)} blocks hold one: {'NOT ALLOWED' if faults else 'allowed'}")
    return 1 if faults else 0


def main(verb, *words):
    if verb == "write":
        write(*words)
        return 0
    times = {"--from": 0, "--to": 0}
    words = list(words)
    for name in times:
        if name in words:
            at = words.index(name)
            times[name] = int(words[at + 1])
            del words[at : at + 2]
    return check(words[0], words[1:], times["--from"], times["--to"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
