"""A bad network: proxy.py LISTEN-PORT PORT SEED, ruled by words on standard input.

Everything between the two ports is passed on, each piece after a delay at random (up to `delay MS`, at first 5), in order within a connection.
  cut           every connection is reset, new ones are taken
  down          every connection is reset, and new ones are refused until `up`: an address that has gone
  stall / up    nothing is passed on, nothing is reset: half-open
"""
import random, selectors, socket, struct, sys, time

listen_port, port, seed = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng, delay, stalled = random.Random(seed), 0.005, False
chosen = selectors.DefaultSelector()


class Way:
    """One direction of a connection."""

    def __init__(self, take, give):
        self.take, self.give, self.queue, self.size = take, give, [], 0


pairs = []  # (Way, Way)


def listener():
    sock = socket.create_server(("127.0.0.1", listen_port))
    sock.setblocking(False)
    chosen.register(sock, selectors.EVENT_READ, "listen")
    return sock


def reset(pair):
    pairs.remove(pair)
    for way in pair:
        if way.take in chosen.get_map():
            chosen.unregister(way.take)
        way.take.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        way.take.close()


def accept(sock):
    near, _ = sock.accept()
    try:
        far = socket.create_connection(("127.0.0.1", port), 2)
    except OSError:
        near.close()
        return
    for s in (near, far):
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pairs.append((Way(near, far), Way(far, near)))


def turn(pair):
    """Moves what is due; false where the connection has ended."""
    now = time.monotonic()
    for way in pair:
        try:
            while way.size < 1 << 20:
                data = way.take.recv(1 << 16)
                if not data:
                    return False
                way.size += len(data)
                way.queue.append([now + rng.random() * delay, data])
        except BlockingIOError:
            pass
        except OSError:
            return False
        while way.queue and way.queue[0][0] <= now:
            try:
                sent = way.give.send(way.queue[0][1])
            except BlockingIOError:
                break
            except OSError:
                return False
            way.size -= sent
            if sent < len(way.queue[0][1]):
                way.queue[0][1] = way.queue[0][1][sent:]
                break
            way.queue.pop(0)
    return True


door = listener()
sys.stdin = open(0, buffering=1)
chosen.register(sys.stdin, selectors.EVENT_READ, "word")
print("ready", flush=True)
while True:
    for key, _ in chosen.select(0.002):
        if key.data == "listen":
            accept(door)
        elif key.data == "word":
            words = sys.stdin.readline().split()
            if not words:
                sys.exit(0)
            if words[0] == "delay":
                delay = int(words[1]) / 1000
            if words[0] in ("cut", "down"):
                for pair in list(pairs):
                    reset(pair)
            if words[0] == "down" and door:
                chosen.unregister(door)
                door.close()
                door = None
            if words[0] == "up" and not door:
                door = listener()
            stalled = words[0] == "stall" or (stalled and words[0] not in ("up", "cut", "down"))
    if not stalled:
        for pair in list(pairs):
            if not turn(pair):
                reset(pair)
