"""Small WSGI applications for test_worker.py."""

import io
import os
import sys
import tempfile
import threading
from wsgiref.validate import validator

closed = []
barrier = threading.Barrier(2, timeout=15)


class Closing:
    def __init__(self, parts, name):
        self.parts, self.name = parts, name

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        closed.append(self.name)


def reply(start_response, content, status="200 OK", more=()):
    start_response(status, [("Content-Type", "text/plain"), *more])
    return [content]


def application(environ, start_response):
    return globals()["at_" + environ["PATH_INFO"].strip("/")](environ, start_response)


def at_(environ, start_response):
    return reply(start_response, b"hello")


def at_environ(environ, start_response):
    text = "\n".join("%s=%r" % pair for pair in sorted(environ.items()) if isinstance(pair[1], (str, bool, tuple)))
    return reply(start_response, text.encode("utf-8"))


def at_echo(environ, start_response):
    return reply(start_response, environ["wsgi.input"].read())


def at_lines(environ, start_response):
    lines = [environ["wsgi.input"].readline(3), environ["wsgi.input"].readline(), *environ["wsgi.input"]]
    return reply(start_response, repr(lines).encode())


def at_trailers(environ, start_response):
    content = environ["wsgi.input"].read()
    return reply(start_response, content + repr(environ["eleven.trailers"]()).encode())


def at_generator(environ, start_response):
    start_response("200 OK", [])
    yield b""
    yield b"one,"
    yield b"two"


def at_closing(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return Closing([b"abc", b"def"], "closing")


def at_closed(environ, start_response):
    return reply(start_response, ",".join(closed).encode())


def at_write(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return [b"and ", b"returned"]


def at_big(environ, start_response):
    return reply(start_response, b"x" * 300000)


def at_long(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing((b"y" * 50000 for _ in range(20)), "long")


def at_file(environ, start_response):
    file = tempfile.TemporaryFile()
    file.write(b"0123456789" * 20000)
    file.seek(7)
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](file)


def at_smallfile(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](io.BytesIO(b"not a real file"), 4)


def at_hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    return reply(start_response, b"after hints")


def at_raises(environ, start_response):
    raise RuntimeError("before the head, \N{SNOWMAN}")


def at_exits(environ, start_response):
    sys.exit(3)


def at_raiseslate(environ, start_response):
    start_response("200 OK", [])
    yield b"some"
    raise RuntimeError("after the head")


def at_excinfo(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise KeyError("x")
    except KeyError:
        start_response("500 Replaced", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def at_excinfolate(environ, start_response):
    start_response("200 OK", [])
    yield b"some"
    try:
        raise KeyError("too late")
    except KeyError:
        start_response("500 Replaced", [], sys.exc_info())
    yield b"never"


def at_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def at_str(environ, start_response):
    return reply(start_response, "text")


def at_strpart(environ, start_response):
    start_response("200 OK", [])
    yield "text"


def at_nostart(environ, start_response):
    return [b"no head"]


def at_none(environ, start_response):
    start_response("200 OK", [])
    return None


def at_linebreak(environ, start_response):
    return reply(start_response, b"", more=[("Location", "/a\r\nSet-Cookie: evil=1")])


def at_badheaders(environ, start_response):
    start_response("200 OK", {"a": "b"})
    return []


def at_bytesname(environ, start_response):
    return reply(start_response, b"", more=[(b"X", "1")])


def at_unicode(environ, start_response):
    return reply(start_response, b"", more=[("X", "\N{SNOWMAN}")])


def at_empty(environ, start_response):
    start_response("204 No Content", [])
    return []


def at_meet(environ, start_response):
    barrier.wait()
    return reply(start_response, b"met")


def at_crash(environ, start_response):
    os._exit(9)


def at_unread(environ, start_response):
    return reply(start_response, b"did not read")


validated = validator(application)


class Holder:
    nested = staticmethod(at_)


def make():
    return at_


def fails():
    raise ValueError("the factory failed")


not_callable = 5


def at_sleep(environ, start_response):
    import time

    time.sleep(float(environ["QUERY_STRING"]))
    return reply(start_response, b"slept")


def at_wait(environ, start_response):
    """Waits until the file exists that the query names."""
    import time

    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.01)
    return reply(start_response, b"waited")


def at_pid(environ, start_response):
    return reply(start_response, str(os.getpid()).encode())


def at_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"short"]


def at_shortstream(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"sho"
    yield b"rt"


def at_longstream(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    yield b"lo"
    yield b"ng and more"


def at_status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("%20", " "), [])
    return [b"content"]


def at_forever(environ, start_response):
    start_response("200 OK", [])
    while True:
        yield b"z" * 65536
