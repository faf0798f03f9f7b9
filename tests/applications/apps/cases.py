"""The application of compare.py, once as WSGI and once as ASGI: each path misbehaves, or watches, in its own way."""

import os
import time

EVENTS = []


def pieces(size):
    """Content of `size` octets, in parts."""
    while size > 0:
        yield b"x" * min(size, 65536)
        size -= 65536


class Watched:
    """A response that says how it ended."""

    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        for part in self.parts:
            yield part
            time.sleep(0.02)

    def close(self):
        EVENTS.append("closed")


def app(environ, start_response):
    path = environ["PATH_INFO"]

    def answer(content, status="200 OK", headers=None):
        if headers is None:
            headers = [("Content-Length", str(len(content)))]
        start_response(status, headers)
        return [content]

    if path == "/echo":
        return answer(environ["wsgi.input"].read())
    if path == "/length":
        return answer(environ.get("CONTENT_LENGTH", "none").encode())
    if path == "/trailers":
        environ["wsgi.input"].read()
        found = environ["eleven.trailers"]() if "eleven.trailers" in environ else []
        return answer(repr(found).encode())
    if path == "/refuse":
        return answer(b"no", "403 Forbidden")
    if path == "/host":
        return answer(environ.get("HTTP_HOST", "none").encode())
    if path == "/field":
        return answer(environ.get("HTTP_X_USER", "none").encode())
    if path == "/stream":
        start_response("200 OK", [])
        return iter([b"one,", b"two"])
    if path in ("/204", "/304"):
        return answer(b"content", "204 No Content" if path == "/204" else "304 Not Modified", [])
    if path == "/little":
        return answer(b"abc", headers=[("Content-Length", "10")])
    if path == "/much":
        return answer(b"abcdefghij", headers=[("Content-Length", "3")])
    if path == "/raise":
        raise RuntimeError("before the head")
    if path == "/raise-later":
        start_response("200 OK", [])
        return (part if part else 1 / 0 for part in (b"begun", b""))
    if path == "/inject":
        return answer(b"x", headers=[("Content-Length", "1"), ("X-A", "a\r\nX-B: b")])
    if path == "/hints":
        hints = environ.get("wsgi.early_hints")
        if hints:
            hints([("Link", "</a.css>; rel=preload")])
        return answer(b"x")
    if path == "/large":
        start_response("200 OK", [("Content-Length", str(8 << 20))])
        return pieces(8 << 20)
    if path == "/mebibyte":
        start_response("200 OK", [("Content-Length", str(1 << 20))])
        return pieces(1 << 20)
    if path == "/watched":
        del EVENTS[:]
        start_response("200 OK", [])
        return Watched([b"x" * 1000] * 500)
    if path == "/events":
        return answer(",".join(EVENTS).encode())
    if path == "/die":
        os.kill(os.getpid(), 9)
    if path == "/sleep":
        time.sleep(60)
    return answer(b"hello")


async def asgi(scope, receive, send):
    import asyncio

    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"]

    def field(name):
        found = [value for key, value in scope["headers"] if key == name]
        return b",".join(found) if found else b"none"

    async def content():
        found = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return found
            found += message.get("body", b"")
            if not message.get("more_body"):
                return found

    async def begin(headers, status=200):
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(data, more=False):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(data, status=200, headers=None):
        if headers is None:
            headers = [(b"content-length", b"%d" % len(data))]
        await begin(headers, status)
        await part(data)

    if path == "/echo":
        return await answer(await content())
    if path == "/length":
        return await answer(field(b"content-length"))
    if path == "/trailers":
        await content()
        return await answer(b"[]")
    if path == "/refuse":
        return await answer(b"no", 403)
    if path == "/host":
        return await answer(field(b"host"))
    if path == "/field":
        return await answer(field(b"x_user"))
    if path == "/stream":
        await begin([])
        await part(b"one,", True)
        return await part(b"two")
    if path in ("/204", "/304"):
        return await answer(b"content", int(path[1:]), [])
    if path == "/little":
        return await answer(b"abc", headers=[(b"content-length", b"10")])
    if path == "/much":
        return await answer(b"abcdefghij", headers=[(b"content-length", b"3")])
    if path == "/raise":
        raise RuntimeError("before the head")
    if path == "/raise-later":
        await begin([])
        await part(b"begun", True)
        raise RuntimeError("after the head")
    if path == "/inject":
        return await answer(b"x", headers=[(b"content-length", b"1"), (b"x-a", b"a\r\nx-b: b")])
    if path == "/hints":
        if "http.response.early_hint" in scope.get("extensions", {}):
            await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        return await answer(b"x")
    if path == "/large":
        await begin([(b"content-length", b"%d" % (8 << 20))])
        for data in pieces(8 << 20):
            await part(data, True)
        return await part(b"")
    if path == "/watched":
        del EVENTS[:]
        await begin([])

        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            EVENTS.append("closed")

        watching = asyncio.ensure_future(watch())
        try:
            for _ in range(500):
                if watching.done():
                    return
                await part(b"x" * 1000, True)
                await asyncio.sleep(0.02)
            return await part(b"")
        except OSError:
            EVENTS.append("closed")
            raise
        finally:
            watching.cancel()
    if path == "/events":
        return await answer(",".join(EVENTS[:1]).encode())
    if path == "/die":
        os.kill(os.getpid(), 9)
    if path == "/sleep":
        await asyncio.sleep(60)
    return await answer(b"hello")
