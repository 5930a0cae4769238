/**
 * Two hosts and a device as three machines: network namespaces of their own, joined by virtual cables with addresses for
 * documentation, each host with processes and mounts of its own. Everything goes over mutual TLS, exports follow grants.
 *
 * One host has the split secondary mounted (qemu-storage-daemon over TLS, FUSE, a loop device, ext4): the resync is refused and names it. It
 * unmounts, but the other host's cable is cut: the resync is refused for want of an answer. The cable is mended, and the
 * resync goes through. Needs root; everything is undone at the end, also of a failed run.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ClientView, HostAdded, HostView, InquiryView } from '../../src/index.ts';
import { needClient, needRoot, run } from '../support/clients.ts';
import { eventually } from '../support/fake-agent.ts';
import { soleMounts } from '../support/sole-mounts.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { initialised, MAIN, twinvol } from '../scenario/cli-process.ts';

soleMounts();

const NAME = `tv${process.pid}`;
/** Device's end and host's end of each cable. */
const CABLES = { web1: ['192.0.2.1', '192.0.2.2'], web2: ['198.51.100.1', '198.51.100.2'] } as const;
type HostName = keyof typeof CABLES;
const HOSTS = Object.keys(CABLES) as HostName[];

const must = async (command: string, ...args: string[]): Promise<string> => {
  const { status, stdout, stderr } = await run(needClient(command), args);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}${stdout}`);
  return stdout.trim();
};

/** What has to be undone, the last thing first. */
class Undo implements AsyncDisposable {
  readonly #steps: Array<() => unknown> = [];
  add(step: () => unknown): void {
    this.#steps.push(step);
  }
  child(child: ChildProcess): ChildProcess {
    const ended = once(child, 'exit');
    this.add(async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
      await ended;
      clearTimeout(timer);
    });
    return child;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const step of this.#steps.reverse()) await step();
  }
}

/** What a run left that was killed: its process is gone, and nobody else removes its namespaces. */
const clearLeftovers = async (): Promise<void> => {
  for (const line of (await must('ip', 'netns', 'list')).split('\n')) {
    const [name = ''] = line.split(' ');
    const pid = /^tv(\d+)-/.exec(name)?.[1];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) await run(needClient('ip'), ['netns', 'del', name]);
  }
};

const layCables = async (undo: Undo): Promise<void> => {
  for (const machine of ['device', ...HOSTS]) {
    await must('ip', 'netns', 'add', `${NAME}-${machine}`);
    undo.add(() => run(needClient('ip'), ['netns', 'del', `${NAME}-${machine}`]));
    await must('ip', '-n', `${NAME}-${machine}`, 'link', 'set', 'lo', 'up');
  }
  for (const host of HOSTS) {
    const [near, far] = CABLES[host];
    await must(
      'ip',
      'link',
      'add',
      `${host}-d`,
      'netns',
      `${NAME}-device`,
      'type',
      'veth',
      'peer',
      'name',
      `${host}-h`,
      'netns',
      `${NAME}-${host}`,
    );
    await must('ip', '-n', `${NAME}-device`, 'addr', 'add', `${near}/24`, 'dev', `${host}-d`);
    await must('ip', '-n', `${NAME}-${host}`, 'addr', 'add', `${far}/24`, 'dev', `${host}-h`);
    await must('ip', '-n', `${NAME}-device`, 'link', 'set', `${host}-d`, 'up');
    await must('ip', '-n', `${NAME}-${host}`, 'link', 'set', `${host}-h`, 'up');
  }
};
const cable = (host: HostName, state: 'up' | 'down'): Promise<string> =>
  must('ip', '-n', `${NAME}-device`, 'link', 'set', `${host}-d`, state);

/** A shell that lives on one of the machines: network, processes and mounts are that machine's own. */
class Machine {
  readonly #shell: ChildProcess;
  #output = '';
  #count = 0;

  constructor(undo: Undo, host: HostName) {
    const inside = ['unshare', '--pid', '--mount', '--fork', '--mount-proc', '--kill-child=SIGKILL', 'sh'];
    this.#shell = undo.child(
      spawn(needClient('ip'), ['netns', 'exec', `${NAME}-${host}`, ...inside], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
    this.#shell.stdout?.setEncoding('utf8').on('data', (text: string) => (this.#output += text));
  }

  async sh(script: string, ms = 20_000): Promise<string> {
    this.#count += 1;
    const mark = `-- done ${this.#count}`;
    this.#output = '';
    this.#shell.stdin?.write(`{ ${script}\n} 2>&1 </dev/null; echo "${mark} $?"\n`);
    await eventually(() => new RegExp(`^${mark} \\d+$`, 'm').test(this.#output), `${script}: ${this.#output}`, ms);
    const [text = '', status = ''] = this.#output.split(`${mark} `);
    if (Number(status) !== 0) throw new Error(`${script}: status ${status.trim()}: ${text}`);
    return text.trim();
  }
}

describe('a device and two hosts, joined by cables', () => {
  it('finds the mount of the one, misses the answer of the other, and resyncs when both are in order', async () => {
    needRoot();
    for (const program of ['ip', 'unshare', 'qemu-storage-daemon', 'losetup', 'mkfs.ext4']) needClient(program);
    await using temporary = await temporaryDirectory();
    await using undo = new Undo();
    const store = temporary.path('store');
    await initialised(store, ['--pv-size', '1G']);
    const cli = async (words: string, status = 0): Promise<{ readonly stdout: string; readonly stderr: string }> => {
      const ran = await twinvol(words.split(' '), { store });
      expect(ran, `${words}: ${ran.stderr}`).toMatchObject({ status });
      return ran;
    };
    const json = async <T>(words: string): Promise<T> => JSON.parse((await cli(`${words} --json`)).stdout) as T;
    await clearLeftovers();
    await layCables(undo);

    const addresses = HOSTS.map((host) => CABLES[host][0]);
    const { certificateFile, keyFile, authorityFile } = await json<Record<string, string>>(`ca issue-server ${addresses.join(' ')}`);
    const tls = ['--tls-cert', certificateFile ?? '', '--tls-key', keyFile ?? '', '--tls-ca', authorityFile ?? '', '--tls-required'];
    const listen = ['--nbd-tcp', '0.0.0.0:10809', '--nbd-unix', `${store}/nbd.sock`, '--agent-tcp', '0.0.0.0:10810'];
    const serve = ['netns', 'exec', `${NAME}-device`, process.execPath, MAIN, 'serve', '--store', store, ...listen, ...tls];
    const engine = undo.child(spawn(needClient('ip'), serve, { stdio: ['ignore', 'pipe', 'ignore'] }));
    let banner = '';
    engine.stdout?.setEncoding('utf8').on('data', (text: string) => (banner += text));
    await eventually(() => /^ready /m.test(banner), 'the engine is ready', 20_000);

    await cli('volume create db --size 64M');
    await cli('volume create copy --size 64M --attribute secondary');
    await cli('pair create db copy --wait');
    await cli('pair split db');
    await cli('settings set exportsFollowGrants=on');
    const machines = new Map<HostName, Machine>();
    for (const host of HOSTS) {
      const added = await json<HostAdded>(`host add ${host} --agent-tls`);
      await cli(`grant copy ${host}`);
      const folder = temporary.path(host);
      mkdirSync(folder);
      const files = added.certificate;
      for (const [from, to] of [
        [files?.certificateFile, 'client-cert.pem'],
        [files?.keyFile, 'client-key.pem'],
        [files?.authorityFile, 'ca-cert.pem'],
      ] as const)
        copyFileSync(from ?? '', `${folder}/${to}`);
      const machine = new Machine(undo, host);
      machines.set(host, machine);
      // On another machine the device's namespaces would not be there to be seen.
      await machine.sh('umount -l -R /run/netns || true');
      const agent = [process.execPath, MAIN, 'agent', '--host', host, '--control', `tls:${CABLES[host][0]}:10810`, '--scope', 'namespace'];
      const proof = [
        '--tls-cert',
        `${folder}/client-cert.pem`,
        '--tls-key',
        `${folder}/client-key.pem`,
        '--tls-ca',
        `${folder}/ca-cert.pem`,
      ];
      await machine.sh(`${[...agent, ...proof].join(' ')} >${folder}/agent.log 2>&1 &`);
    }
    const agents = async (): Promise<number> =>
      (await json<HostView[]>('host list')).filter(({ agent }) => agent?.transport === 'tls').length;
    await eventually(async () => (await agents()) === 2, 'both agents are connected', 20_000);
    expect(await json<InquiryView>('inquiry copy')).toMatchObject({ clear: true, hosts: ['web1', 'web2'] });

    // The one mounts it, with what it was given.
    const web1 = machines.get('web1') as Machine;
    const place = temporary.path('web1');
    const node = `driver=nbd,node-name=n,server.type=inet,server.host=${CABLES.web1[0]},server.port=10809,export=copy,tls-creds=t`;
    const shows = `qemu-storage-daemon --object tls-creds-x509,id=t,endpoint=client,dir=${place} --blockdev ${node} --export type=fuse,id=e,node-name=n,mountpoint=${place}/shown,writable=on`;
    await web1.sh(
      `mkdir ${place}/mnt && : >${place}/shown && { ${shows} & echo $! >${place}/pid; } && until [ -s ${place}/shown ]; do sleep 0.1; done`,
    );
    const loop = await web1.sh(`losetup --find --show ${place}/shown`);
    undo.add(() => run(needClient('losetup'), ['-d', loop]));
    await web1.sh(`mkfs.ext4 -q -F ${loop} && mount ${loop} ${place}/mnt && echo precious >${place}/mnt/file && sync -f ${place}/mnt`);

    const mounted = await cli('pair resync db', 11);
    expect(mounted.stderr).toContain(`host web1 has copy mounted at ${place}/mnt (ext4, read-write) from loop device ${loop}`);
    expect(mounted.stderr).toContain('going on destroys what was written on copy since the split');
    expect(mounted.stderr).not.toContain('web2');
    expect(
      await web1.sh(`cat ${place}/mnt/file && echo more >>${place}/mnt/file && sync -f ${place}/mnt && wc -l <${place}/mnt/file`),
    ).toBe('precious\n2');
    await web1.sh(
      `umount ${place}/mnt && losetup -d ${loop} && kill $(cat ${place}/pid) && wait $(cat ${place}/pid); umount ${place}/shown 2>/dev/null || true`,
    );

    // The other one's cable is cut: it may have it mounted, and cannot say so.
    await cable('web2', 'down');
    const silent = await cli('pair resync db', 12);
    expect(silent.stderr).toContain('host web2 did not say whether it uses copy');
    expect(silent.stderr).not.toContain('web1');
    expect(await json<object[]>('pair status db')).toMatchObject([{ state: 'split' }]);

    await cable('web2', 'up');
    await eventually(async () => (await twinvol(['inquiry', 'copy'], { store })).status === 0, 'both answer again', 40_000);
    await cli('pair resync db --wait --timeout 30s');
    await cli('pair verify db');
    expect((await json<ClientView[]>('client list')).length).toBe(0);
  });
});
