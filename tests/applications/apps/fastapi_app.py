"""A FastAPI application: lifespan, JSON, uploads, streams, background work, files, WebSocket."""

import asyncio
import os
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, File, Form, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel

done = []


@asynccontextmanager
async def lifespan(app):
    app.state.started = True
    yield


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float


@app.get("/", response_class=PlainTextResponse)
async def index():
    return "Hello, world!"


@app.get("/info/{name}")
async def info(name: str, request: Request):
    return {"name": name, "url": str(request.url), "client": request.client.host, "started": request.app.state.started}


@app.post("/item")
async def item(item: Item):
    return {"twice": item.price * 2}


@app.post("/raw")
async def raw(request: Request):
    size = 0
    async for part in request.stream():
        size += len(part)
    return {"size": size}


@app.post("/form")
async def form(field: str = Form(), file: UploadFile = File()):
    return {"field": field, "size": len(await file.read())}


@app.get("/stream")
async def stream():
    async def lines():
        for number in range(1000):
            yield "%d\n" % number

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/file")
async def file():
    return FileResponse(os.path.abspath(os.__file__))


@app.get("/background")
async def background(tasks: BackgroundTasks):
    async def later():
        await asyncio.sleep(0.01)
        done.append(1)

    tasks.add_task(later)
    return {"done": len(done)}


@app.get("/boom")
async def boom():
    raise RuntimeError("on purpose")


@app.get("/sync")
def sync():
    return {"in": "a thread"}


@app.websocket("/ws")
async def websocket(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text((await socket.receive_text())[::-1])
    except WebSocketDisconnect:
        done.append("left")
