"""The WSGI side (PEP 3333): each thread takes one request from the queue socket, calls the application, sends
the response, and takes the next.

The common case costs one receive and one send: head and content come in one message, and a response whose
content is a list goes out in one frame. Larger or slower content gets a connection of its own, opened when it is
first needed, so that the kernel does the waiting.
"""

import io
import os
import stat
import sys
import threading
import traceback
from io import BytesIO
from socket import MSG_DONTWAIT

from . import wire
from .wire import (
    ABORT,
    MAY_HOLD,
    CONTENT,
    CONTENT_INLINE,
    CONTENT_STREAM,
    CONTINUED,
    DONE,
    END,
    FAILED,
    FRAME,
    HEAD_METHOD,
    HINTS,
    INLINE_BYTES_MAX,
    QUEUE,
    REQUEST,
    RESPONSE,
    USUAL,
    ClientGone,
)

END_DONE = END | DONE


class FileWrapper:
    """`wsgi.file_wrapper`: a file that the server may send by itself."""

    def __init__(self, filelike, block_size=65536):
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.block_size)
        if data:
            return data
        raise StopIteration


class RawInput(io.RawIOBase):
    """Request content as it arrives; `io.BufferedReader` makes `wsgi.input` of it."""

    def __init__(self, exchange):
        self._exchange = exchange
        self._rest = b""

    def readable(self):
        return True

    def readinto(self, target):
        data = self._rest or self._exchange.connection().receive()
        count = min(len(target), len(data))
        target[:count] = data[:count]
        self._rest = data[count:]
        return count


def head_of(status, headers):
    """Status and fields as the frame carries them."""
    if type(headers) is not list:
        raise TypeError("headers must be a list of (name, value) pairs, not %s" % type(headers).__name__)
    parts = [status]
    for name, value in headers:
        parts.append(name)
        parts.append(value)
    text = "\0".join(parts)
    if "\n" in text or "\r" in text:
        raise ValueError("status line or header field contains a line break")
    return text.encode("latin-1"), len(headers)


class Exchange:
    """One request and its response: what `start_response` and `write` need to know."""

    __slots__ = ("request", "send", "thread", "flags", "settings", "head", "count", "started", "inline", "content")

    def __init__(self, request, send, thread, flags, settings):
        self.request = request
        self.send = send
        self.thread = thread
        self.flags = flags
        self.settings = settings
        self.head = None
        self.started = False
        self.content = None

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head is not None:
            raise AssertionError("start_response was called again without exc_info")
        self.head, self.count = head_of(status, headers)
        return self.write

    def early_hints(self, headers):
        """`wsgi.early_hints`: sends a 103 response with these fields."""
        if self.started:
            return
        head, count = head_of("103", list(headers))
        self.send(FRAME.pack(len(head), self.request, HINTS, 0, count, len(head), -1) + head)

    def connection(self):
        if self.content is None:
            try:
                self.content = wire.ContentConnection(self.settings, self.thread, self.request)
            except OSError as error:
                raise ClientGone("the client left") from error
        return self.content

    def trailers(self):
        """`eleven.trailers`: the request's trailer fields, complete once the content was read to its end."""
        found = self.content.trailers if self.content else []
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in found]

    def respond(self, flags, data=b"", length=-1):
        """Sends the head, with `data` as the first (or only) content."""
        head = self.head
        if head is None:
            raise AssertionError("the application returned content without calling start_response")
        self.started = True
        self.inline = len(data)
        size = len(head)
        self.send(
            FRAME.pack(size + len(data), self.request, RESPONSE, flags, self.count, size, length) + head + data
        )

    def frame(self, kind, flags, data=b""):
        self.send(FRAME.pack(len(data), self.request, kind, flags, 0, 0, -1) + data)

    def write(self, data):
        if not isinstance(data, bytes):
            raise TypeError("content must be bytes, not %s" % type(data).__name__)
        if not self.started:
            if self.flags & HEAD_METHOD:
                self.respond(END)
            elif len(data) <= INLINE_BYTES_MAX:
                self.respond(0, data)
            else:
                self.respond(CONTINUED)
                self.connection().send(data)
                self.inline = -1
        elif self.flags & HEAD_METHOD or not data:
            pass
        elif self.inline < 0:
            self.content.send(data)
        elif self.inline + len(data) <= INLINE_BYTES_MAX:
            self.inline += len(data)
            self.frame(CONTENT, 0, data)
        else:
            self.inline = -1
            self.frame(CONTENT, CONTINUED)
            self.connection().send(data)

    def complete(self):
        """Says that all content was given. Returns flags that the last frame still has to carry."""
        if not self.started:
            self.respond(END, b"", 0)
            return 0
        if self.flags & HEAD_METHOD:
            return 0
        if self.inline < 0:
            self.content.finish()
            return 0
        return END

    def give_list(self, result):
        """All content is there: one frame if it is small. Returns whether it was sent with `END`."""
        data = result[0] if len(result) == 1 else b"".join(result)
        if not isinstance(data, bytes):
            raise TypeError("content must be bytes, not %s" % type(data).__name__)
        size = len(data)
        if self.flags & HEAD_METHOD:
            self.respond(END, b"", size)
        elif size <= INLINE_BYTES_MAX:
            self.respond(END, data, size)
        else:
            self.respond(CONTINUED, b"", size)
            self.inline = -1
            self.connection().send(data)
            self.content.finish()

    def give_file(self, wrapper):
        """Lets the server send the file. False if it is not one that it can send."""
        filelike = wrapper.filelike
        try:
            descriptor = filelike.fileno()
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or not isinstance(filelike.read(0), bytes):
                return False
            offset = filelike.tell()
        except (AttributeError, OSError, ValueError):
            return False
        length = max(status.st_size - offset, 0)
        if length <= INLINE_BYTES_MAX:
            return False
        if self.flags & HEAD_METHOD:
            self.respond(END, b"", length)
            return True
        self.respond(CONTINUED, b"", length)
        self.inline = -1
        self.connection().send_file(descriptor, offset, length)
        self.content.finish()
        return True

    def give(self, result):
        """Sends what the application returned. Returns flags for the last frame."""
        if not self.started:
            if type(result) is list or type(result) is tuple:
                self.give_list(result)
                return 0
            if type(result) is FileWrapper and self.head is not None and self.give_file(result):
                return 0
        for data in result:
            if data:
                self.write(data)
                if self.flags & HEAD_METHOD:
                    return 0
            elif not isinstance(data, bytes):
                raise TypeError("content must be bytes, not %s" % type(data).__name__)
        return self.complete()

    def fail(self, error, environ):
        """The application raised: one record in the log, and the frame that lets the server answer."""
        text = ""
        if not isinstance(error, ClientGone):
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            wire.report(
                "eleven: the application raised in %s %s\n%s"
                % (environ.get("REQUEST_METHOD"), ascii(environ.get("PATH_INFO"))[1:-1], text)
            )
        if self.content is not None and self.started:
            self.content.finish(wire.PIECE_ABORT)
        if self.started:
            self.frame(CONTENT, ABORT | DONE)
        elif self.settings.development:
            self.frame(FAILED, DONE, text.encode("utf-8", "backslashreplace")[:INLINE_BYTES_MAX])
        else:
            self.frame(FAILED, DONE)


def environ_base(settings):
    """What is the same in every request."""
    base = dict(settings.environ)
    base["wsgi.version"] = (1, 0)
    base["wsgi.errors"] = sys.stderr
    base["wsgi.multithread"] = settings.threads > 1
    base["wsgi.multiprocess"] = True
    base["wsgi.run_once"] = False
    base["wsgi.file_wrapper"] = FileWrapper
    base["wsgi.input_terminated"] = True
    return base


def with_places(base):
    """The same with a place for everything that the usual request sets: a copy of it then need not grow."""
    places = dict.fromkeys(wire.USUAL_VARIABLES, "")
    places.update(base)
    places["wsgi.early_hints"] = places["wsgi.input"] = None
    return places


def serve(queue, senders, shelf, application, settings, base):
    """Answers requests until the server closes the queue."""
    # The common request is a few microseconds: what is looked up here is not looked up each time.
    usual_base = with_places(base)
    unpack = QUEUE.unpack_from
    pack = FRAME.pack
    message_head_size = QUEUE.size
    buffer = bytearray(wire.MESSAGE_BYTES_MAX)
    receive = queue.recv_into
    if shelf is None:
        may_hold = 0
        begun = None
    else:
        may_hold = MAY_HOLD
        put = shelf.put
        begun = shelf.begun()
    is_holding = False
    at = count = 0
    while True:
        if at >= count:
            # The next packet.
            if is_holding:
                # What is on the shelf is sent before this thread really waits.
                try:
                    count = receive(buffer, 0, MSG_DONTWAIT)
                except BlockingIOError:
                    shelf.send()
                    is_holding = False
                    count = receive(buffer)
            else:
                count = receive(buffer)
            if not count:
                if is_holding:
                    shelf.send()
                return
            at = 0
        kind, thread, flags, _, request, head_size, content_size, turn = unpack(buffer, at)
        head_at = at + message_head_size
        content_at = head_at + head_size
        at = content_at + content_size
        if kind != REQUEST:
            continue
        if begun is not None:
            begun[0] = turn
        parts = buffer[head_at:content_at].decode("latin-1").split("\0")
        if flags & USUAL:
            environ = usual_base.copy()
            (
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                environ["REQUEST_URI"],
                environ["SERVER_PROTOCOL"],
                environ["SERVER_NAME"],
                environ["HTTP_HOST"],
                environ["SERVER_PORT"],
                environ["REMOTE_ADDR"],
                environ["REMOTE_PORT"],
                *parts,
            ) = parts
        else:
            environ = base.copy()
        if parts:
            parts = iter(parts)
            environ.update(zip(parts, parts))
        send = senders[thread]
        exchange = Exchange(request, send, thread, flags, settings)
        environ["wsgi.early_hints"] = exchange.early_hints
        if not flags & CONTENT_STREAM:
            environ["wsgi.input"] = BytesIO(buffer[content_at:at])
        else:
            environ["wsgi.input"] = io.BufferedReader(RawInput(exchange), 65536)
            environ["eleven.trailers"] = exchange.trailers
            if is_holding:
                # This one may take its time.
                shelf.send()
                is_holding = False
        try:
            result = application(environ, exchange.start_response)
            if type(result) is list and len(result) == 1 and not flags & HEAD_METHOD and not exchange.started:
                # The short way, the same as Exchange.give_list.
                data = result[0]
                head = exchange.head
                if type(data) is bytes and head is not None and len(data) <= INLINE_BYTES_MAX:
                    size = len(head)
                    octets = len(data)
                    frame = pack(size + octets, request, RESPONSE, END_DONE, exchange.count, size, octets) + head + data
                    if flags & may_hold:
                        is_holding = put(thread, frame)
                    else:
                        if is_holding:
                            shelf.send()
                            is_holding = False
                        send(frame)
                    continue
            if is_holding:
                shelf.send()
                is_holding = False
            last = DONE
            close = getattr(result, "close", None)
            try:
                last |= exchange.give(result)
                if close is not None and last & END and b"\0content-length\0" not in exchange.head.lower():
                    # Only this frame tells the client that the content is complete: it does not wait for close().
                    exchange.frame(CONTENT, END)
                    last = DONE
            finally:
                if close is not None:
                    close()
            exchange.frame(CONTENT, last)
        except BaseException as error:
            exchange.fail(error, environ)
        finally:
            if exchange.content is not None:
                exchange.content.close()
                exchange.content = None
            # Nothing of this request is kept while waiting for the next.
            exchange = environ = parts = result = close = data = head = frame = send = None


def run(queue, responders, shelf, application, settings, ready, broken):
    """Starts the threads, of which the main thread is one, and returns when the server has closed the queue."""
    base = environ_base(settings)
    if settings.threads == 1:
        senders = [connection.sendall for connection in responders]
    else:
        senders = [locked(connection.sendall) for connection in responders]

    def start(number):
        own = None if shelf is None else wire.Shelf(shelf, number, senders)
        serve(queue, senders, own, application, settings, base)

    ready()
    others = [
        threading.Thread(target=start, args=(number,), name="eleven-%d" % number)
        for number in range(1, settings.threads)
    ]
    for thread in others:
        thread.start()
    start(0)
    for thread in others:
        thread.join()


def locked(send):
    """Frames of several threads share a connection and must not interleave."""
    lock = threading.Lock()

    def send_locked(data):
        with lock:
            send(data)

    return send_locked
