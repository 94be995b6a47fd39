// SPDX-License-Identifier: Apache-2.0
// The servers of `make bench`: Debian's nginx as a plain proxy, and with Lua (an INCR in Redis for each request, a body
// filter that counts events); a Redis for it; the upstream. Whoever calls runs on the load's CPU, and so do they: what is
// measured is pinned to its own.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { Proc } from '../../e2e/lib/proc.mjs';
import { Authority } from '../../e2e/lib/tls.mjs';
import { until } from '../../e2e/lib/util.mjs';
import { answers, deltas } from './config.mjs';

export const PROXY_CPU = process.env.BENCH_PROXY_CPU ?? '0';

// All threads that it has, and those that they will start.
export function pin(proc, cpu = PROXY_CPU) { execFileSync('taskset', ['-acp', cpu, `${proc.pid}`]); }

async function listening(port) {
  await until(`port ${port}`, () => new Promise((resolve, reject) => {
    const s = net.connect(port, '127.0.0.1', () => { s.destroy(); resolve(true); });
    s.once('error', reject);
  }));
}

export async function upstream(build, dir, port) {
  const files = Object.entries({ answers: answers(256, 1500), words: deltas(4096) }).map(([name, lines]) => {
    const file = path.join(dir, `upstream-${name}`);
    fs.writeFileSync(file, lines.map((l) => `${l}\n`).join(''));
    return file;
  });
  const p = new Proc({ name: 'upstream', command: path.join(build, 'bench/proxy/upstream'), args: [`${port}`, ...files], log: path.join(dir, 'upstream.log') }).start();
  await listening(port);
  return p;
}

// The same over TLS, in HTTP/2 and 1.1. It runs in a process of its own, so that it does not hold up the load.
export async function tlsUpstream(dir, port, upstreamPort) {
  const ca = new Authority(path.join(dir, 'ca')), { cert, key } = ca.sign('upstream');
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'h2.mjs'), `${port}`, `${upstreamPort}`, cert, key], { stdio: ['pipe', 'inherit', 'inherit'] });
  await listening(port);
  return { caFile: ca.file, close: () => child.stdin.end() };
}

// What passes bytes on unread: the least that a proxy can cost.
export async function relay(build, dir, name, port, upstreamPort) {
  const p = new Proc({ name, command: path.join(build, 'bench/proxy/relay'), args: [`${port}`, `${upstreamPort}`], log: path.join(dir, `${name}.log`) }).start();
  await listening(port);
  pin(p);
  return p;
}

export async function redis(dir, port) {
  const p = new Proc({ name: 'redis', command: 'redis-server', args: ['--bind', '127.0.0.1', '--port', `${port}`, '--dir', dir, '--save', '', '--appendonly', 'no'],
    log: path.join(dir, 'redis.log') }).start();
  await listening(port);
  return p;
}

// INCR by hand: Debian has no Redis library for Lua. One round trip on a pooled connection.
const lua = (redisPort) => `
  access_by_lua_block {
    local sock = ngx.socket.tcp()
    sock:settimeout(1000)
    local ok, err = sock:connect("127.0.0.1", ${redisPort})
    if not ok then ngx.log(ngx.ERR, "redis: ", err) return ngx.exit(503) end
    local key = "requests:" .. (ngx.var.http_authorization or "-")
    sock:send("*2\\r\\n$4\\r\\nINCR\\r\\n$" .. #key .. "\\r\\n" .. key .. "\\r\\n")
    local line, err = sock:receive("*l")
    if not line then ngx.log(ngx.ERR, "redis: ", err) return ngx.exit(503) end
    sock:setkeepalive(60000, 256)
    if tonumber(string.sub(line, 2)) > 1e15 then return ngx.exit(429) end
  }
  body_filter_by_lua_block {
    local chunk, from, n = ngx.arg[1], 1, 0
    while true do
      local at = string.find(chunk, "data: ", from, true)
      if not at then break end
      n, from = n + 1, at + 6
    end
    ngx.ctx.events = (ngx.ctx.events or 0) + n
  }`;

export async function nginx(dir, name, port, upstreamPort, { redisPort } = {}) {
  const home = path.join(dir, name);
  fs.mkdirSync(home, { recursive: true });
  const modules = redisPort ? ['ndk_http_module', 'ngx_http_lua_module'].map((m) => `load_module /usr/lib/nginx/modules/${m}.so;`).join(' ') : '';
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((n) => `${n}_temp_path ${home}/${n};`).join(' ');
  fs.writeFileSync(path.join(home, 'nginx.conf'), `${modules}
    daemon off; master_process off; ${process.getuid() === 0 ? 'user root;' : ''} pid ${home}/nginx.pid; error_log ${home}/nginx.log crit;
    events { worker_connections 16384; }
    http {
      access_log off; ${temp} keepalive_requests 1000000000; client_max_body_size 16m; client_body_buffer_size 256k;
      upstream behind { server 127.0.0.1:${upstreamPort}; keepalive 256; keepalive_requests 1000000000; }
      server {
        listen 127.0.0.1:${port} backlog=4096;
        location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 600s; ${redisPort ? lua(redisPort) : ''} }
      }
    }\n`);
  const p = new Proc({ name, command: 'nginx', args: ['-c', path.join(home, 'nginx.conf'), '-p', home, '-e', path.join(home, 'nginx.log')], log: path.join(home, 'out.log') }).start();
  await listening(port);
  pin(p);
  return p;
}
