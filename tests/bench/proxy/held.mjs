// SPDX-License-Identifier: Apache-2.0
// Streams held open over TLS. It is their memory in the proxy that is looked at: what they cost here does not matter.
import fs from 'node:fs';
import tls from 'node:tls';

// Resolves to a socket when the first event is there.
function open(port, ca, request) {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ port, host: '127.0.0.1', servername: 'localhost', ca }, () => socket.write(request));
    let text = '';
    socket.on('data', (data) => {
      text += data.toString('latin1');
      if (!text.startsWith('HTTP/1.1 200'.slice(0, text.length))) reject(new Error(text));
      else if (text.includes('\ndata: ')) { socket.removeAllListeners('data'); socket.resume(); resolve(socket); }
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`closed behind: ${text.slice(0, 300)}`)));
  });
}

// n of them, some at a time; resolves to what lets them go.
export async function holdOverTls(port, caFile, { path, headers, body, n }) {
  const ca = fs.readFileSync(caFile), sockets = [];
  const request = `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${headers.map((h) => `${h}\r\n`).join('')}Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  while (sockets.length < n) sockets.push(...await Promise.all(Array.from({ length: Math.min(50, n - sockets.length) }, () => open(port, ca, request))));
  return () => sockets.forEach((s) => s.destroy());
}
