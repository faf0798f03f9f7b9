"""`eleven get` against nginx, Apache and Python's http.server. Started by run.sh, which sees to it that they are there.

Each function named test_* is a test; it fails by raising. Whatever happens on the way, a file with the final name has
the content that the server has, octet by octet.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).parent.parent))
import common

ELEVEN = common.binary()
SECONDS_MAX = 120
LENGTH = 6 * 1024 * 1024 + 4321


def content(seed, length):
    return random.Random(seed).randbytes(length)


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="eleven-downloads-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(command, port, **options):
    """A server as a process; ready when it takes connections."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    try:
        until = time.monotonic() + SECONDS_MAX
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                break
            if process.poll() is not None:
                logs = [path.read_text()[-600:] for path in pathlib.Path(command[-1]).parent.glob("*.log")]
                raise OSError(f"{command[0]} ended: {process.stderr.read().decode()[-600:]} {logs}")
            assert time.monotonic() < until, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def started(make):
    """Another program may take the port between its choice and its use: then another one is chosen."""
    @contextlib.contextmanager
    def start(*args, **options):
        for attempt in range(5):
            port = common.free_port()
            command, more = make(port, *args, **options)
            server = running(command, port, **more)
            try:
                server.__enter__()
            except OSError:
                if attempt == 4:
                    raise
                continue
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                server.__exit__(None, None, None)
            return
    return start


@started
def nginx(port, root, work, more=""):
    text = f"""daemon off; worker_processes 1; pid {work}/pid; error_log {work}/error.log warn;
{"user root;" if os.getuid() == 0 else ""}
events {{ worker_connections 256; }}
http {{
  log_format plain '$status $body_bytes_sent "$http_range" "$http_if_range"'; access_log {work}/access.log plain;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5; types {{ text/plain txt; }}
  server {{ listen 127.0.0.1:{port}; location / {{ root {root}; {more} }} }}
}}"""
    (work / "nginx.conf").write_text(text)
    return ["nginx", "-c", str(work / "nginx.conf")], {}


@started
def apache(port, root, work, more=""):
    modules = pathlib.Path("/usr/lib/apache2/modules")
    wanted = ["mpm_event", "authz_core", "unixd", "mime", "deflate", "filter", "ratelimit", "env"]
    built_in = subprocess.run(["apache2", "-l"], capture_output=True, text=True).stdout
    loads = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in wanted
                      if (modules / f"mod_{name}.so").exists() and f"mod_{name}.c" not in built_in)
    text = f"""ServerRoot {work}
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {work}/apache.pid
ErrorLog {work}/apache.log
{loads}
{"User www-data" + chr(10) + "Group www-data" if os.getuid() == 0 else ""}
DocumentRoot {root}
<Directory {root}>
  Require all granted
  {more}
</Directory>
"""
    (work / "mime.types").write_text("text/plain txt\n")
    (work / "apache.conf").write_text(text)
    return ["apache2", "-DFOREGROUND", "-f", str(work / "apache.conf")], {}


@started
def python(port, root, _work):
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(root)], {}


def get(*args, code=0, **options):
    done = subprocess.run([ELEVEN, "get", *map(str, args)], capture_output=True, timeout=SECONDS_MAX, **options)
    assert done.returncode == code, f"{args} ended with {done.returncode}, not {code}: {done.stderr.decode()[-800:]}"
    return done


@contextlib.contextmanager
def place(serve, **options):
    with folder() as work:
        root, out = work / "root", work / "out"
        root.mkdir()
        out.mkdir()
        (root / "large.bin").write_bytes(content(1, LENGTH))
        # Old enough for a strong validator: a file that changed just now may change again within the same second.
        os.utime(root / "large.bin", (1_500_000_000, 1_500_000_000))
        (root / "empty.bin").write_bytes(b"")
        with serve(root, work, **options) as url:
            yield root, out, url, work


def whole(serve):
    with place(serve) as (root, out, url, _):
        expected = (root / "large.bin").read_bytes()
        digest = hashlib.sha256(expected).hexdigest()
        get("-q", "-o", "one", f"{url}/large.bin", cwd=out)
        get("-q", "--segments", "auto", "--sha256", digest, "-o", "auto", f"{url}/large.bin", cwd=out)
        get("-q", "--segments", "7", "-o", "seven", f"{url}/large.bin", cwd=out)
        get("-q", "-O", f"{url}/large.bin", f"{url}/empty.bin", cwd=out)
        assert get("-q", "-o", "-", f"{url}/large.bin").stdout == expected
        for name in ["one", "auto", "seven", "large.bin"]:
            assert (out / name).read_bytes() == expected, name
        assert (out / "empty.bin").read_bytes() == b""
        get("-q", "-o", "wrong", "--sha256", "0" * 64, f"{url}/large.bin", cwd=out, code=14)
        get("-q", "-o", "absent", f"{url}/absent", cwd=out, code=12)
        # What is finished is left as it is, and --continue finds nothing to do.
        get("-q", "-o", "one", f"{url}/large.bin", cwd=out, code=3)
        assert (out / "one").read_bytes() == expected
        names = sorted(path.name for path in out.iterdir() if not path.name.startswith("wrong."))
        assert names == ["auto", "empty.bin", "large.bin", "one", "seven"], names


def test_nginx_whole():
    whole(nginx)


def test_apache_whole():
    whole(apache)


def test_python_whole():
    whole(python)


def durable(out, name):
    """Octets that the journal of an unfinished download vouches for; nothing without one."""
    with contextlib.suppress(FileNotFoundError):
        best = 0
        for line in (out / f"{name}.eleven-journal").read_bytes().split(b"\n")[:-1]:
            check, _, text = line.partition(b" ")
            if hashlib.sha256(text).hexdigest()[:16].encode() != check:
                break
            best = sum(b - a for a, b in json.loads(text).get("done", [[0, best]]))
        return best
    return 0


def killed(serve, options, segments):
    """Kills a download without warning, again and again, and goes on: what was durable is not asked for again."""
    rng = random.Random(7)
    with place(serve, **options) as (root, out, url, work):
        expected = (root / "large.bin").read_bytes()
        command = [ELEVEN, "get", "-q", "-c", "--segments", segments, "-o", "x", f"{url}/large.bin"]
        sent = []
        for _ in range(6):
            before = durable(out, "x")
            process = subprocess.Popen(command, cwd=out)
            until = time.monotonic() + SECONDS_MAX
            # Killed at some moment after something became durable, or when it is done.
            while durable(out, "x") <= before and process.poll() is None:
                assert time.monotonic() < until, "nothing becomes durable"
                time.sleep(0.02)
            time.sleep(rng.random() * 0.3)
            process.send_signal(signal.SIGKILL)
            process.wait()
            sent.append((before, durable(out, "x")))
            if (out / "x").exists():
                break
            assert not (out / "x").exists()
        assert sent[0][1] > 0 or (out / "x").exists(), sent
        done = durable(out, "x")
        if not (out / "x").exists():
            log = work / "access.log"
            at = len(log.read_text().splitlines()) if log.exists() else 0
            get(*command[2:], cwd=out)
            if log.exists() and done:
                # nginx logs a response when it is over: the last run's are those behind `at`, and of the killed one.
                ranges = [re.search(r'"bytes=(\d+)-', line) for line in log.read_text().splitlines()[at:]]
                starts = [int(found.group(1)) for found in ranges if found]
                assert starts and (segments != "1" or max(starts) >= done), (done, starts)
        assert (out / "x").read_bytes() == expected
        assert [path.name for path in out.iterdir()] == ["x"]


def test_nginx_killed_and_continued():
    killed(nginx, {"more": "limit_rate 1m;"}, "1")


def test_nginx_segments_killed_and_continued():
    killed(nginx, {"more": "limit_rate 300k;"}, "3")


def test_apache_killed_and_continued():
    killed(apache, {"more": "SetOutputFilter RATE_LIMIT\n  SetEnv rate-limit 1000"}, "1")


def test_python_ignores_ranges():
    """A server without ranges: a part that is here is not trusted to be continued, and the file is right."""
    with place(python) as (root, out, url, _):
        expected = (root / "large.bin").read_bytes()
        process = subprocess.Popen(
            [ELEVEN, "get", "-q", "-c", "--limit-rate", "300K", "-o", "x", f"{url}/large.bin"], cwd=out)
        until = time.monotonic() + SECONDS_MAX
        while durable(out, "x") == 0 and process.poll() is None:
            assert time.monotonic() < until, "nothing becomes durable"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        said = get("-v", "-c", "--segments", "4", "-o", "x", f"{url}/large.bin", cwd=out).stderr.decode()
        assert "ignores ranges" in said, said[-500:]
        assert (out / "x").read_bytes() == expected


def changed(serve):
    """The file changes between two runs: never a mixture."""
    with place(serve) as (root, out, url, _):
        process = subprocess.Popen(
            [ELEVEN, "get", "-q", "-c", "--limit-rate", "300K", "-o", "x", f"{url}/large.bin"], cwd=out)
        until = time.monotonic() + SECONDS_MAX
        while durable(out, "x") == 0 and process.poll() is None:
            assert time.monotonic() < until, "nothing becomes durable"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        new = content(2, LENGTH)
        (root / "new.bin").write_bytes(new)
        os.utime(root / "new.bin", (1_600_000_000, 1_600_000_000))
        (root / "new.bin").rename(root / "large.bin")
        get("-q", "-c", "-o", "x", f"{url}/large.bin", cwd=out)
        assert (out / "x").read_bytes() == new


def test_nginx_changed():
    changed(nginx)


def test_apache_changed():
    changed(apache)


def test_full_disk():
    """A disk that fills up in the middle: what is here stays usable, and --continue goes on there (F11, F28)."""
    with place(nginx, more="limit_rate 4m;") as (root, out, url, work):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=52m", "tmpfs", str(out)], capture_output=True)
        if mounted.returncode:
            print("      a small file system cannot be mounted here: left out", flush=True)
            return
        try:
            # Longer than the room that is asked for ahead.
            expected = content(5, 1 << 20) * 44
            (root / "long.bin").write_bytes(expected)
            os.utime(root / "long.bin", (1_500_000_000, 1_500_000_000))
            command = [ELEVEN, "get", "-q", "-c", "-o", "x", f"{url}/long.bin"]
            process = subprocess.Popen(command, cwd=out, stderr=subprocess.PIPE)
            until = time.monotonic() + SECONDS_MAX
            while durable(out, "x") == 0 and process.poll() is None:
                assert time.monotonic() < until, "nothing becomes durable"
                time.sleep(0.02)
            with contextlib.suppress(OSError), open(out / "filler", "wb", buffering=0) as filler:
                while filler.write(bytes(1 << 16)):
                    pass
            said = process.communicate(timeout=SECONDS_MAX)[1].decode()
            if process.returncode == 0:
                print("      the disk filled up too late: left out", flush=True)
                return
            assert process.returncode == 15 and "--continue" in said, (process.returncode, said)
            (out / "filler").unlink()
            done = durable(out, "x")
            assert done > 0 and not (out / "x").exists()
            get(*command[2:], cwd=out)
            assert (out / "x").read_bytes() == expected
            # And what cannot fit is refused before it is fetched.
            said = get("-q", "-o", "y", f"{url}/long.bin", cwd=out, code=15).stderr.decode()
            assert "room" in said, said
            assert sorted(path.name for path in out.iterdir()) == ["x"]
        finally:
            subprocess.run(["umount", str(out)], check=True)


def small(serve, pipeline):
    with place(serve) as (root, out, url, work):
        names = [f"f{number:03}.bin" for number in range(300)]
        for number, name in enumerate(names):
            (root / name).write_bytes(content(number, number * 37 % 5000))
        (work / "list").write_text("".join(f"{url}/{name}\n" for name in names))
        get("-q", "-O", *pipeline, "--urls-from", work / "list", cwd=out)
        assert sorted(path.name for path in out.iterdir()) == names
        for name in names:
            assert (out / name).read_bytes() == (root / name).read_bytes(), name


def test_nginx_small():
    small(nginx, ["--parallel", "6"])
    small(nginx, ["--pipeline", "16"])


def test_apache_small():
    small(apache, ["--parallel", "6"])
    small(apache, ["--pipeline", "16"])


def test_python_small():
    # HTTP/1.0: every connection ends with its response, and there is nothing to pipeline.
    small(python, ["--parallel", "4"])
    small(python, ["--pipeline", "16"])


def test_codings():
    """Compressed content is decoded, and never taken for the file itself."""
    text = b"".join(b"%d some text\n" % number for number in range(50_000))
    for serve, options in [
        (nginx, {"more": "gzip on; gzip_types text/plain; gzip_min_length 1;"}),
        (apache, {"more": "SetOutputFilter DEFLATE"}),
    ]:
        with place(serve, **options) as (root, out, url, _):
            (root / "page.txt").write_bytes(text)
            get("-q", "--compressed", "-o", "decoded", f"{url}/page.txt", cwd=out)
            get("-q", "-o", "plain", f"{url}/page.txt", cwd=out)
            assert (out / "decoded").read_bytes() == text and (out / "plain").read_bytes() == text
            head = get("-I", "--compressed", f"{url}/page.txt").stdout.lower()
            assert b"content-encoding: gzip" in head, head


def test_memory():
    """16 MiB resident at most, however large the file: one stream, by many, proven, and many at a time."""
    with place(nginx) as (root, out, url, work):
        with open(root / "huge.bin", "wb") as file:
            for number in range(96):
                file.write(content(number, 1 << 20) if number < 3 else bytes(1 << 20))
        digest = hashlib.sha256((root / "huge.bin").read_bytes()).hexdigest()
        for number in range(12):
            os.link(root / "large.bin", root / f"many{number}.bin")
        (work / "list").write_text("".join(f"{url}/many{number}.bin\n" for number in range(12)))
        for name, options in [
            ("one", ["-o", "one", f"{url}/huge.bin"]),
            ("auto", ["--segments", "auto", "-o", "auto", f"{url}/huge.bin"]),
            ("sixteen", ["--segments", "16", "-o", "sixteen", f"{url}/huge.bin"]),
            ("proven", ["--sha256", digest, "-o", "proven", f"{url}/huge.bin"]),
            ("many", ["-O", "--parallel", "6", "--urls-from", str(work / "list")]),
        ]:
            script = ("import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
                      "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)")
            done = subprocess.run([sys.executable, "-c", script, ELEVEN, "get", "-q", *options], cwd=out,
                                  capture_output=True, timeout=SECONDS_MAX)
            assert done.returncode == 0, (name, done.stderr)
            peak = int(done.stdout) / 1024
            # A debug build maps its large text besides; its own memory is what counts there.
            most = 16 if "release" in ELEVEN else 40
            print(f"      {name}: {peak:.1f} MiB at most", flush=True)
            assert peak <= most, f"{name}: {peak:.1f} MiB"


common.main(globals())
