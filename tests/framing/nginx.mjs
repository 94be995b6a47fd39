// SPDX-License-Identifier: Apache-2.0
// nginx as a proxy in front of a server, with its configuration in a folder of its own.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { freePorts, until } from '../e2e/lib/util.mjs';

export async function nginxProxy(dir, upstreamPort) {
  const [port] = await freePorts(1);
  const root = process.getuid() === 0 ? 'user root;' : '';
  const conf = path.join(dir, 'nginx.conf');
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((n) => `${n}_temp_path ${dir}/${n};`).join(' ');
  fs.writeFileSync(conf, `daemon off; master_process off; ${root} pid ${dir}/nginx.pid; error_log ${dir}/nginx.log crit;
    events { worker_connections 4096; }
    http {
      access_log off; ${temp} keepalive_requests 1000000; client_max_body_size 16m; large_client_header_buffers 8 128k;
      upstream behind { server 127.0.0.1:${upstreamPort}; keepalive 64; }
      server {
        listen 127.0.0.1:${port} backlog=1024;
        location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffer_size 64k; proxy_buffers 8 64k; }
      }
    }`);
  const child = spawn('nginx', ['-c', conf, '-p', dir, '-e', `${dir}/nginx.log`], { stdio: 'inherit', env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  let failed = null;
  child.on('error', (e) => { failed = e; });
  child.on('exit', (code) => { failed ??= new Error(`nginx ended with ${code}`); });
  await until('nginx answers', async () => {
    if (failed) { failed.final = true; throw failed; }
    return (await fetch(`http://127.0.0.1:${port}/ready`)).ok;
  });
  return { port, close: () => child.kill('SIGTERM') };
}
