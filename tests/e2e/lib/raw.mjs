// SPDX-License-Identifier: Apache-2.0
// A server of HTTP/1.1 of which each byte is the test's.
import net from 'node:net';

// answer: (how many requests came before this one, how many of them on its connection, its bytes) => the bytes of the
// answer, or null: the connection is closed without one.
export async function rawServer(answer) {
  const server = net.createServer((socket) => {
    let text = '', here = 0;
    socket.on('error', () => {});
    socket.on('data', (data) => {
      text += data.toString('latin1');
      for (;;) {
        const head = text.indexOf('\r\n\r\n');
        const length = head < 0 ? 0 : Number(/\r\ncontent-length: (\d+)/i.exec(text.slice(0, head + 2))?.[1] ?? 0);
        if (head < 0 || text.length < head + 4 + length) return;
        const request = text.slice(0, head + 4 + length);
        text = text.slice(request.length);
        const bytes = answer(made.requests++, here++, request);
        if (bytes === null) socket.destroy();
        else socket.write(bytes);
      }
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  const made = { requests: 0, url: `http://127.0.0.1:${server.address().port}` };
  return made;
}

// A whole answer of JSON.
export const whole = (status, body, fields = '') =>
  Buffer.from(`HTTP/1.1 ${status} Said\r\ncontent-type: application/json\r\n${fields}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
// A chat's.
export const completion = (content) => JSON.stringify({ id: 'x', object: 'chat.completion', model: 'Qwen3-8B',
  choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }] });
