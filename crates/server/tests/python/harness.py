"""Plays the server's part of docs/worker-protocol.md against a real worker process, for the tests beside it."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(HERE, "..", "..", "src", "apps", "python")
sys.path.insert(0, PACKAGE)

from eleven_worker import wire  # noqa: E402

TIMEOUT_S = 20


class Reader:
    """Exact reads from a stream socket."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""

    def exactly(self, count):
        while len(self.buffer) < count:
            data, descriptors, _, _ = socket.recv_fds(self.connection, 65536, 4)
            self.descriptors = descriptors or getattr(self, "descriptors", [])
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def rest(self):
        """Everything up to the end of the connection."""
        data = self.buffer
        while True:
            part = self.connection.recv(65536)
            if not part:
                return data
            data += part

    def frame(self):
        size, request, kind, flags, count, head, length = wire.FRAME.unpack(self.exactly(wire.FRAME.size))
        payload = self.exactly(size)
        return Frame(request, kind, flags, count, payload[:head], payload[head:], length)

    def piece(self):
        size, kind = wire.PIECE.unpack(self.exactly(wire.PIECE.size))
        return kind, self.exactly(size)


class Frame:
    def __init__(self, request, kind, flags, count, head, content, length):
        self.request, self.kind, self.flags, self.count = request, kind, flags, count
        self.head, self.content, self.length = head, content, length

    @property
    def status(self):
        return self.head.split(b"\0")[0].decode()

    @property
    def fields(self):
        parts = self.head.split(b"\0")[1:]
        assert len(parts) == 2 * self.count
        return [(parts[i].decode("latin-1"), parts[i + 1].decode("latin-1")) for i in range(0, len(parts), 2)]

    def __repr__(self):
        return "Frame(%s)" % self.__dict__


class Worker:
    """A worker process, and the server's end of its sockets."""

    def __init__(self, application, **settings):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "0")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.settimeout(TIMEOUT_S)
        self.queue, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.token = secrets.token_bytes(16)
        self.shelf = None
        self.errors = open(os.path.join(self.folder.name, "stderr"), "w+b")
        self.process = subprocess.Popen([sys.executable, PACKAGE], stdin=theirs, stderr=self.errors)
        values = {
            "application": application,
            "directory": HERE,
            "sockets": [self.path],
            "token": self.token.hex(),
            "worker": 7,
            "environ": {
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "8000",
                "SERVER_SOFTWARE": "eleven",
                "SCRIPT_NAME": "",
                "wsgi.url_scheme": "http",
            },
        }
        values.update(settings)
        self.queue.send(json.dumps(values).encode())
        hello, self.responses = self.accept()
        assert hello == (wire.HELLO_RESPONSES, self.token, 7, 0), hello
        self.responses = Reader(self.responses)
        self.first = self.responses.frame()
        self.number = 0

    def accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(TIMEOUT_S)
        data = b""
        while len(data) < wire.HELLO.size:
            part, descriptors, _, _ = socket.recv_fds(connection, wire.HELLO.size - len(data), 1)
            data += part
            for descriptor in descriptors:
                self.shelf = open(descriptor, "rb", buffering=0)
        return wire.HELLO.unpack(data), connection

    def shelved(self, part=0):
        """The frames that stand on the shelf of a thread."""
        start = part * wire.SHELF_BYTES
        _, octets, thread, _ = wire.SHELF.unpack(os.pread(self.shelf.fileno(), wire.SHELF.size, start))
        assert thread == 0
        return os.pread(self.shelf.fileno(), octets, start + wire.SHELF.size)

    def channel(self):
        """The content connection the worker now opens."""
        (magic, token, worker, request), connection = self.accept()
        assert (magic, token, worker) == (wire.HELLO_CONTENT, self.token, 7)
        return request, Reader(connection)

    def send(self, head, content=b"", flags=wire.CONTENT_INLINE):
        self.number += 1
        self.queue.send(self.message(head, content, flags))
        return self.number

    def message(self, head, content=b"", flags=wire.CONTENT_INLINE):
        """The message of the request with the next number, which is also its turn."""
        fixed = wire.QUEUE.pack(wire.REQUEST, 0, flags, 0, self.number, len(head), len(content), self.number)
        return fixed + head + content

    def cancel(self, number, flags=0):
        self.queue.send(wire.QUEUE.pack(wire.CANCEL, 0, flags, 0, number, 0, 0, 0))

    def begun(self):
        """The turn of the request that the first thread has begun last."""
        return wire.SHELF.unpack(os.pread(self.shelf.fileno(), wire.SHELF.size, 0))[3]

    def wsgi(self, path="/", content=b"", method="GET", flags=wire.CONTENT_INLINE, **more):
        if method == "HEAD":
            flags |= wire.HEAD_METHOD
        return self.send(self.wsgi_head(path, content, method, **more), content, flags)

    def wsgi_head(self, path="/", content=b"", method="GET", **more):
        """Names and values of all variables."""
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost:8000",
        }
        if content:
            environ["CONTENT_LENGTH"] = str(len(content))
        environ.update(more)
        return "\0".join(part for pair in environ.items() for part in pair).encode("latin-1")

    def asgi(self, path="/", content=b"", method="GET", flags=wire.CONTENT_INLINE, query="", fields=(), raw_path=None):
        parts = [method, "1.1", "http", path, raw_path or path, query, "", "127.0.0.1", "4711", "localhost", "8000"]
        for pair in [("host", "localhost:8000"), *fields]:
            parts += pair
        if method == "HEAD":
            flags |= wire.HEAD_METHOD
        return self.send("\0".join(parts).encode("latin-1"), content, flags)

    def frame(self):
        return self.responses.frame()

    def whole(self, number):
        """All frames of one request up to DONE, as (first frame, content, flags of all)."""
        frames = []
        while not frames or not frames[-1].flags & wire.DONE:
            frames.append(self.frame())
            assert frames[-1].request == number, frames[-1]
        return frames[0], b"".join(frame.content for frame in frames), [frame.flags for frame in frames]

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self):
        """Closes the queue, which asks the worker to end; returns its exit code."""
        self.theirs.close()
        self.queue.close()
        try:
            return self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            self.listener.close()
            if self.shelf:
                self.shelf.close()
            self.errors.close()
            self.folder.cleanup()
