/**
 * The device's end of the mount inquiry, with real sockets and real agents over captured hosts.
 */
import { describe, expect, it } from 'vitest';
import type { InquiryTarget } from '../../../src/core/mount-facts.ts';
import { asked, eventually, facts, FakeAgent, NOT_MOUNTED, shortly, startAgent, startDevice, unix } from '../../support/inquiry-rig.ts';

describe('an inquiry', () => {
  it('asks each host, and gives exactly one answer for each', async () => {
    await using device = await startDevice(['web1', 'web2', 'web3']);
    await using _busy = await startAgent('web1', unix(device), ['kernel-nbd-netlink', 'nbdtab']);
    await using _idle = await startAgent('web2', unix(device), []);
    await eventually(() => device.service.agents().length === 2);
    const answers = await device.service.ask(asked('web1', 'web2', 'web3'));
    expect(answers.map(shortly)).toEqual(['web1 mounted', 'web2 not-mounted', 'web3 no-agent']);
  });

  it('with nobody to ask is over at once', async () => {
    await using device = await startDevice([]);
    expect(await device.service.ask(asked())).toEqual([]);
  });

  it('of 200 hosts takes less than a second', async () => {
    const names = Array.from({ length: 200 }, (_, index) => `host${index}`);
    await using device = await startDevice(names);
    const agents = await Promise.all(
      names.map((name) => startAgent(name, unix(device), name === 'host7' ? ['kernel-nbd-netlink', 'nbdtab'] : [])),
    );
    try {
      await eventually(() => device.service.mountTable().length === 200, 20_000);
      let answers: Awaited<ReturnType<typeof device.service.ask>> = [];
      let tookMs = Number.POSITIVE_INFINITY;
      // The best of a few rounds: other tests may have the processors for a moment.
      for (let round = 0; round < 8 && tookMs >= 1000; round += 1) {
        const startedMs = performance.now();
        answers = await device.service.ask(asked(...names));
        tookMs = performance.now() - startedMs;
      }
      expect(answers).toHaveLength(200);
      expect(answers.filter((answer) => answer.outcome === 'answered')).toHaveLength(200);
      expect(answers.filter((answer) => shortly(answer).endsWith(' mounted')).map(({ host }) => host)).toEqual(['host7']);
      expect(tookMs).toBeLessThan(1000);
      console.info(`200 agents of this process answered in ${Math.round(tookMs)} ms`);
    } finally {
      await Promise.all(agents.map((agent) => agent.stop()));
    }
  });

  it('ends at its deadline for hosts that stay silent', async () => {
    await using device = await startDevice(['web1', 'web2']);
    const silent = await FakeAgent.connect(device, 'web1');
    await using _idle = await startAgent('web2', unix(device), []);
    await eventually(() => device.service.agents().length === 2);
    const answers = await device.service.ask({ ...asked('web1', 'web2'), deadlineMs: 100 });
    expect(answers.map(shortly)).toEqual(['web1 deadline', 'web2 not-mounted']);
    // Late: nobody waits for it any more, and the next inquiry does not take it.
    const id = await silent.inquiryId();
    const next = device.service.ask({ ...asked('web1'), deadlineMs: 100 });
    silent.say({ type: 'answer', id, findings: facts(NOT_MOUNTED) });
    expect((await next).map(shortly)).toEqual(['web1 deadline']);
    silent.end();
  });

  it('loses a host whose agent ends in the middle, sends nonsense or says that it failed', async () => {
    await using device = await startDevice(['a', 'b', 'c', 'd']);
    const [a, b, c, d] = await Promise.all(['a', 'b', 'c', 'd'].map((name) => FakeAgent.connect(device, name)));
    const pending = device.service.ask(asked('a', 'b', 'c', 'd'));
    await a?.inquiryId();
    a?.end();
    b?.say('this is no message\n');
    c?.say({ type: 'failed', id: await c.inquiryId(), text: 'out of memory' });
    d?.say({ type: 'answer', id: await d.inquiryId(), findings: [{ volume: 2, facts: [NOT_MOUNTED] }] });
    expect((await pending).map(shortly)).toEqual(['a disconnected', 'b disconnected', 'c error', 'd garbage']);
    await eventually(() => b?.isClosed === true);
  });

  it('takes no answer from another host, nor for it', async () => {
    await using device = await startDevice(['a', 'b']);
    const [a, b] = await Promise.all([FakeAgent.connect(device, 'a'), FakeAgent.connect(device, 'b')]);
    const pending = device.service.ask({ ...asked('a'), deadlineMs: 150 });
    const id = await a.inquiryId();
    b.say({ type: 'answer', id, findings: facts(NOT_MOUNTED) });
    expect((await pending).map(shortly)).toEqual(['a deadline']);
  });

  it('is not answered by a connection that a newer one of the same host replaced', async () => {
    await using device = await startDevice(['a']);
    const older = await FakeAgent.connect(device, 'a');
    const pending = device.service.ask(asked('a'));
    const id = await older.inquiryId();
    const newer = await FakeAgent.connect(device, 'a');
    expect((await pending).map(shortly)).toEqual(['a disconnected']);
    older.say({ type: 'answer', id, findings: facts(NOT_MOUNTED) });
    await eventually(() => older.isClosed);
    expect(newer.isClosed).toBe(false);
    expect(device.service.agents()).toHaveLength(1);
  });

  it('is answered as far as it goes when the device stops', async () => {
    const device = await startDevice(['a']);
    const agent = await FakeAgent.connect(device, 'a');
    const pending = device.service.ask(asked('a'));
    await agent.inquiryId();
    await device[Symbol.asyncDispose]();
    expect((await pending).map(shortly)).toEqual(['a deadline']);
  });
});

describe('more than one message carries', () => {
  const MANY: readonly InquiryTarget[] = Array.from({ length: 3000 }, (_, index) => ({
    volume: index + 1,
    name: `vol${index + 1}`,
    uris: Array.from({ length: 40 }, (_uri, place) => `nbd://storage-${place}.example.org:10809/volume-number-${index + 1}`),
  }));

  it('is watched as far as it goes; one volume can be asked about, all at once cannot, and the agent stays', async () => {
    await using device = await startDevice(['a']);
    device.watch = MANY;
    await using _agent = await startAgent('a', unix(device), []);
    await eventually(() => device.service.mountTable().length > 100, 20_000);
    expect(device.service.mountTable().length).toBeLessThan(3000);
    const [view] = device.service.agents();
    const last = { targets: MANY.slice(-1), asked: [{ host: 'a', volumes: [3000] }] };
    expect((await device.service.ask(last)).map(shortly)).toEqual(['a not-mounted']);
    const all = { targets: MANY, asked: [{ host: 'a', volumes: MANY.map(({ volume }) => volume) }] };
    expect(new Set((await device.service.ask(all)).map(shortly))).toEqual(new Set(['a error']));
    expect(device.service.agents()).toEqual([view]);
  });
});
