"""The frames between server and worker (docs/worker-protocol.md), and the per-request content connection of
the thread-based side. The numbers here and those in `apps/protocol.rs` are one table in two languages; a test on
the Rust side compares them.
"""

import mmap
import os
import socket
import struct
from time import monotonic

VERSION = 1

# Message on the queue socket, one or several in a packet: kind, thread, flags, reserved, request id, octets of head, octets
# of content, turn.
QUEUE = struct.Struct("<BBBBIIII")
REQUEST, CANCEL = 1, 2
CONTENT_INLINE, CONTENT_STREAM, HEAD_METHOD, WEBSOCKET, FORCE, MAY_HOLD, USUAL = 1, 2, 4, 8, 16, 32, 64
# With USUAL the head begins with the values of these variables, without their names.
USUAL_VARIABLES = (
    "REQUEST_METHOD",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "HTTP_HOST",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
)

# Frame on a response connection: octets after this, request id, kind, flags, number of fields, octets of
# head, length of the whole content (-1: not known).
FRAME = struct.Struct("<IIBBHIq")
RESPONSE, CONTENT, HINTS, TRAILERS, FAILED, READY, BROKEN, CHANGED = 1, 2, 3, 4, 5, 6, 7, 8
# The content is complete; the rest comes over the content connection; the content ends early; the worker's slot
# is free again. Each request has exactly one frame with DONE.
END, CONTINUED, ABORT, DONE = 1, 2, 4, 8

# First octets of every connection to the server: what it is, token, worker, request id.
HELLO = struct.Struct("<4s16sII")
HELLO_RESPONSES, HELLO_CONTENT = b"ELR1", b"ELC1"

# Frame on a content connection: octets after this, kind.
PIECE = struct.Struct("<IBxxx")
(
    PIECE_DATA,
    PIECE_END,
    PIECE_TRAILERS,
    PIECE_FILE,
    PIECE_ABORT,
    PIECE_READ,
    PIECE_TEXT,
    PIECE_BINARY,
    PIECE_CLOSE,
) = range(1, 10)
FILE = struct.Struct("<QQ")

# What stands at the beginning of each thread's part of the shelf: batch, octets that follow, server thread, turn of the
# request that was begun last; in the machine's order.
SHELF = struct.Struct("=IIII")
SHELF_HEAD_BYTES = SHELF.size
SHELF_BYTES = 65536
# A response waits no longer than this for others while the worker is awake; the server looks every few milliseconds.
SHELF_SECONDS_MAX = 0.0005

# Content of one response that may go over the shared response connection; the rest goes over a content
# connection of its own, where the kernel does the back-pressure.
INLINE_BYTES_MAX = 65536
# One message on the queue socket: field section, target and inline content.
MESSAGE_BYTES_MAX = 212992
PIECE_BYTES_MAX = 65536


class Settings:
    """What the server sends first: one JSON object."""

    def __init__(self, values):
        self.application = values["application"]
        self.interface = values.get("interface", "auto")
        self.factory = values.get("factory", False)
        self.directory = values.get("directory")
        self.python_path = values.get("python_path", [])
        self.threads = values.get("threads", 1)
        self.environ = values.get("environ", {})
        self.sockets = values["sockets"]
        self.token = bytes.fromhex(values["token"])
        self.worker = values["worker"]
        self.development = values.get("development", False)
        self.watch = values.get("watch", False)
        self.preload = values.get("preload", False)
        self.event_loop = values.get("event_loop", "auto")
        self.start_timeout_ms = values.get("start_timeout_ms", 60000)


def connect(settings, thread, hello, request=0, file=None):
    """A connection to the server's thread `thread`. `file` is a descriptor to hand over."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(settings.sockets[thread])
        message = HELLO.pack(hello, settings.token, settings.worker, request)
        if file is None:
            connection.sendall(message)
        else:
            socket.send_fds(connection, [message], [file])
    except BaseException:
        connection.close()
        raise
    return connection


def frame(request, kind, flags, payload=b"", fields=0, head=0, length=-1):
    """A whole frame for a response connection."""
    return FRAME.pack(len(payload), request, kind, flags, fields, head, length) + payload


def shelf_file(threads):
    """The file behind the shelves of so many threads; `None` where the system has no such files."""
    try:
        file = os.memfd_create("eleven-shelf", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        return None
    os.ftruncate(file, threads * SHELF_BYTES)
    return file


class Shelf:
    """Whole responses of one thread that wait for the next ones, to be sent with them in one call.

    They stand in memory that the server can look at, so that nothing is lost when the worker dies and nobody
    waits when the next request takes long: the server then takes them from here.
    """

    def __init__(self, file, number, senders):
        self._memory = mmap.mmap(file, SHELF_BYTES, offset=number * SHELF_BYTES)
        self._view = memoryview(self._memory)
        self._words = self._view[:SHELF_HEAD_BYTES].cast("I")
        self._senders = senders
        self._thread = 0
        self._end = SHELF_HEAD_BYTES
        self._since = 0.0

    def begun(self):
        """Where the turn of a request is to be put, at index 0, before it is begun."""
        return self._words[3:]

    def put(self, thread, frame):
        """Takes a frame. Returns whether the shelf is in use afterwards."""
        start = self._end
        end = start + len(frame)
        if start == SHELF_HEAD_BYTES or thread != self._thread or end > SHELF_BYTES:
            if start != SHELF_HEAD_BYTES:
                self.send()
                start = SHELF_HEAD_BYTES
                end = start + len(frame)
            if end > SHELF_BYTES:
                self._senders[thread](frame)
                return False
            words = self._words
            words[0] = (words[0] + 1) & 0xFFFFFFFF
            words[2] = self._thread = thread
            self._since = monotonic()
        elif monotonic() - self._since > SHELF_SECONDS_MAX:
            self.send()
            self._senders[thread](frame)
            return False
        self._memory[start:end] = frame
        self._end = end
        # Last of all: from here on the frame counts.
        self._words[1] = end - SHELF_HEAD_BYTES
        return True

    def send(self):
        """Sends what is there."""
        if self._end != SHELF_HEAD_BYTES:
            self._senders[self._thread](self._view[SHELF_HEAD_BYTES : self._end])
            self._end = SHELF_HEAD_BYTES
            self._words[1] = 0


class ClientGone(OSError):
    """The client left, or its request content ended early."""


class ContentConnection:
    """The connection that carries one request's content in and its response's content out, blocking."""

    def __init__(self, settings, thread, request):
        self._socket = connect(settings, thread, HELLO_CONTENT, request)
        self._asked = False
        self._buffer = bytearray()
        self._at = 0
        self.ended = False
        self.trailers = []

    def close(self):
        self._socket.close()

    # -- out -----------------------------------------------------------------------------------------

    def send(self, data):
        """Sends content. Blocks while the server will not take more."""
        try:
            if len(data) <= PIECE_BYTES_MAX:
                self._socket.sendall(PIECE.pack(len(data), PIECE_DATA) + data)
                return
            view = memoryview(data)
            for at in range(0, len(view), PIECE_BYTES_MAX):
                part = view[at : at + PIECE_BYTES_MAX]
                self._socket.sendall(PIECE.pack(len(part), PIECE_DATA))
                self._socket.sendall(part)
        except OSError as error:
            raise ClientGone("the client left before the response was complete") from error

    def send_file(self, descriptor, offset, length):
        """Hands an open file to the server, which sends it from the kernel."""
        payload = FILE.pack(offset, length)
        message = PIECE.pack(len(payload), PIECE_FILE) + payload
        try:
            socket.send_fds(self._socket, [message], [descriptor])
        except OSError as error:
            raise ClientGone("the client left before the response was complete") from error

    def finish(self, kind=PIECE_END, payload=b""):
        try:
            self._socket.sendall(PIECE.pack(len(payload), kind) + payload)
        except OSError:
            pass

    # -- in ------------------------------------------------------------------------------------------

    def _fill(self, octets):
        """Makes at least `octets` octets available in the buffer."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        while len(self._buffer) < octets:
            data = self._socket.recv(PIECE_BYTES_MAX + PIECE.size)
            if not data:
                raise ClientGone("the request content ended early")
            self._buffer += data

    def receive(self):
        """The next piece of request content; `b""` at its end."""
        if self.ended:
            return b""
        if not self._asked:
            self._asked = True
            self.finish(PIECE_READ)
        while True:
            if len(self._buffer) - self._at < PIECE.size:
                self._fill(PIECE.size)
            length, kind = PIECE.unpack_from(self._buffer, self._at)
            if len(self._buffer) - self._at < PIECE.size + length:
                self._fill(PIECE.size + length)
            start = self._at + PIECE.size
            data = bytes(self._buffer[start : start + length])
            self._at = start + length
            if kind == PIECE_DATA:
                if data:
                    return data
            elif kind == PIECE_TRAILERS:
                self.trailers = pairs(data)
            elif kind == PIECE_END:
                self.ended = True
                return b""
            else:
                raise ClientGone("the request content ended early")


def pairs(data):
    """Name, value, name, value... separated by NUL, as a list of pairs of octet strings."""
    if not data:
        return []
    parts = data.split(b"\0")
    return list(zip(parts[::2], parts[1::2]))


def report(text):
    """Writes one record to standard error in one call, so that records of several workers do not mix."""
    if not text.endswith("\n"):
        text += "\n"
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        pass
