// SPDX-License-Identifier: Apache-2.0
// Certificates for a test: an authority, and what it signs.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export class Authority {
  constructor(dir, name = 'ca') {
    fs.mkdirSync(dir, { recursive: true });
    Object.assign(this, { dir, name, file: path.join(dir, `${name}.pem`) });
    this.#openssl('req', '-x509', ...EC, '-days', '2', '-subj', `/CN=${name}`, '-keyout', this.#at(`${name}.key`), '-out', this.file);
  }

  #at(file) { return path.join(this.dir, file); }
  #openssl(...args) { execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] }); }

  get pem() { return fs.readFileSync(this.file); }

  // A certificate and its key: { cert, key } are files, replaced at once when they exist already.
  sign(name, subjectAltName = 'DNS:localhost,IP:127.0.0.1') {
    const [key, csr, ext, cert] = ['key', 'csr', 'ext', 'pem'].map((e) => this.#at(`${name}.${e}`));
    fs.writeFileSync(ext, `subjectAltName=${subjectAltName}\n`);
    this.#openssl('req', ...EC, '-subj', `/CN=${name}`, '-keyout', `${key}.new`, '-out', csr);
    this.#openssl('x509', '-req', '-in', csr, '-CA', this.file, '-CAkey', this.#at(`${this.name}.key`), '-CAcreateserial', '-days', '2', '-extfile', ext, '-out', `${cert}.new`);
    fs.renameSync(`${key}.new`, key);
    fs.renameSync(`${cert}.new`, cert);
    return { cert, key };
  }
}
