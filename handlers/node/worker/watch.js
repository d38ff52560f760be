'use strict';
// A thread beside the main thread: it says each second that the worker lives, and
// notices when the event loop does not turn, and whose code keeps it.

const { readFileSync, writeSync } = require('node:fs');
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const { ALIVE, BLOCKED, HEAD } = require('./frames');

// What both threads share, as 32-bit numbers.
const LOCK = 0; // 1 while one of them writes to the daemon, or has written half a frame
const ACTIVE = 1; // 1 while something is in flight
const TURN = 2; // counts the turns of the loop, while something is
const CALL = 3; // the id of the call whose code runs before its first await; -1: none
const FUNCTION = 4; // and the index of its function
const SIZE = 5;

const TICK = 20; // between two turns that are counted, in ms
const LOOK = 20; // between two looks
const LATE = 60; // the loop does not turn if none was counted for so long,
const WORK = 20e6; // and the main thread has computed for so long meanwhile, in ns, or sleeps
const PAUSE = 500; // how long the main thread has to say where it is, in ms
const SECOND = 1000;
const REST = 10; // after so many turns with nothing in flight the loop is left alone

// What the main thread answers in the middle of a function: the call that runs.
const WHOSE = Symbol.for('drover.whose');

/** The main thread's side. */
class Watch {
  #shared = new Int32Array(new SharedArrayBuffer(4 * SIZE));
  #busy;
  #idle = 0;
  #awake = false;

  /** busy tells whether anything is in flight, and whose the call that runs, or undefined. */
  constructor(writer, busy, whose, { alive, blocked }) {
    this.#busy = busy;
    this.#shared[CALL] = -1;
    writer.share(this.#shared, LOCK);
    globalThis[WHOSE] = () => {
      const call = whose();
      return call?.open ? `${call.id} ${call.index}` : '';
    };
    const thread = this.thread = new Worker(__filename, {
      workerData: { shared: this.#shared, alive, blocked }, execArgv: [], env: {},
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    thread.on('error', () => {}); // the worker goes on without it
    thread.unref();
  }

  /** Called when there is something to do. */
  came() {
    this.#idle = 0;
    if (this.#awake) return;
    this.#awake = true;
    this.#turn();
    Atomics.store(this.#shared, ACTIVE, 1);
    Atomics.notify(this.#shared, ACTIVE);
  }

  #turn() {
    Atomics.add(this.#shared, TURN, 1);
    this.#idle = this.#busy() ? 0 : this.#idle + 1;
    if (this.#idle < REST) {
      setTimeout(() => this.#turn(), TICK);
      return;
    }
    this.#awake = false;
    Atomics.store(this.#shared, ACTIVE, 0);
  }

  begins(call) {
    this.#shared[FUNCTION] = call.index;
    this.#shared[CALL] = call.id;
  }

  waits() { this.#shared[CALL] = -1; }
}

/** The thread's own side. */
class Thread {
  #shared = workerData.shared;
  #said = performance.now(); // when ALIVE was sent last
  #turn = -1; // that was seen last,
  #since = 0; // and when first,
  #used = { run: 0, wait: 0 }; // and what the main thread had used by then
  #block = null; // that is under way
  #blocks = 0;

  async run() {
    for (;;) {
      if (Atomics.load(this.#shared, ACTIVE) === 0 && this.#block === null) {
        Atomics.wait(this.#shared, ACTIVE, 0, Math.max(this.#said + SECOND - performance.now(), 1));
        this.#turn = -1;
      } else {
        await new Promise((resolve) => { setTimeout(resolve, LOOK); });
        if (workerData.blocked) await this.#look();
      }
      if (workerData.alive && performance.now() - this.#said >= SECOND && send(this.#shared, ALIVE, '')) this.#said = performance.now();
    }
  }

  async #look() {
    const now = performance.now();
    const turn = Atomics.load(this.#shared, TURN);
    if (turn !== this.#turn || Atomics.load(this.#shared, ACTIVE) === 0) {
      this.#over(now);
      [this.#turn, this.#since, this.#used] = [turn, now, used()];
      return;
    }
    if (this.#block !== null || now - this.#since < LATE) return;
    if (used().run - this.#used.run < WORK && !asleep()) return; // it waits for a processor
    let [id, index] = [this.#shared[CALL], this.#shared[FUNCTION]];
    const { whose = '', stack = [] } = await where();
    if (Atomics.load(this.#shared, TURN) !== turn) return; // it is over, and was short
    if (whose !== '') [id, index] = whose.split(' ').map(Number);
    if (id < 0) index = -1;
    const own = stack.filter((frame) => !frame.includes(__dirname) && !frame.includes('node:'));
    this.#block = {
      block: ++this.#blocks, id, function: index, message: '', gil: false,
      place: (own[0] ?? stack[0] ?? 'native code').slice(0, 4096), stack: own.join('\n').slice(0, 16384),
    };
    this.#tell(performance.now(), false);
  }

  #over(now) {
    if (this.#block === null) return;
    this.#tell(now, true);
    this.#block = null;
  }

  #tell(now, over) {
    const took = Math.round((now - this.#since) * 1000);
    const { run, wait } = used();
    const asleep_us = Math.max(took - Math.round((run - this.#used.run + wait - this.#used.wait) / 1000), 0);
    const text = JSON.stringify({ ...this.#block, took_us: took, asleep_us, over });
    while (!send(this.#shared, BLOCKED, text)) Atomics.wait(this.#shared, LOCK, 1, 1);
  }
}

/** Sends a frame; false if the main thread is sending, or the daemon does not read. */
function send(shared, kind, text) {
  if (Atomics.compareExchange(shared, LOCK, 0, 1) !== 0) return false;
  const payload = Buffer.from(text);
  const frame = Buffer.alloc(HEAD + payload.length);
  frame.writeUInt32LE(1 + payload.length, 0);
  frame[4] = kind;
  payload.copy(frame, HEAD);
  try {
    for (let rest = frame; rest.length > 0;) {
      try {
        rest = rest.subarray(writeSync(3, rest));
      } catch (error) {
        if (error.code !== 'EAGAIN') return true; // the daemon is gone, which the main thread sees
        if (rest === frame) return false;
        Atomics.wait(shared, LOCK, 1, 1);
      }
    }
    return true;
  } finally {
    Atomics.store(shared, LOCK, 0);
    Atomics.notify(shared, LOCK);
  }
}

/** How long the main thread has run, and waited for a processor, in ns; where nobody tells, it runs. */
function used() {
  try {
    const [run, wait] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ').map(Number);
    return { run, wait };
  } catch {
    return { run: performance.now() * 1e6, wait: 0 };
  }
}

function asleep() {
  try {
    return /\) [SD]/.test(readFileSync(`/proc/self/task/${process.pid}/stat`, 'latin1'));
  } catch {
    return true;
  }
}

/**
 * Stops the main thread for a moment, where its code is in JavaScript: the frames of its
 * stack, the innermost first, and the id and function of the call that runs.
 */
async function where() {
  let session;
  try {
    const { Session } = require('node:inspector');
    session = new Session();
    session.connectToMainThread();
    const paused = new Promise((resolve) => { session.once('Debugger.paused', ({ params }) => resolve(params.callFrames)); });
    const late = new Promise((resolve) => { setTimeout(resolve, PAUSE, null); });
    const files = new Map();
    session.on('Debugger.scriptParsed', ({ params }) => files.set(params.scriptId, params.url.replace('file://', '')));
    session.post('Debugger.enable');
    session.post('Debugger.pause');
    const frames = await Promise.race([paused, late]);
    if (frames === null) return {};
    const expression = `globalThis[Symbol.for(${JSON.stringify(WHOSE.description)})]?.()`;
    const answered = new Promise((resolve) => {
      session.post('Debugger.evaluateOnCallFrame', { callFrameId: frames[0].callFrameId, expression, silent: true, returnByValue: true },
        (error, answer) => resolve(error ? '' : answer.result?.value ?? ''));
    });
    const whose = await Promise.race([answered, late]) ?? '';
    const stack = frames.map(({ functionName, location }) => `${files.get(location.scriptId) ?? 'native code'}:${location.lineNumber + 1} in ${functionName || 'an anonymous function'}`);
    return { whose, stack };
  } catch {
    return {}; // this Node.js has no inspector
  } finally {
    try {
      session?.disconnect(); // which has the main thread go on
    } catch {} // it was not connected
  }
}

if (!isMainThread && workerData?.shared !== undefined) new Thread().run();

module.exports = { Watch };
