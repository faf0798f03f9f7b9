// An origin server in Node for the suite: tells what it was asked, in all framings, and speaks WebSocket and SSE.
// Run: node origin.mjs HTML-FILE [LOG]   It prints its port.
import http from 'node:http';
import fs from 'node:fs';
import crypto from 'node:crypto';

const [page, log] = process.argv.slice(2);
const streams = new Set();

const server = http.createServer((request, response) => {
  const path = request.url.split('?')[0];
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const content = Buffer.concat(parts);
    if (log && request.method !== 'GET') fs.appendFileSync(log, `${request.method} ${request.url}\n`);
    if (path === '/echo') {
      response.setHeader('Content-Type', request.headers['content-type'] ?? 'application/octet-stream');
      return response.end(content);
    }
    if (path === '/asked') {
      const asked = { method: request.method, target: request.url, version: request.httpVersion, fields: request.rawHeaders, trailers: request.rawTrailers, bytes: content.length };
      response.setHeader('Content-Type', 'application/json');
      return response.end(JSON.stringify(asked));
    }
    if (path === '/chunks') {
      response.setHeader('Trailer', 'X-Sum');
      for (let n = 0; n < 100; n += 1) response.write(`line ${n}\n`);
      response.addTrailers({ 'X-Sum': '100', 'Set-Cookie': 'a=b' });
      return response.end();
    }
    if (path === '/hints') {
      return response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' }, () => response.end('hinted\n'));
    }
    if (path === '/cut') {
      response.writeHead(200, { 'Content-Length': '1000' });
      return response.write('half', () => setTimeout(() => request.socket.destroy(), 50));
    }
    if (path === '/early') {
      response.writeHead(403, { Connection: 'close' });
      return response.end('no\n');
    }
    if (path === '/sse') {
      response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
      streams.add(response);
      response.on('close', () => streams.delete(response));
      return response.write('data: 0\n\n');
    }
    if (path === '/next') {
      // The next event is sent only when somebody has seen the last one.
      for (const stream of streams) stream.write(`data: ${Number(content) + 1}\n\n`);
      return response.end();
    }
    if (path === '/result') {
      fs.writeFileSync(`${page}.result`, content);
      return response.end();
    }
    if (path === '/' && page) {
      response.setHeader('Content-Type', 'text/html');
      return response.end(fs.readFileSync(page));
    }
    response.statusCode = 404;
    response.end('nothing here\n');
  });
});

// RFC 6455, as much as an echo needs: every frame goes back as it came, unmasked.
server.on('upgrade', (request, socket, early) => {
  const accept = crypto.createHash('sha1').update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  let input = early;
  const take = () => {
    if (input.length < 2) return false;
    const first = input[0];
    let length = input[1] & 127;
    let at = 2;
    if (length === 126) { if (input.length < 4) return false; length = input.readUInt16BE(2); at = 4; }
    else if (length === 127) { if (input.length < 10) return false; length = Number(input.readBigUInt64BE(2)); at = 10; }
    if (input.length < at + 4 + length) return false;
    const mask = input.subarray(at, at + 4);
    const data = Buffer.from(input.subarray(at + 4, at + 4 + length));
    for (let i = 0; i < data.length; i += 1) data[i] ^= mask[i & 3];
    input = input.subarray(at + 4 + length);
    let head;
    if (length < 126) head = Buffer.from([first, length]);
    else if (length < 65536) { head = Buffer.alloc(4); head[1] = 126; head.writeUInt16BE(length, 2); }
    else { head = Buffer.alloc(10); head[1] = 127; head.writeBigUInt64BE(BigInt(length), 2); }
    head[0] = first;
    socket.write(Buffer.concat([head, data]));
    if ((first & 15) === 8) socket.end();
    return true;
  };
  const takeAll = () => { while (take()) { /* whatever is whole */ } };
  socket.on('data', (data) => { input = Buffer.concat([input, data]); takeAll(); });
  socket.on('error', () => socket.destroy());
  takeAll();
});

server.keepAliveTimeout = 2000;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
