# SPDX-License-Identifier: Apache-2.0
"""docker-registry on a free port of the loopback, in the shapes that people run it: open, behind htpasswd, behind tokens, TLS."""
import base64
import contextlib
import http.client
import json
import re
import ssl
import urllib.parse

from images import MANIFEST_TYPE, sha256
from testbed import run, wait_until

TIMEOUT = 30


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory):
        self.dir = directory
        self.cert = directory / 'ca.crt'
        self._key = directory / 'ca.key'
        run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
            '-subj', '/CN=regfs test authority', '-keyout', self._key, '-out', self.cert)

    def issue(self, name, addresses='DNS:localhost,IP:127.0.0.1', usage='serverAuth'):
        """(certificate, key) for a host or a client."""
        cert, key, request, extensions = (self.dir / (name + s) for s in ('.cert', '.key', '.csr', '.ext'))
        extensions.write_text('subjectAltName=%s\nextendedKeyUsage=%s\n' % (addresses, usage))
        run('openssl', 'req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=' + name,
            '-keyout', key, '-out', request)
        run('openssl', 'x509', '-req', '-in', request, '-CA', self.cert, '-CAkey', self._key, '-CAcreateserial', '-days', '2',
            '-extfile', extensions, '-out', cert)
        return cert, key


class Registry:
    """A docker-registry of BED's. USERS: {name: password} for htpasswd. TOKENS: a dict for its auth.token. AUTHORITY: speak TLS
    with a certificate that it issues; DEMANDS_CLIENT: and want one of its from the client."""

    def __init__(self, bed, users=None, tokens=None, authority=None, demands_client=False):
        self.dir = bed.mkdir('registry')
        self.users, self.authority = users or {}, authority
        config = {'version': 0.1, 'log': {'level': 'info'},
                  'storage': {'filesystem': {'rootdirectory': str(self.dir / 'data')}, 'delete': {'enabled': True}},
                  'http': {'addr': '127.0.0.1:0'}}
        if users:
            passwords = self.dir / 'htpasswd'
            passwords.write_text(''.join(run('htpasswd', '-nbB', '-C', '4', user, word).strip() + '\n'
                                         for user, word in users.items()))
            config['auth'] = {'htpasswd': {'realm': 'regfs test', 'path': str(passwords)}}
        if tokens:
            config['auth'] = {'token': tokens}
        if authority:
            cert, key = authority.issue('registry')
            config['http']['tls'] = {'certificate': str(cert), 'key': str(key)}
            if demands_client:
                config['http']['tls']['clientcas'] = [str(authority.cert)]
        path = self.dir / 'config.yml'
        path.write_text(json.dumps(config))  # which is YAML too
        self.log_path = self.dir / 'log'
        with open(self.log_path, 'wb') as log:
            self.process = bed.start('docker-registry', 'serve', path, stdout=log, stderr=log)
        self.port = wait_until(self._listening, 'docker-registry listens')
        self.host = '127.0.0.1:%d' % self.port

    def _listening(self):
        log = self.log_path.read_text()
        if self.process.poll() is not None:
            raise RuntimeError('docker-registry ended:\n' + log)
        found = re.search(r'listening on 127\.0\.0\.1:(\d+)', log)
        return found and int(found.group(1))

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    # ---- pushing ----

    def push_layout(self, layout, tag, name, credentials=None):
        """skopeo copies LAYOUT:TAG, byte for byte, to NAME (repository:tag). CREDENTIALS: 'user:password'."""
        arguments = ['skopeo', 'copy', '--quiet', '--insecure-policy', '--preserve-digests', '--all']
        if self.authority:
            arguments += ['--dest-cert-dir', self._trust()]
        else:
            arguments += ['--dest-tls-verify=false']
        if credentials:
            arguments += ['--dest-creds', credentials]
        run(*arguments, 'oci:%s:%s' % (layout.path, tag), 'docker://%s/%s' % (self.host, name))

    def _trust(self):
        directory = self.dir / 'trust'
        directory.mkdir(exist_ok=True)
        (directory / 'ca.crt').write_bytes(self.authority.cert.read_bytes())
        return directory

    def _request(self, method, path, body=None, headers=None, expect=(200, 201, 202)):
        if self.authority:
            context = ssl.create_default_context(cafile=str(self.authority.cert))
            connection = http.client.HTTPSConnection('127.0.0.1', self.port, timeout=TIMEOUT, context=context)
        else:
            connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=TIMEOUT)
        headers = dict(headers or {})
        if self.users:
            pair = '%s:%s' % next(iter(self.users.items()))
            headers['Authorization'] = 'Basic ' + base64.b64encode(pair.encode()).decode()
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status not in expect:
            raise RuntimeError('%s %s: %d %r' % (method, path, answer.status, content))
        return answer, content

    def put_blob(self, repository, data):
        answer, _ = self._request('POST', '/v2/%s/blobs/uploads/' % repository)
        where = urllib.parse.urlsplit(answer.headers['Location'])
        self._request('PUT', '%s?%s&digest=%s' % (where.path, where.query, urllib.parse.quote(sha256(data))), data,
                      {'Content-Type': 'application/octet-stream'})

    def put_manifest(self, repository, reference, data, media_type=MANIFEST_TYPE):
        self._request('PUT', '/v2/%s/manifests/%s' % (repository, reference), data, {'Content-Type': media_type})

    def push(self, layout, descriptor, name):
        """An image of a layout by hand, also one that skopeo would not copy. NAME: repository:tag."""
        repository, _, tag = name.partition(':')
        manifest = layout.json(descriptor)
        for part in manifest.get('layers', []) + [manifest[k] for k in ('config',) if k in manifest]:
            self.put_blob(repository, layout.blob_path(part['digest']).read_bytes())
        for child in manifest.get('manifests', []):
            self.push(layout, child, '%s:%s' % (repository, child['digest']))
        self.put_manifest(repository, tag, layout.blob_path(descriptor['digest']).read_bytes(), descriptor['mediaType'])

    def blob_path(self, digest):
        """Where the registry keeps a blob: for hands that break it."""
        hexes = digest.partition(':')[2]
        return self.dir / 'data/docker/registry/v2/blobs/sha256' / hexes[:2] / hexes / 'data'
