"""Floods: what attackers cost, and what everybody else still gets. One command prints the table that stands in docs/reliability.md:

    python3 tests/floods/run.py target/release/eleven [CONNECTIONS | overload]

Attackers run in a process of their own; meanwhile a well-behaved client asks for a file, each time over a new connection,
and notes how long that takes. The memory is the most the server held at any time (VmHWM), which starts anew with each
flood, since each has a server of its own. Times depend on the machine; the table is read line by line, against its first.
"""
import asyncio
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

ELEVEN = os.path.abspath(sys.argv[1])
MANY = int(sys.argv[2]) if sys.argv[2:] and sys.argv[2].isdigit() else 4000
ONLY_OVERLOAD = "overload" in sys.argv
SECONDS = 8
# Descriptors that the server has without a connection, more or less.
OWN_DESCRIPTORS = 20
HEAD = b"GET /small.txt HTTP/1.1\r\nHost: a.example\r\n"


async def connect(port):
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        except OSError:
            await asyncio.sleep(0.05)


async def slow_head(port):
    """One octet a second of a head that never ends."""
    reader, writer = await connect(port)
    writer.write(HEAD + b"X: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(1)


async def slow_content(port):
    """One octet a second of content."""
    reader, writer = await connect(port)
    writer.write(b"PUT /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(1)


async def slow_reader(port):
    """Asks for a large file and does not read it."""
    reader, writer = await connect(port)
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.transport.pause_reading()
    writer.write(b"GET /large.bin HTTP/1.1\r\nHost: a.example\r\n\r\n")
    await asyncio.sleep(3600)


async def idle(port):
    """Connects and says nothing."""
    streams = await connect(port)
    await asyncio.sleep(3600)
    del streams


async def again_and_again(port, octets):
    """Sends this over and over, on as many connections as it takes."""
    while True:
        reader, writer = await connect(port)
        try:
            writer.write(octets)
            await writer.drain()
            while await reader.read(65536):
                pass
        except OSError:
            pass
        writer.close()


async def tiny_chunks(port):
    """Content in chunks of one octet."""
    head = b"POST /echo HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    await again_and_again(port, head + b"1\r\nx\r\n" * 20000 + b"0\r\n\r\n")


async def pipelined(port):
    """Requests without waiting for the answers, which are not read."""
    reader, writer = await connect(port)
    writer.transport.pause_reading()
    while True:
        writer.write((HEAD + b"\r\n") * 500)
        await writer.drain()


async def head_bomb(port):
    """Heads with more fields than may be."""
    await again_and_again(port, HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 200) for n in range(2000)) + b"\r\n")


async def not_http(port):
    """Octets that are no request."""
    await again_and_again(port, os.urandom(4000))


FLOODS = [
    ("nothing", "", None, 0, []),
    ("slow heads", "D01", slow_head, MANY, []),
    ("slow content", "D03", slow_content, MANY // 4, []),
    ("slow readers of a large file", "D04", slow_reader, MANY // 4, []),
    ("idle connections", "D05", idle, MANY, []),
    ("content in tiny chunks", "D18", tiny_chunks, 50, []),
    ("pipelined requests, answers not read", "D04", pipelined, 100, []),
    ("heads with 2,000 fields", "D11", head_bomb, 50, []),
    ("octets that are no HTTP", "", not_http, 50, []),
    ("descriptors run out (256 of them)", "D41", idle, 1000, ["descriptors"]),
    ("the disk of the access log is full", "F10", None, 0, ["full-log"]),
]


def attack(flood, count, port):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def all_of_them():
        await asyncio.gather(*(flood(port) for _ in range(count)), return_exceptions=True)

    asyncio.run(all_of_them())


def ask(port):
    """One request over a new connection; seconds, and whether it was answered as it should be."""
    started = time.monotonic()
    try:
        with socket.socket() as stream:
            stream.settimeout(5)
            # From another address than the attackers', whose ports the system would have to search for a free one.
            stream.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            stream.bind(("127.0.0.2", 0))
            stream.connect(("127.0.0.1", port))
            stream.sendall(HEAD + b"Connection: close\r\n\r\n")
            answer = b""
            while piece := stream.recv(65536):
                answer += piece
        return time.monotonic() - started, answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"x" * 1000)
    except OSError:
        return time.monotonic() - started, False


def value(path, name):
    return int(re.search(rf"{name}:\s+(\d+)", pathlib.Path(path).read_text()).group(1))


def held_by(server):
    return max(0, len(os.listdir(f"/proc/{server.pid}/fd")) - OWN_DESCRIPTORS)


def run(name, flood, count, options, folder):
    config = folder / "eleven.toml"
    log = "/dev/full" if "full-log" in options else "off"
    config.write_text(f"""
log.access = "{log}"
[[listener]]
address = "127.0.0.1:0"
[[site]]
root = "www"
[[site.route]]
path = "/upload"
echo = true
[[site.route]]
path = "/echo"
echo = true
""")
    limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))) if "descriptors" in options else None
    server = subprocess.Popen([ELEVEN, "serve", "--config", str(config)], stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    port = next(int(found.group(1)) for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
    drain = multiprocessing.Process(target=lambda: [None for _ in server.stderr])
    drain.start()
    attackers = multiprocessing.Process(target=attack, args=(flood, count, port)) if flood else None
    try:
        ask(port)
        if attackers:
            attackers.start()
            wanted = min(count, 150 if "descriptors" in options else count) * 9 // 10
            give_up = time.monotonic() + 60
            while held_by(server) < wanted and time.monotonic() < give_up:
                time.sleep(0.1)
            time.sleep(1)
        asked = []
        until = time.monotonic() + SECONDS
        held = 0
        while time.monotonic() < until:
            asked.append(ask(port))
            held = max(held, held_by(server))
            time.sleep(0.01)
        memory = value(f"/proc/{server.pid}/status", "VmHWM") / 1024
        assert server.poll() is None, f"{name}: the server ended"
    finally:
        if attackers:
            attackers.kill()
            attackers.join()
        server.send_signal(signal.SIGKILL)
        server.wait()
        drain.kill()
    times = sorted(seconds * 1000 for seconds, _ in asked)
    good = sum(ok for _, ok in asked)
    return held, memory, 100 * good / len(asked), times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]


# What the server behind can do: so many at once, each in so long.
SLOTS, WORK_SECONDS = 8, 0.1
OFFERED_A_SECOND = 10 * SLOTS / WORK_SECONDS
LIMITS = [("no limit", "working_max = 0"), ("`working_max = 8`", "working_max = 8")]


def work_behind(listener):
    """A server that works on so many requests at once; the others wait."""
    async def serve():
        slots = asyncio.Semaphore(SLOTS)

        async def talk(reader, writer):
            try:
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    async with slots:
                        await asyncio.sleep(WORK_SECONDS)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            except (OSError, asyncio.IncompleteReadError):
                writer.close()

        async with await asyncio.start_server(talk, sock=listener, backlog=4096) as server:
            await server.serve_forever()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve())


def offer(port, seconds, fates):
    """Requests at a fixed rate, whether those before were answered or not; what became of each."""
    async def one(idle, results):
        came = time.monotonic()
        reader, writer = idle.pop() if idle else await connect(port)
        try:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
            await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))
            results.append((int(head.split()[1]), time.monotonic() - came))
            idle.append((reader, writer))
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            results.append((0, time.monotonic() - came))
            writer.close()

    async def all_of_them():
        idle, results, tasks = [], [], set()
        began = time.monotonic()
        asked = 0
        while (now := time.monotonic() - began) < seconds:
            while asked < now * OFFERED_A_SECOND:
                task = asyncio.create_task(one(idle, results))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                asked += 1
            await asyncio.sleep(0.002)
        # Who has no answer by now waited too long for most people; he is not waited for here.
        fates.put((asked, results))

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(all_of_them())


def percentile(times, share):
    times = sorted(times)
    return 1000 * times[min(len(times) - 1, int(len(times) * share))] if times else 0


def overload(folder):
    print(OVERLOAD)
    print("| limit | asked a second | answered a second | median | p99 | refused a second | told within (p99) | no answer yet | a file meanwhile (p99) |\n|---|" + "---:|" * 8)
    for title, limit in LIMITS:
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        behind = multiprocessing.Process(target=work_behind, args=(listener,))
        behind.start()
        (folder / "eleven.toml").write_text(f"""
log.access = "off"
[[listener]]
address = "127.0.0.1:0"
[[site]]
root = "www"
[[site.route]]
path = "/slow"
{limit}
proxy = {{ upstream = "http://127.0.0.1:{listener.getsockname()[1]}" }}
""")
        server = subprocess.Popen([ELEVEN, "serve", "--config", str(folder / "eleven.toml")], stderr=subprocess.PIPE, text=True)
        port = next(int(found.group(1)) for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        fates = multiprocessing.Queue()
        seconds = 2 * SECONDS
        clients = multiprocessing.Process(target=offer, args=(port, seconds, fates))
        clients.start()
        files = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            files.append(ask(port)[0])
            time.sleep(0.02)
        asked, results = fates.get(timeout=60)
        clients.join()
        server.kill()
        server.wait()
        behind.kill()
        behind.join()
        good = [took for status, took in results if status == 200]
        refused = [took for status, took in results if status == 503]
        print(f"| {title} | {asked / seconds:,.0f} | {len(good) / seconds:,.0f} | {percentile(good, .5):,.0f} ms | {percentile(good, .99):,.0f} ms | {len(refused) / seconds:,.0f} | {percentile(refused, .99):,.1f} ms | {asked - len(good) - len(refused):,} | {percentile(files, .99):.1f} ms |", flush=True)


OVERLOAD = """## Overload

The same command goes on with a server behind a gateway that can do 80 requests a second (8 at once, 0.1 s each), and is asked for ten
times as many, at a fixed rate, for sixteen seconds:
"""


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "www").mkdir()
        (folder / "www/small.txt").write_text("x" * 1000)
        with open(folder / "www/large.bin", "wb") as large:
            large.truncate(1 << 30)
        print(INTRODUCTION)
        print("| flood | fault | attackers | connections held | memory at most | others answered | median | p99 |\n|---|---|---:|---:|---:|---:|---:|---:|")
        for title, fault, flood, count, options in [] if ONLY_OVERLOAD else FLOODS:
            held, memory, answered, median, p99 = run(title, flood, count, options, folder)
            print(f"| {title} | {fault} | {count:,} | {held:,} | {memory:.0f} MiB | {answered:.1f} % | {median:.1f} ms | {p99:.1f} ms |", flush=True)
        print()
        overload(folder)


INTRODUCTION = """## Floods

What floods cost the server, and the service that others still get meanwhile, by one command:

```sh
python3 tests/floods/run.py target/release/eleven
```

Attackers run in a process of their own; a client asks for a file of 1,000 octets, each time over a new connection, for eight
seconds. The memory is the most that the server held at any time. Attackers, client and server share the processors of one machine, so
the times say more about the machine than about the server: read each line against the first. The tests of these
faults stand in `crates/eleven/tests/floods.rs` and beside the code.
"""

main()
