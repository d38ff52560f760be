'use strict';
// A thread beside the main thread. It sends ALIVE each second, detects that the event loop
// is blocked, and finds the function that blocks it.

const { readFileSync, writeSync } = require('node:fs');
const { Worker, isMainThread, workerData } = require('node:worker_threads');
const { ALIVE, BLOCKED, HEAD } = require('./frames');

// The memory that both threads share: 32-bit numbers.
const LOCK = 0; // 1 while one of them writes to the daemon, or has written part of a frame
const ACTIVE = 1; // 1 while the main thread counts turns
const TURN = 2; // counts the calls, and while ACTIVE the turns of the loop
const CALL = 3; // the ID of the call whose code runs before its first await; -1: none
const FUNCTION = 4; // the index of its function
const OPEN = 5; // 1 while a call is in flight
const SIZE = 6;

const TICK = 20; // the time between two counted turns, in ms
const LOOK = 30; // the time between two checks, in ms; between two, a loop that is not blocked turns
const LATE = 60; // the loop is blocked if no turn was counted for so long, in ms,
const WORK = 20e6; // and the main thread has used the processor for so long meanwhile, in ns, or sleeps
const PAUSE = 500; // the time limit for pausing the main thread, in ms
const SECOND = 1000;
const REST = 10; // the number of turns without a call in flight after which counting stops

// The global function that returns the running call; it is evaluated while the main thread is paused.
const WHOSE = Symbol.for('drover.whose');

/**
 * The main thread's side. It counts turns while calls are in flight that may take long. If only quick
 * ones are, the thread notices within a second that one of them has not ended.
 */
class Watch {
  #shared = new Int32Array(new SharedArrayBuffer(4 * SIZE));
  #busy;
  #idle = 0;
  #timer = setTimeout(() => this.#turn(), TICK); // created here: in a call, it would keep the call
  awake = true; // whether it counts turns; if so, begin need not be called

  /** busy reports whether a call is in flight. whose returns the running call, or undefined. */
  constructor(writer, busy, whose, { alive, blocked }) {
    this.#busy = busy;
    this.#shared[CALL] = -1;
    this.#shared[ACTIVE] = 1;
    writer.share(this.#shared, LOCK);
    globalThis[WHOSE] = () => {
      const call = whose();
      return call?.open ? `${call.id} ${call.index}` : '';
    };
    const thread = this.thread = new Worker(__filename, {
      workerData: { shared: this.#shared, alive, blocked }, execArgv: [], env: {},
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    thread.on('error', () => {}); // the worker continues without the thread
    thread.unref();
  }

  /** Called before a call that may take long, or when one waits. */
  begin() {
    this.awake = true;
    this.#idle = 0;
    this.#shared[TURN]++;
    Atomics.store(this.#shared, ACTIVE, 1);
    Atomics.notify(this.#shared, ACTIVE);
    this.#timer.refresh();
  }

  #turn() {
    this.#shared[TURN]++;
    this.#idle = this.#busy() ? 0 : this.#idle + 1;
    if (this.#idle < REST) {
      this.#timer.refresh();
      return;
    }
    this.awake = false;
    Atomics.store(this.#shared, ACTIVE, 0);
  }

  /** Called when a call begins. */
  begins(call) {
    const shared = this.#shared;
    shared[TURN]++;
    shared[FUNCTION] = call.index;
    shared[CALL] = call.id;
    shared[OPEN] = 1;
  }

  /** Called when its function has returned. */
  waits() { this.#shared[CALL] = -1; }

  /** Called when the last call has ended. */
  ended() { this.#shared[OPEN] = 0; }
}

/** The thread's side. */
class Thread {
  #shared = workerData.shared;
  #said = performance.now(); // the time of the last ALIVE
  #turn = -1; // the turn at the last check,
  #since = 0; // the time of the first check with it,
  #used; // and the main thread's use of the processor at the second check with it
  #block = null; // the current block
  #blocks = 0;

  async run() {
    for (;;) {
      const active = Atomics.load(this.#shared, ACTIVE);
      if (!workerData.blocked || this.#block === null && !this.#inFlight()) {
        Atomics.wait(this.#shared, ACTIVE, active, workerData.alive ? Math.max(this.#said + SECOND - performance.now(), 1) : SECOND);
        this.#turn = -1;
      } else {
        Atomics.wait(this.#shared, ACTIVE, active, LOOK);
        await this.#look();
      }
      if (workerData.alive && performance.now() - this.#said >= SECOND && send(this.#shared, ALIVE, '')) this.#said = performance.now();
    }
  }

  #inFlight() { return Atomics.load(this.#shared, ACTIVE) !== 0 || Atomics.load(this.#shared, OPEN) !== 0; }

  async #look() {
    const now = performance.now();
    const turn = Atomics.load(this.#shared, TURN);
    if (turn !== this.#turn || !this.#inFlight()) {
      this.#over(now);
      [this.#turn, this.#since, this.#used] = [turn, now, undefined];
      return;
    }
    if (this.#block !== null) return;
    if (this.#used === undefined) {
      this.#used = used(); // reading it takes several system calls
      return;
    }
    if (now - this.#since < LATE) return;
    if (used().run - this.#used.run < WORK && !asleep()) return; // it waits for a processor
    let [id, index] = [this.#shared[CALL], this.#shared[FUNCTION]];
    const { whose = '', stack = [] } = await where();
    if (Atomics.load(this.#shared, TURN) !== turn) return; // the block is over, and was short
    if (whose !== '') [id, index] = whose.split(' ').map(Number);
    if (id < 0) index = -1;
    const own = stack.filter((frame) => !frame.includes(__dirname) && !frame.includes('node:'));
    this.#block = {
      block: ++this.#blocks, id, function: index, message: '', gil: false,
      place: (own[0] ?? stack[0] ?? 'native code').slice(0, 4096), stack: own.join('\n').slice(0, 16384),
    };
    this.#report(performance.now(), false);
  }

  #over(now) {
    if (this.#block === null) return;
    this.#report(now, true);
    this.#block = null;
  }

  #report(now, over) {
    const took = Math.round((now - this.#since) * 1000);
    const { at, run, wait } = used();
    const awake = (run - this.#used.run + wait - this.#used.wait) / 1e6 / (at - this.#used.at); // the part of the time
    const text = JSON.stringify({ ...this.#block, took_us: took, asleep_us: Math.round(took * Math.max(1 - awake, 0)), over });
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
        if (error.code !== 'EAGAIN') return true; // the daemon is gone; the main thread handles that
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

/**
 * Returns the time in ms, and how long the main thread has run, and waited for a processor, in ns. If the
 * system does not report it, all time counts as run.
 */
function used() {
  const at = performance.now();
  try {
    const [run, wait] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ').map(Number);
    return { at, run, wait };
  } catch {
    return { at, run: at * 1e6, wait: 0 };
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
 * Pauses the main thread for a moment, if it runs JavaScript. Returns the frames of its
 * stack, the innermost first, and the ID and function of the running call.
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
      session?.disconnect(); // the main thread continues
    } catch {} // it was not connected
  }
}

if (!isMainThread && workerData?.shared !== undefined) new Thread().run();

module.exports = { Watch };
