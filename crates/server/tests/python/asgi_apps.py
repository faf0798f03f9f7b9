"""Small ASGI applications for test_worker.py."""

import asyncio
import tempfile

seen = []
stopped = []


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await websocket(scope, receive, send)
    else:
        await globals()["at_" + scope["path"].strip("/")](scope, receive, send)


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["from_lifespan"] = "kept"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def failing(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def no_lifespan(scope, receive, send):
    assert scope["type"] == "http", "only http here"
    await reply(send, b"fine")


async def reply(send, content, status=200, fields=()):
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})
    await send({"type": "http.response.body", "body": content})


async def body(receive):
    content = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return content, True
        content += message["body"]
        if not message["more_body"]:
            return content, False


async def at_(scope, receive, send):
    await reply(send, b"hello", fields=[(b"x-a", b"1")])


async def at_scope(scope, receive, send):
    names = ("method", "path", "raw_path", "query_string", "http_version", "client", "server", "scheme", "headers")
    await reply(send, repr([scope[name] for name in names] + [scope["state"]]).encode())


async def at_echo(scope, receive, send):
    content, gone = await body(receive)
    seen.append(gone)
    await reply(send, content)


async def at_stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(3):
        await send({"type": "http.response.body", "body": b"%d," % number, "more_body": True})
    await send({"type": "http.response.body"})


async def at_big(scope, receive, send):
    await reply(send, b"x" * 300000)


async def at_long(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(20):
        await send({"type": "http.response.body", "body": b"y" * 50000, "more_body": True})
    await send({"type": "http.response.body"})


async def at_waits(scope, receive, send):
    await body(receive)
    message = await receive()
    seen.append(message["type"])


async def at_seen(scope, receive, send):
    await reply(send, repr(seen).encode())


async def at_stuck(scope, receive, send):
    try:
        await asyncio.sleep(3600)
    finally:
        seen.append("cancelled")


async def at_hints(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await reply(send, b"after hints")


async def at_trailers(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"content"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")], "more_trailers": False})


async def at_path(scope, receive, send):
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"0123456789" * 20000)
        file.flush()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": file.name})


async def at_raises(scope, receive, send):
    raise RuntimeError("before the head")


async def at_raiseslate(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise RuntimeError("after the head")


async def at_nothing(scope, receive, send):
    pass


async def at_linebreak(scope, receive, send):
    await reply(send, b"", fields=[(b"x", b"a\r\nb: c")])


async def at_latedisconnect(scope, receive, send):
    await reply(send, b"done")
    seen.append((await receive())["type"])
    seen.append((await receive())["type"])


async def websocket(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/refuse":
        await send({"type": "websocket.close"})
        return
    if scope["path"] == "/deny":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]})
        await send({"type": "websocket.http.response.body", "body": b"denied"})
        return
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0] if scope["subprotocols"] else None})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            seen.append(message["code"])
            return
        if message.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"].upper()})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"][::-1]})


async def at_ticks(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"tick\n" * 100, "more_body": True})
            await asyncio.sleep(0.005)
    except OSError:
        message = await receive()
        if message["type"] == "http.request":
            message = await receive()
        seen.append("left: " + message["type"])
        raise
