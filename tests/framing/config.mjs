// SPDX-License-Identifier: Apache-2.0
// A configuration that passes everything on to one server.
export const openConfig = (url) => ({
  namespaces: [{ slug: 'open', name: 'Everything', auth: 'none', default: true }],
  upstreams: [{ slug: 'behind', name: 'Behind', auth: { type: 'none' }, servers: [{ slug: 'behind-1', url }] }],
  routes: [{ slug: 'all', namespace: 'open', path: { prefix: '/' }, endpoint: 'passthrough', upstream: 'behind' }],
});
