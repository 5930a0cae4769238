/**
 * `twinvol ca init|issue-server|issue-host`: the device's own small certificate authority.
 *
 * The first two work on the store's files, with or without an engine: a server's certificate has to be there before the
 * engine can listen with it. A host's certificate is bound to the host, so that one goes through the engine.
 */
import type { Command } from 'commander';
import { addCommand, addGroup } from '../command-builder.ts';
import type { CommandContext } from '../command-context.ts';
import { formatMoment } from '../duration.ts';
import { given } from '../given.ts';
import { certificateLines } from './host.ts';

export const registerCertificates = (program: Command, context: CommandContext): void => {
  const ca = addGroup(program, 'ca', "the device's own certificate authority, for TLS between it and its hosts");
  addCommand(ca, 'init', 'make the authority, or show the one that is there', ['ca init']).action(async () => {
    const { initAuthority } = await import('../../serve.ts');
    const made = await initAuthority(context.storeDirectory);
    context.print(made, () => `authority ${made.authorityFile}\n${made.certificate.trimEnd()}`);
  });
  addCommand(ca, 'issue-server', "a certificate for the device's own listeners; takes effect when the engine is started", [
    'ca issue-server storage.example 192.0.2.10',
  ])
    .argument('<ADDRESS...>', 'every name and address by which hosts reach the device')
    .action(async (addresses: readonly string[]) => {
      const { issueServer } = await import('../../serve.ts');
      const issued = await issueServer(context.storeDirectory, addresses);
      context.print(issued, () =>
        [
          `certificate ${issued.certificateFile}`,
          `key         ${issued.keyFile}`,
          `authority   ${issued.authorityFile}`,
          `good until ${formatMoment(issued.expiresAtMs)}; twinvol serve --agent-tcp uses it, and for volumes give --tls-cert, --tls-key, --tls-ca`,
        ].join('\n'),
      );
    });
  addCommand(ca, 'issue-host', 'a certificate that proves a host, bound to it', ['ca issue-host web1', 'ca issue-host web1 --replace'])
    .argument('<NAME>', "the host's name")
    .option('--replace', 'the certificates of before prove nothing any more')
    .action(async (name: string, { replace }: { replace?: boolean }) => {
      const issued = await context.call('host.issue', { name, ...given({ replace }) });
      const { certificate } = issued;
      context.print(issued, () => (certificate === null ? `host ${name}` : certificateLines(name, certificate).join('\n')));
    });
};
