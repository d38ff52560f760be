'use strict';
// A worker process: reads invocations from file descriptor 3 and writes their results to it.

const { writeSync } = require('node:fs');
const { Socket } = require('node:net');
const frames = require('./frames');
const { Calls } = require('./calls');
const debug = require('./debug');
const { Lag } = require('./lag');
const { Imports } = require('./imports');
const { LoadError, load } = require('./load');
const { NoOutput, Output, current } = require('./logs');
const { oneLine, stack } = require('./outcome');
const { Profiler } = require('./profiling');
const { Watch } = require('./watch');

const CAPABILITIES = ['batch', 'blocked', 'cancel', 'heartbeat', 'imports', 'log', 'origin', 'outputs', 'profile', 'properties', 'session_state', 'stats', 'stream'];

const writer = new frames.Writer(3);
let daemon; // its capabilities
let output;
let calls;
let profiler;
let loading = false;
let draining = false;

/** Ends the process. All frames must have been sent. */
function leave(status) {
  process.off('exit', exitWhileLoading);
  process.exit(status);
}

function broken(error) {
  process.stderr.write(`the daemon broke the protocol: ${oneLine(error)}\n`);
  leave(1);
}

/** Handles one frame. Throws if it is not allowed now. */
function take(kind, payload) {
  switch (kind) {
    case frames.HELLO:
      if (daemon !== undefined) throw new Error('a second HELLO');
      hello(object(kind, payload));
      return;
    case frames.LOAD:
      if (daemon === undefined || loading || calls !== undefined) throw new Error('a LOAD that is not due');
      loading = true;
      start(object(kind, payload));
      return;
    case frames.INVOKE:
      if (calls === undefined) throw new Error('an INVOKE before READY');
      calls.invoke(payload);
      return;
    case frames.CANCEL:
      if (calls === undefined) throw new Error('a CANCEL before READY');
      calls.cancel(payload.readUInt32LE(0));
      return;
    case frames.CREDIT:
      if (calls === undefined) throw new Error('a CREDIT before READY');
      calls.grant(payload.readUInt32LE(0), payload.readUInt32LE(4));
      return;
    case frames.PROFILE:
      if (profiler === undefined) throw new Error('a PROFILE before READY');
      profiler.take(object(kind, payload));
      return;
    case frames.DRAIN:
      draining = true;
      if (calls === undefined) leave(0); // nothing was invoked
  }
}

function object(kind, payload) {
  const value = JSON.parse(payload);
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Error(`a frame of type ${kind} whose JSON is not an object`);
  return value;
}

function hello({ protocol, max_frame: max, capabilities }) {
  daemon = new Set(capabilities);
  reader.max = writer.max = max;
  writer.json(frames.WELCOME, {
    protocol: frames.PROTOCOL, pid: process.pid, language: 'Node.js', version: process.versions.node, capabilities: CAPABILITIES,
  });
  writer.flush();
  if (protocol !== frames.PROTOCOL) leave(0); // the daemon reports the mismatch
}

async function start({ app, functions, threads }) {
  output = daemon.has('log') ? new Output(writer) : new NoOutput();
  process.on('exit', exitWhileLoading);
  const imports = daemon.has('imports') ? new Imports(app, writer) : undefined;
  let loaded;
  debug.start();
  try {
    loaded = await load(app, functions, imports, daemon.has('stream'));
  } catch (error) {
    failed(error instanceof LoadError ? error.message : `loading from ${app}: ${oneLine(error)}`, error.detail ?? stack(error));
    leave(0);
  }
  process.off('exit', exitWhileLoading);
  // Sync code may block the loop, so its lag is measured only for async functions.
  const lag = daemon.has('stats') && loaded.some(({ isAsync }) => isAsync) ? new Lag(writer, () => calls.busy) : undefined;
  const wants = { alive: daemon.has('heartbeat'), blocked: daemon.has('blocked') };
  const watch = wants.alive || wants.blocked ? new Watch(writer, () => calls.busy, () => current.getStore(), wants) : undefined;
  profiler = new Profiler(writer, loaded);
  calls = new Calls(loaded, threads, writer, output, lag, watch, profiler);
  loading = false;
  imports?.ready(watch?.thread);
  writer.json(frames.READY, { functions: loaded.map(({ name, isAsync }) => ({ name, kind: isAsync ? 'async' : 'sync' })) });
  writer.flush();
}

function failed(summary, detail) {
  writer.json(frames.FAILED, { summary, detail });
  writer.end();
}

function exitWhileLoading(status) {
  failed(`the code ended the process, with exit status ${status}, while it was loaded`, '');
}

/**
 * Handles an uncaught error. If no call caused it, the process ends, as Node.js does by
 * default, because the app's state is unknown. A listener of the app replaces that.
 */
function stray(error, what, event) {
  if (calls?.stray(error, what) || process.listenerCount(event) > 1) return;
  writeSync(2, `${what} outside of any call: ${stack(error)}\n`); // the daemon reports a dead worker's last lines of standard error
  writer.end();
  leave(1);
}

process.on('SIGINT', () => {}); // the daemon handles a terminal's Ctrl-C
process.on('uncaughtException', (error) => stray(error, 'an uncaught exception', 'uncaughtException'));
process.on('unhandledRejection', (error) => stray(error, 'an unhandled rejection', 'unhandledRejection'));

const reader = new frames.Reader(take);
const socket = new Socket({
  fd: 3,
  readable: true,
  writable: false,
  onread: {
    buffer: () => reader.space(),
    callback: (n) => {
      try {
        reader.filled(n);
      } catch (error) {
        broken(error);
      }
      calls?.pump();
      if (draining) calls?.drain();
      return true;
    },
  },
});
// The daemon is gone, so the results are not needed.
socket.on('end', () => leave(0));
socket.on('error', () => leave(0));
