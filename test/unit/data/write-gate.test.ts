/** The write gate: while it is closed nobody is inside, for worker threads and for the main thread. */
import { describe, expect, it } from 'vitest';
import { DEVICE, deviceBlock, SLOT_MAIN } from '../../../src/data/shared-memory.ts';
import { WriteGate } from '../../../src/data/write-gate.ts';
import { CONTROL, controlBlock, startThread } from '../../support/plane-thread.ts';

const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('the write gate', () => {
  it('has no writer inside while a thread or the main thread has it closed, and only one has it closed', async () => {
    const device = deviceBlock();
    const buffer = device.buffer as SharedArrayBuffer;
    const alone = new SharedArrayBuffer(8);
    const controls = [1, 2].map(() => controlBlock());
    const passers = controls.map((control, index) =>
      startThread<{ readonly rounds: number; readonly intruded: number }>({
        kind: 'pass',
        slot: index + 1,
        device: buffer,
        control,
        alone,
      }),
    );
    for (const control of controls) while (Atomics.load(new Int32Array(control), CONTROL.READY) === 0) await later(5);
    const closer = startThread<{ readonly notAlone: number }>({ kind: 'close', slot: 40, device: buffer, rounds: 400, alone });
    const gate = new WriteGate(device, SLOT_MAIN);
    const words = new Int32Array(alone);
    let notAlone = 0;
    let closings = 0;
    let isOver = false;
    const end = closer.done.finally(() => {
      isOver = true;
    });
    while (!isOver || closings < 200) {
      await gate.closedFromMain(() => {
        closings += 1;
        if (Atomics.exchange(words, 0, 1) !== 0 || Atomics.load(words, 1) !== 0) notAlone += 1;
        Atomics.store(words, 0, 0);
      });
      if (closings % 16 === 0) await later(1);
    }
    for (const control of controls) Atomics.store(new Int32Array(control), CONTROL.STOP, 1);
    const results = await Promise.all(passers.map(({ done }) => done));
    expect((await end).notAlone).toBe(0);
    expect(notAlone).toBe(0);
    expect(results.map(({ intruded }) => intruded)).toEqual([0, 0]);
    for (const { rounds } of results) expect(rounds).toBeGreaterThan(10);
    expect(device[DEVICE.GATE]).toBe(0);
  });

  it('runs the changes of the main thread in order, says how long it was closed, and opens after one that throws', async () => {
    const gate = new WriteGate(deviceBlock(), SLOT_MAIN);
    const order: number[] = [];
    const failing = gate.closedFromMain(() => {
      throw new Error('planted');
    });
    const paused = [1, 2, 3].map((number) => gate.closedFromMain(() => void order.push(number)));
    await expect(failing).rejects.toThrow('planted');
    for (const ms of await Promise.all(paused)) expect(ms).toBeLessThan(50);
    expect(order).toEqual([1, 2, 3]);
    gate.enter();
    gate.leave();
  });

  it('lets the event loop of the main thread turn while a worker is inside for long', async () => {
    const device = deviceBlock();
    const worker = new WriteGate(device, 1);
    const gate = new WriteGate(device, SLOT_MAIN);
    worker.enter();
    let isClosed = false;
    const closing = gate.closedFromMain(() => {
      isClosed = true;
    });
    await later(30);
    expect(isClosed).toBe(false);
    expect(device[DEVICE.GATE]).toBe(SLOT_MAIN + 1);
    worker.leave();
    expect(await closing).toBeGreaterThan(20);
    expect(isClosed).toBe(true);
  });

  it('does not wait for a worker that died inside once it is forgotten, nor for one that died with the gate closed', async () => {
    const device = deviceBlock();
    const buffer = device.buffer as SharedArrayBuffer;
    const gate = new WriteGate(device, SLOT_MAIN);
    for (const closesGate of [false, true]) {
      const dead = startThread({ kind: 'hold', slot: 3, device: buffer, granules: 0, inGate: true, closesGate });
      await dead.said;
      const closing = gate.closedFromMain(() => {});
      await dead.terminate();
      WriteGate.forget(device, 3);
      await closing;
      expect(device[DEVICE.GATE]).toBe(0);
    }
  });
});
