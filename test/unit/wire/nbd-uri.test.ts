/** NBD URIs: the table of the URI specification, TLS parameters, and what is refused. */
import { describe, expect, it } from 'vitest';
import { TwinvolError } from '../../../src/core/faults.ts';
import { formatNbdUri, parseNbdUri } from '../../../src/wire/nbd-uri.ts';

describe('parseNbdUri', () => {
  it.each([
    ['nbd://example.com/disk', 'disk'],
    ['nbd+unix:///disk?socket=sock', 'disk'],
    ['nbd://example.com/', ''],
    ['nbd://example.com', ''],
    ['nbd://example.com//disk', '/disk'],
    ['nbd://example.com/hello%20world', 'hello world'],
    ['nbd://example.com/a/../B/.', 'a/../B/.'],
    ['nbd+unix://?socket=s', ''],
    ['NBD://example.com/%C3%BC', 'ü'],
  ])('%s names the export "%s"', (uri, exportName) => {
    expect(parseNbdUri(uri).exportName).toBe(exportName);
  });

  it('reads host and port', () => {
    expect(parseNbdUri('nbd://h/').where).toEqual({ kind: 'tcp', host: 'h', port: 10_809 });
    expect(parseNbdUri('nbd://h:1/').where).toEqual({ kind: 'tcp', host: 'h', port: 1 });
    expect(parseNbdUri('nbd://user@[::1]:99/').where).toEqual({ kind: 'tcp', host: '::1', port: 99 });
    expect(parseNbdUri('nbd:///x').where).toEqual({ kind: 'tcp', host: 'localhost', port: 10_809 });
  });

  it('reads a unix socket, also one in the abstract name space', () => {
    expect(parseNbdUri('nbd+unix:///x?socket=/tmp/a%20b').where).toEqual({ kind: 'unix', path: '/tmp/a b' });
    expect(parseNbdUri('nbd+unix:///?socket=%00/abstract').where).toEqual({ kind: 'unix', path: '\0/abstract' });
  });

  it('reads what TLS needs', () => {
    expect(parseNbdUri('nbds+unix:///x?socket=s&tls-hostname=h&tls-verify-peer=0&tls-certificates=/etc/c&tls-type=x509')).toEqual({
      tls: true,
      where: { kind: 'unix', path: 's' },
      exportName: 'x',
      tlsHostname: 'h',
      tlsCertificates: '/etc/c',
      tlsVerifyPeer: false,
    });
  });

  it.each([
    ['http://h/', 'scheme'],
    ['nonsense', 'scheme'],
    ['nbd:disk', '//'],
    ['nbd://h:70000/', 'port'],
    ['nbd://h:0/', 'port'],
    ['nbd://a:b:c/', 'no host and port'],
    ['nbd://h/%zz', 'percent'],
    ['nbd://h/%ff', 'percent'],
    ['nbd://h/a%00b', 'NUL'],
    [`nbd://h/${'x'.repeat(4097)}`, '4096'],
    ['nbd://h/#x', '#'],
    ['nbd://h/x?socket=s', 'socket'],
    ['nbd+unix:///x', 'socket'],
    ['nbd+unix://h/x?socket=s', 'three slashes'],
    ['nbd+unix:///x?socket=s&socket=t', 'twice'],
    ['nbds://h/x?tls-type=psk', 'psk'],
    ['nbds://h/x?tls-verify-peer=maybe', 'tls-verify-peer'],
    ['nbd://h/x?colour=red', 'colour'],
  ])('refuses %s', (uri, word) => {
    try {
      parseNbdUri(uri);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(TwinvolError);
      expect((error as TwinvolError).code).toBe('URI_INVALID');
      expect((error as TwinvolError).message).toContain(word);
    }
  });
});

describe('formatNbdUri', () => {
  it.each([
    'nbd://h/vol1',
    'nbd://h:1/vol1',
    'nbds://[::1]:99/a/b',
    'nbd+unix:///vol%201?socket=/tmp/s.sock',
    'nbds+unix:///?socket=/tmp/a%26b&tls-hostname=h&tls-certificates=/c&tls-verify-peer=0',
  ])('%s comes back as it was', (uri) => {
    expect(formatNbdUri(parseNbdUri(uri))).toBe(uri);
  });
});
