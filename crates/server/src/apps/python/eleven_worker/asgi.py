"""The ASGI side (ASGI 3: http, websocket and lifespan): one event loop, many requests at once.

Requests come from the queue socket, small responses of one loop turn leave in one send. Content beyond the first
64 KiB of a response, request content that is still arriving, and WebSocket messages use one connection a
request, opened when it is first needed.
"""

import asyncio
import os
import stat
import sys
import traceback

from . import wire
from .wire import (
    ABORT,
    CANCEL,
    CONTENT,
    CONTENT_STREAM,
    CONTINUED,
    DONE,
    END,
    FAILED,
    FORCE,
    FRAME,
    HEAD_METHOD,
    HINTS,
    INLINE_BYTES_MAX,
    PIECE,
    QUEUE,
    REQUEST,
    RESPONSE,
    TRAILERS,
    WEBSOCKET,
    ClientGone,
)

# Messages taken from the queue in one turn of the loop.
MESSAGES_A_TURN = 32
EXTENSIONS = (
    "http.response.early_hint",
    "http.response.trailers",
    "http.response.pathsend",
    "http.response.zerocopysend",
)


class Outbox:
    """Frames for one server thread: those of one turn of the loop leave together."""

    __slots__ = ("loop", "connection", "parts", "rest", "scheduled", "broken")

    def __init__(self, loop, connection):
        self.loop = loop
        self.connection = connection
        self.parts = []
        self.rest = b""
        self.scheduled = False
        self.broken = False

    def put(self, data):
        self.parts.append(data)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.flush)

    def flush(self):
        self.scheduled = False
        if self.rest or self.broken or not self.parts:
            return
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self.send(data)

    def send(self, data):
        try:
            sent = self.connection.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.broken = True
            return
        if sent < len(data):
            if not self.rest:
                self.loop.add_writer(self.connection.fileno(), self.writable)
            self.rest = data[sent:]
        elif self.rest:
            self.rest = b""
            self.loop.remove_writer(self.connection.fileno())
            self.flush()

    def writable(self):
        self.send(self.rest)


class Channel:
    """The content connection of one request."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, side, thread, request):
        try:
            reader, writer = await asyncio.open_unix_connection(
                side.settings.sockets[thread], limit=2 * wire.PIECE_BYTES_MAX
            )
        except OSError as error:
            raise ClientGone("the client left") from error
        writer.write(
            wire.HELLO.pack(wire.HELLO_CONTENT, side.settings.token, side.settings.worker, request)
        )
        return cls(reader, writer)

    async def send(self, data, kind=wire.PIECE_DATA):
        """Sends `data`; returns when the server has taken most of it."""
        try:
            if len(data) <= wire.PIECE_BYTES_MAX or kind != wire.PIECE_DATA:
                self.writer.write(PIECE.pack(len(data), kind) + data)
            else:
                for at in range(0, len(data), wire.PIECE_BYTES_MAX):
                    part = data[at : at + wire.PIECE_BYTES_MAX]
                    self.writer.write(PIECE.pack(len(part), kind) + part)
                    await self.writer.drain()
            await self.writer.drain()
        except (OSError, RuntimeError) as error:
            raise ClientGone("the client left before the response was complete") from error

    async def send_file(self, descriptor, offset, length):
        """Hands an open file to the server. The ancillary data needs the socket itself, so all that was written
        before has to leave first."""
        transport = self.writer.transport
        transport.set_write_buffer_limits(high=0)
        await self.send(b"")
        payload = wire.FILE.pack(offset, length)
        message = PIECE.pack(len(payload), wire.PIECE_FILE) + payload
        copy = os.dup(self.writer.get_extra_info("socket").fileno())
        loop = asyncio.get_running_loop()
        try:
            import socket

            with socket.socket(fileno=copy) as connection:
                for _ in range(1000):
                    try:
                        socket.send_fds(connection, [message], [descriptor])
                        return
                    except BlockingIOError:
                        await wait_writable(loop, connection)
        except OSError as error:
            raise ClientGone("the client left before the response was complete") from error

    async def receive(self):
        """The next piece: kind and octets. `PIECE_ABORT` when the connection ends."""
        try:
            length, kind = PIECE.unpack(await self.reader.readexactly(PIECE.size))
            data = await self.reader.readexactly(length) if length else b""
            return kind, data
        except (asyncio.IncompleteReadError, OSError):
            return wire.PIECE_ABORT, b""

    async def end(self):
        """Says that the content is complete. The server has it all by now and may know that already."""
        try:
            await self.send(b"", wire.PIECE_END)
        except ClientGone:
            pass

    def close(self):
        self.writer.close()


async def wait_writable(loop, connection):
    ready = loop.create_future()
    loop.add_writer(connection.fileno(), lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(connection.fileno())


def check_octets(pairs):
    """Fields as the frame carries them."""
    text = b""
    count = 0
    for name, value in pairs:
        text += b"\0" + name + b"\0" + value
        count += 1
    if b"\n" in text or b"\r" in text:
        raise ValueError("a header field contains a line break")
    return text, count


class Exchange:
    """What HTTP and WebSocket exchanges share."""

    def __init__(self, side, request, thread, flags):
        self.side = side
        self.request = request
        self.thread = thread
        self.flags = flags
        self.put = side.outboxes[thread].put
        self.started = False
        self.ended = False
        self.gone = False
        self.channel = None
        self.waiting = None
        self.task = None

    async def open(self):
        if self.channel is None:
            self.channel = await Channel.open(self.side, self.thread, self.request)
        return self.channel

    def frame(self, kind, flags, payload=b"", count=0, head=0, length=-1):
        self.put(FRAME.pack(len(payload), self.request, kind, flags, count, head, length) + payload)

    def cancel(self, force):
        """The server tells that the client left, or that the time for the request is over."""
        self.gone = True
        self.wake()
        if force and self.task is not None:
            self.task.cancel()

    def wake(self):
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)

    async def wait(self):
        self.waiting = self.side.loop.create_future()
        try:
            await self.waiting
        finally:
            self.waiting = None

    def finish(self, error):
        """The application returned or raised: the last frame of this request."""
        text = ""
        if error is not None and not isinstance(error, ClientGone) and not (
            self.gone and isinstance(error, asyncio.CancelledError)
        ):
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            wire.report("eleven: the application raised in %s\n%s" % (self.name, text))
        elif error is None and not self.ended and not self.gone:
            missing = "completing its response" if self.started else "starting a response"
            text = "the application returned without " + missing
            wire.report("eleven: %s, in %s" % (text, self.name))
        if self.ended:
            self.frame(CONTENT, DONE)
        elif self.started:
            if self.channel is not None and not self.channel.writer.is_closing():
                self.channel.writer.write(PIECE.pack(0, wire.PIECE_ABORT))
            self.frame(CONTENT, ABORT | DONE)
        else:
            payload = text.encode("utf-8", "backslashreplace")[:INLINE_BYTES_MAX]
            self.frame(FAILED, DONE, payload if self.side.settings.development else b"")
        if self.channel is not None:
            self.channel.close()


class Http(Exchange):
    """One `http` scope."""

    def prepare(self, head, content):
        parts = head.split(b"\0")
        method, version, scheme, path, raw_path, query, root, client, client_port, server, server_port = parts[:11]
        method = method.decode("ascii")
        names = parts[11:]
        self.name = "%s %s" % (method, raw_path.decode("latin-1"))
        self.content = content
        self.read = False
        self.status = None
        self.inline = 0
        self.trailers_wanted = False
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": version.decode("ascii"),
            "method": method,
            "scheme": scheme.decode("ascii"),
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": root.decode("utf-8", "replace"),
            "headers": list(zip(names[::2], names[1::2])),
            "client": (client.decode("latin-1"), int(client_port)) if client else None,
            "server": (server.decode("latin-1"), int(server_port) if server_port else None),
            "state": self.side.state.copy(),
            "extensions": {name: {} for name in EXTENSIONS},
        }

    async def receive(self):
        if not self.read:
            if not self.flags & CONTENT_STREAM:
                self.read = True
                content, self.content = self.content, b""
                return {"type": "http.request", "body": content, "more_body": False}
            if not self.gone:
                return await self.receive_piece()
        while not self.ended and not self.gone:
            await self.wait()
        return {"type": "http.disconnect"}

    async def receive_piece(self):
        try:
            if self.content is not None:
                # Asked for the first time: the server sends 100 (Continue) only now.
                self.content = None
                channel = await self.open()
                await channel.send(b"", wire.PIECE_READ)
            while True:
                kind, data = await self.channel.receive()
                if kind == wire.PIECE_DATA:
                    return {"type": "http.request", "body": data, "more_body": True}
                if kind == wire.PIECE_END:
                    self.read = True
                    return {"type": "http.request", "body": b"", "more_body": False}
                if kind == wire.PIECE_ABORT:
                    break
        except ClientGone:
            pass
        self.read = self.gone = True
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.body":
            await self.send_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            if self.status is not None:
                raise RuntimeError("http.response.start was sent twice")
            text, self.count = check_octets(message.get("headers") or ())
            self.head = b"%d" % message["status"] + text
            self.status = message["status"]
            self.trailers_wanted = message.get("trailers", False)
        elif kind == "http.response.early_hint":
            if self.status is None and not self.gone:
                text, count = check_octets([(b"link", link) for link in message.get("links", ())])
                text = b"103" + text
                self.frame(HINTS, 0, text, count, len(text))
        elif kind == "http.response.trailers":
            await self.send_trailers(message)
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            await self.send_file(message)
        else:
            raise RuntimeError("unexpected message type %r in an http scope" % kind)

    def check_open(self, what):
        if self.status is None:
            raise RuntimeError("%s was sent before http.response.start" % what)
        if self.gone:
            raise ClientGone("the client left")

    def respond(self, flags, data=b"", length=-1):
        self.started = True
        size = len(self.head)
        self.put(
            FRAME.pack(size + len(data), self.request, RESPONSE, flags, self.count, size, length)
            + self.head
            + data
        )

    async def send_body(self, data, more):
        if self.ended:
            if self.gone or self.flags & HEAD_METHOD:
                return
            raise RuntimeError("http.response.body was sent after the response was complete")
        self.check_open("http.response.body")
        last = not more and not self.trailers_wanted
        flags = END if last else 0
        head_only = self.flags & HEAD_METHOD
        if not self.started:
            if head_only:
                self.ended = True
                self.respond(END, b"", len(data) if last else -1)
            elif len(data) <= INLINE_BYTES_MAX:
                self.inline = len(data)
                self.respond(flags, data, len(data) if last else -1)
            else:
                self.inline = -1
                self.respond(CONTINUED, b"", len(data) if last else -1)
                await (await self.open()).send(data)
                if last:
                    await self.channel.end()
        elif self.inline < 0:
            if data:
                await self.channel.send(data)
            if last:
                await self.channel.end()
        elif self.inline + len(data) <= INLINE_BYTES_MAX:
            self.inline += len(data)
            if data or flags:
                self.frame(CONTENT, flags, data)
            # Lets the loop send it and look for what arrived in the meantime.
            await asyncio.sleep(0)
        else:
            self.inline = -1
            self.frame(CONTENT, CONTINUED)
            await (await self.open()).send(data)
            if last:
                await self.channel.end()
        if last:
            self.ended = True
            self.wake()

    async def send_trailers(self, message):
        self.check_open("http.response.trailers")
        if not self.trailers_wanted:
            raise RuntimeError("http.response.trailers was sent but not announced in http.response.start")
        text, count = check_octets(message.get("headers") or ())
        more = message.get("more_trailers", False)
        if not self.started:
            self.respond(0)
        if self.inline < 0:
            await self.channel.send(text[1:], wire.PIECE_TRAILERS)
            if not more:
                await self.channel.end()
        else:
            self.frame(TRAILERS, 0 if more else END, text, count)
        if not more:
            self.ended = True
            self.wake()

    async def send_file(self, message):
        """`http.response.pathsend` and `http.response.zerocopysend`."""
        kind = message["type"]
        if self.ended and self.flags & HEAD_METHOD:
            return
        self.check_open(kind)
        if kind == "http.response.pathsend":
            descriptor = os.open(message["path"], os.O_RDONLY | os.O_CLOEXEC)
            owned, offset, more = True, 0, False
        else:
            descriptor = message["file"]
            descriptor = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            owned, offset, more = False, message.get("offset"), message.get("more_body", False)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("%s needs a regular file" % kind)
            if offset is None:
                offset = os.lseek(descriptor, 0, os.SEEK_CUR)
            length = message.get("count")
            if length is None:
                length = max(status.st_size - offset, 0)
            whole = not more and not self.started and not self.trailers_wanted
            if self.flags & HEAD_METHOD:
                self.ended = True
                self.respond(END, b"", length if whole else -1)
                return
            if not self.started:
                self.respond(CONTINUED, b"", length if whole else -1)
            elif self.inline >= 0:
                self.frame(CONTENT, CONTINUED)
            self.inline = -1
            await (await self.open()).send_file(descriptor, offset, length)
        finally:
            if owned:
                os.close(descriptor)
        if not more and not self.trailers_wanted:
            await self.channel.end()
            self.ended = True
            self.wake()


class WebSocket(Exchange):
    """One `websocket` scope. The server speaks RFC 6455 with the client; whole messages pass here."""

    def prepare(self, head, content):
        parts = head.split(b"\0")
        _, version, scheme, path, raw_path, query, root, client, client_port, server, server_port = parts[:11]
        names = parts[11:]
        headers = list(zip(names[::2], names[1::2]))
        self.name = "websocket %s" % raw_path.decode("latin-1")
        self.connected = False
        self.accepted = False
        self.denial = None
        protocols = []
        for name, value in headers:
            if name == b"sec-websocket-protocol":
                protocols += [part.strip() for part in value.decode("latin-1").split(",") if part.strip()]
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": version.decode("ascii"),
            "scheme": "wss" if scheme == b"https" else "ws",
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": root.decode("utf-8", "replace"),
            "headers": headers,
            "client": (client.decode("latin-1"), int(client_port)) if client else None,
            "server": (server.decode("latin-1"), int(server_port) if server_port else None),
            "subprotocols": protocols,
            "state": self.side.state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    async def receive(self):
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        while not self.accepted and not self.ended and not self.gone:
            await self.wait()
        if self.ended or self.gone or self.channel is None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        kind, data = await self.channel.receive()
        if kind == wire.PIECE_TEXT:
            return {"type": "websocket.receive", "text": data.decode("utf-8")}
        if kind == wire.PIECE_BINARY:
            return {"type": "websocket.receive", "bytes": data}
        self.gone = True
        code, reason = 1006, ""
        if kind == wire.PIECE_CLOSE:
            code, reason = int.from_bytes(data[:2], "big"), data[2:].decode("utf-8", "replace")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def send(self, message):
        kind = message["type"]
        if kind == "websocket.accept":
            if self.started:
                raise RuntimeError("websocket.accept was sent twice")
            headers = list(message.get("headers") or ())
            if message.get("subprotocol"):
                headers.append((b"sec-websocket-protocol", message["subprotocol"].encode("latin-1")))
            text, count = check_octets(headers)
            text = b"101" + text
            self.started = True
            await self.open()
            self.frame(RESPONSE, CONTINUED, text, count, len(text))
            self.accepted = True
            self.wake()
        elif kind == "websocket.send":
            if not self.accepted:
                raise RuntimeError("websocket.send was sent before websocket.accept")
            if self.gone or self.ended:
                raise ClientGone("the WebSocket is closed")
            if message.get("text") is not None:
                await self.channel.send(message["text"].encode("utf-8"), wire.PIECE_TEXT)
            else:
                await self.channel.send(bytes(message["bytes"]), wire.PIECE_BINARY)
        elif kind == "websocket.close":
            if self.ended:
                raise RuntimeError("websocket.close was sent twice")
            if self.accepted:
                if not self.gone:
                    code = message.get("code") or 1000
                    reason = (message.get("reason") or "").encode("utf-8")[:123]
                    try:
                        await self.channel.send(code.to_bytes(2, "big") + reason, wire.PIECE_CLOSE)
                    except ClientGone:
                        pass
            else:
                self.started = True
                self.frame(RESPONSE, END, b"403", 0, 3, 0)
            self.ended = True
            self.wake()
        elif kind == "websocket.http.response.start":
            text, count = check_octets(message.get("headers") or ())
            self.denial = b"%d" % message["status"] + text, count
        elif kind == "websocket.http.response.body":
            data, last = message.get("body", b""), not message.get("more_body", False)
            if not self.started:
                if self.denial is None:
                    raise RuntimeError("the body was sent before websocket.http.response.start")
                head, count = self.denial
                self.started = True
                self.frame(RESPONSE, END if last else 0, head + data, count, len(head))
            else:
                self.frame(CONTENT, END if last else 0, data)
            if last:
                self.ended = True
                self.wake()
        else:
            raise RuntimeError("unexpected message type %r in a websocket scope" % kind)


class Side:
    """One worker's event loop side."""

    def __init__(self, loop, queue, responders, application, settings):
        self.loop = loop
        self.queue = queue
        self.application = application
        self.settings = settings
        self.exchanges = {}
        self.state = {}
        self.buffer = bytearray(wire.MESSAGE_BYTES_MAX)
        self.drained = loop.create_future()
        for connection in responders:
            connection.setblocking(False)
        queue.setblocking(False)
        self.outboxes = [Outbox(loop, connection) for connection in responders]
        # Python 3.12 can run a task at once instead of in the next turn of the loop.
        self.eager = sys.version_info >= (3, 12)

    def readable(self):
        buffer = self.buffer
        for _ in range(MESSAGES_A_TURN):
            try:
                count = self.queue.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                count = 0
            if not count:
                self.loop.remove_reader(self.queue.fileno())
                if not self.drained.done():
                    self.drained.set_result(None)
                return
            at = 0
            while at < count:
                kind, thread, flags, _, request, head_size, content_size, _ = QUEUE.unpack_from(buffer, at)
                head_at = at + QUEUE.size
                content_at = head_at + head_size
                at = content_at + content_size
                if kind == REQUEST:
                    head = bytes(buffer[head_at:content_at])
                    content = bytes(buffer[content_at:at])
                    make = WebSocket if flags & WEBSOCKET else Http
                    self.begin(make(self, request, thread, flags), head, content)
                elif kind == CANCEL:
                    exchange = self.exchanges.get((thread, request))
                    if exchange is not None:
                        exchange.cancel(flags & FORCE)

    def begin(self, exchange, head, content):
        scope = exchange.prepare(head, content)
        key = exchange.thread, exchange.request
        self.exchanges[key] = exchange
        work = self.work(exchange, scope, key)
        if self.eager:
            exchange.task = asyncio.Task(work, loop=self.loop, eager_start=True)
        else:
            exchange.task = self.loop.create_task(work)

    async def work(self, exchange, scope, key):
        error = None
        try:
            await self.application(scope, exchange.receive, exchange.send)
        except BaseException as raised:
            error = raised
        self.exchanges.pop(key, None)
        exchange.finish(error)
        if not self.exchanges and self.drained.done():
            self.idle()

    def idle(self):
        if not self.finished.done():
            self.finished.set_result(None)

    async def serve(self, ready, broken):
        lifespan = Lifespan(self)
        problem = await lifespan.startup()
        if problem is not None:
            broken(problem)
            self.loop.add_reader(self.queue.fileno(), self.readable)
            await self.drained
            return
        ready()
        self.finished = self.loop.create_future()
        self.loop.add_reader(self.queue.fileno(), self.readable)
        await self.drained
        if self.exchanges:
            await self.finished
        for outbox in self.outboxes:
            outbox.flush()
            while outbox.rest and not outbox.broken:
                await asyncio.sleep(0.01)
        await lifespan.shutdown()


class Lifespan:
    """The `lifespan` scope: before the first request and after the last."""

    def __init__(self, side):
        self.side = side
        self.messages = asyncio.Queue()
        self.started = side.loop.create_future()
        self.stopped = side.loop.create_future()
        self.task = None

    async def receive(self):
        return await self.messages.get()

    async def send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self.settle(self.started, None)
        elif kind == "lifespan.startup.failed":
            self.settle(self.started, message.get("message") or "lifespan.startup.failed")
        elif kind == "lifespan.shutdown.complete":
            self.settle(self.stopped, None)
        elif kind == "lifespan.shutdown.failed":
            wire.report("eleven: lifespan.shutdown.failed: %s" % message.get("message", ""))
            self.settle(self.stopped, None)
        else:
            raise RuntimeError("unexpected message type %r in the lifespan scope" % kind)

    @staticmethod
    def settle(future, value):
        if not future.done():
            future.set_result(value)

    async def run(self):
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.side.state,
        }
        asked = False
        try:
            await self.side.application(scope, self.receive, self.send)
        except BaseException as error:
            asked = self.started.done()
            if asked:
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
                wire.report("eleven: the application raised in its lifespan\n" + text)
            # Raised before startup was answered: the application does not speak lifespan (ASGI specification).
        self.settle(self.started, None)
        self.settle(self.stopped, None)

    async def startup(self):
        """None, or why the application will not start."""
        self.messages.put_nowait({"type": "lifespan.startup"})
        self.task = self.side.loop.create_task(self.run())
        return await self.started

    async def shutdown(self):
        if self.task.done():
            return
        self.messages.put_nowait({"type": "lifespan.shutdown"})
        await self.stopped
        self.task.cancel()
        try:
            await self.task
        except BaseException:
            pass


def new_loop(choice):
    """uvloop's when it is installed and not refused, else asyncio's own."""
    if choice in ("auto", "uvloop"):
        try:
            import uvloop

            return uvloop.new_event_loop()
        except ImportError:
            if choice == "uvloop":
                raise
    return asyncio.new_event_loop()


def run(queue, responders, _shelf, application, settings, ready, broken):
    """Runs the event loop until the server has closed the queue and the last request is answered."""
    loop = new_loop(settings.event_loop)
    asyncio.set_event_loop(loop)
    side = Side(loop, queue, responders, application, settings)
    try:
        loop.run_until_complete(side.serve(ready, broken))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
