'use strict';
// Samples the stacks of one function's calls with V8's profiler, for a profile that the daemon
// requests by PROFILE. While it runs, the function is called by profiledCall, whose frame marks its
// stacks. Code that runs later, after an await or in a callback, is not below it: that counts, unless
// it is below the start of another function's call.

const { Session } = require('node:inspector');
const { fileURLToPath } = require('node:url');
const { PROFILED } = require('./frames');

// Bounds of a result, as in docs/worker-protocol.md: its stacks, the frames of each, its lines of
// code, the characters of a name, and the bytes of the frame.
const MAX_STACKS = 10_000, MAX_FRAMES = 128, MAX_LINES = 20_000, MAX_TEXT = 500, MAX_SIZE = (8 << 20) - 1;

class Profiler {
  #writer;
  #functions;
  #session; // while a profile runs
  #number = 0;
  #restore; // removes the marker

  /** functions has the worker's functions, by the daemon's index. */
  constructor(writer, functions) {
    this.#writer = writer;
    this.#functions = functions;
  }

  /** Handles a PROFILE. Throws if it is invalid. */
  take({ profile, function: index, period_us: period }) {
    const of = this.#functions[index];
    if (of === undefined || !Number.isSafeInteger(profile) || !(period >= 0)) throw new Error(`a PROFILE of function ${index}, with the period ${period}`);
    if (period > 0) {
      this.finish();
      this.#start(profile, of, period);
    } else if (profile === this.#number) {
      this.finish();
    }
  }

  #start(number, of, period) {
    const { run } = of;
    this.#number = number;
    try {
      this.#session = new Session();
      this.#session.connect();
      this.#post('Profiler.enable');
      this.#post('Profiler.setSamplingInterval', { interval: Math.max(Math.round(period), 100) });
      this.#post('Profiler.start');
    } catch (error) {
      this.#end({ error: String(error?.message ?? error) });
      return;
    }
    of.run = function profiledCall(...given) { return Reflect.apply(run, this, given); };
    this.#restore = () => { of.run = run; };
  }

  /** Ends a running profile, and sends its result. */
  finish() {
    if (this.#session === undefined) return;
    try {
      this.#end(convert(this.#post('Profiler.stop').profile));
    } catch (error) {
      this.#end({ error: String(error?.message ?? error) });
    }
  }

  /** Returns the result of a method of the inspector, which answers at once in its own thread. */
  #post(method, params) {
    let failure;
    let result;
    this.#session.post(method, params, (error, value) => { [failure, result] = [error, value]; });
    if (failure) throw new Error(`${method}: ${failure.message}`);
    return result;
  }

  #end(result) {
    this.#restore?.();
    this.#restore = undefined;
    this.#session.disconnect();
    this.#session = undefined;
    const { error, lines = [], stacks = [], dropped = { samples: 0, time_us: 0 } } = result;
    for (;;) {
      const payload = { profile: this.#number, lines, stacks, dropped, ...(error === undefined ? {} : { error: error.slice(0, MAX_TEXT) }) };
      if (stacks.length === 0 || Buffer.byteLength(JSON.stringify(payload)) < MAX_SIZE) {
        this.#writer.json(PROFILED, stacks.length === 0 ? { ...payload, lines: [] } : payload);
        this.#writer.flush();
        return;
      }
      for (const { samples, time_us: time } of stacks.splice(stacks.length >> 1)) { // those with the least time
        dropped.samples += samples;
        dropped.time_us += time;
      }
    }
  }
}

/** Returns the lines and stacks of a profile of V8, the stacks with the most time first. */
function convert({ nodes, samples = [], timeDeltas = [] }) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const node of nodes) for (const child of node.children ?? []) byId.get(child).parent = node;
  const lines = [];
  const known = new Map(); // the index of a line, by its text
  const found = new Map(); // counts, by stack
  const dropped = { samples: 0, time_us: 0 };
  const add = (counts, time) => {
    counts.samples++;
    counts.time_us += Math.max(time, 0);
  };
  const indexOf = (frame) => {
    const key = JSON.stringify(frame);
    let index = known.get(key);
    if (index === undefined) {
      if (lines.length === MAX_LINES) return undefined;
      index = lines.push(frame) - 1;
      known.set(key, index);
    }
    return index;
  };
  const stackOf = new Map(nodes.map((node) => [node.id, ownFrames(node)]));
  samples.forEach((id, at) => {
    const frames = stackOf.get(id);
    if (frames.length === 0) return;
    const stack = frames.slice(0, MAX_FRAMES).map(indexOf);
    const key = stack.join();
    if (!found.has(key)) {
      if (found.size === MAX_STACKS || stack.includes(undefined)) {
        add(dropped, timeDeltas[at]);
        return;
      }
      found.set(key, { stack, samples: 0, time_us: 0 });
    }
    add(found.get(key), timeDeltas[at]);
  });
  return { lines, stacks: [...found.values()].sort((a, b) => b.time_us - a.time_us), dropped };
}

/** Returns the frames of a node that belong to the function, the innermost first. */
function ownFrames(node) {
  if (node.callFrame.url === '' && node.callFrame.functionName.startsWith('(')) return []; // idle, program, garbage collector
  const frames = [];
  let end = 0; // of the frames of the app
  for (let at = node; at.parent !== undefined; at = at.parent) {
    const { functionName: name, url, lineNumber: line } = at.callFrame;
    const file = pathOf(url);
    if (file === __filename && name === 'profiledCall') return frames;
    if (file.startsWith(__dirname) && name === '#begin') return []; // another function's call
    frames.push({ function: (name || '(anonymous)').slice(0, MAX_TEXT), file: file.slice(0, MAX_TEXT), line: line + 1, start: line + 1 });
    if (file !== '' && !file.startsWith('node:') && !file.startsWith(__dirname)) end = frames.length;
  }
  return frames.slice(0, end);
}

function pathOf(url) {
  if (!url.startsWith('file:')) return url;
  try {
    return fileURLToPath(url);
  } catch {
    return url;
  }
}

module.exports = { Profiler };
