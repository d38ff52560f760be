'use strict';
// Runs the calls that the daemon invokes, and sends their results.

const frames = require('./frames');
const { current } = require('./logs');
const { encodeBatch } = require('./batches');
const { Context, Message, cancel } = require('./message');
const { atEnd } = require('./end');
const { outcome, stack } = require('./outcome');
const { Misaddressed, Unsendable } = require('./results');
const { resultAfter, sendParts, streamed } = require('./streaming');

// The longest time that a result waits to be sent together with others, in ms.
const LINGER = 0.3;
// The time that functions may run before the loop handles sockets and timers, in ms.
const SLICE = 1;
// A call is quick if it occupies the loop for less than QUICK ms. Results wait only while
// functions run whose last STEADY calls were all quick.
const QUICK = 0.1;
const STEADY = 32;

/** A queue: first in, first out. */
class Queue {
  #items = [];
  #head = 0;

  get length() { return this.#items.length - this.#head; }

  push(item) { this.#items.push(item); }

  shift() {
    const item = this.#items[this.#head];
    this.#items[this.#head++] = undefined;
    if (this.#head === this.#items.length) {
      this.#items.length = this.#head = 0;
    } else if (this.#head > 4096) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }
}

/**
 * The calls of a worker. Async functions run concurrently. Of sync functions, at most as many
 * calls are open as the daemon configured threads: the running one, and those that have returned
 * a promise that is pending.
 */
class Calls {
  #open = []; // by the daemon's id
  #count = 0;
  #async = new Queue(); // calls that have not started
  #sync = new Queue();
  #held = 0; // the number of calls of sync functions with a pending promise
  #again = false; // pump is scheduled
  #flushing = false; // turnEnds has scheduled what it does
  #pumping = false;
  #draining = false;
  #left = false; // the process ends

  constructor(functions, threads, writer, output, lag, watch, profiler) {
    this.functions = functions;
    this.threads = threads;
    this.writer = writer;
    this.output = output;
    this.lag = lag;
    this.watch = watch;
    this.profiler = profiler;
    writer.drained = () => this.pump();
  }

  get busy() { return this.#count > 0; }

  /** Queues the call of an INVOKE, as cutInvoke returns it. */
  invoke(call) {
    if (this.#draining) throw new Error('an INVOKE after DRAIN');
    call.function = this.functions[call.index];
    if (call.function === undefined) throw new Error(`an INVOKE of function ${call.index}, of ${this.functions.length}`);
    if (this.#open[call.id] !== undefined) throw new Error(`an INVOKE of ${call.id}, which is in use`);
    call.open = true;
    call.began = 0;
    call.changed = false; // whether it set its session's state
    call.context = undefined;
    call.parts = undefined; // unfinished lines of its output
    call.holds = false; // whether it counts in #held
    call.stream = undefined; // of a response that is sent in parts
    call.stop = undefined; // ends that
    this.#open[call.id] = call;
    this.#count++;
    (call.function.isAsync ? this.#async : this.#sync).push(call);
    this.lag?.came();
  }

  /** Cancels a call. */
  cancel(id) {
    const call = this.#open[id];
    if (call === undefined) return;
    if (call.context === undefined) {
      this.#answer(call, frames.NOT_TRIED, 0, frames.EMPTY); // the queue skips it
      return;
    }
    cancel(call.context);
    call.stop?.();
  }

  /** Adds credit to the response of a call, which may have ended. */
  grant(id, amount) { this.#open[id]?.stream?.grant(amount); }

  /** Ends the process after the last result. */
  drain() {
    this.#draining = true;
    this.#leave();
  }

  #leave() {
    if (!this.#draining || this.#count > 0 || this.#left) return;
    this.#left = true;
    atEnd(this.output).finally(() => {
      this.profiler.finish();
      this.writer.end();
      process.exit(0);
    });
  }

  #next() {
    for (;;) {
      const queue = this.#sync.length > 0 && this.#held < this.threads ? this.#sync : this.#async;
      if (queue.length === 0) return undefined;
      const call = queue.shift();
      if (call.open) return call;
    }
  }

  /** Starts queued calls, for about SLICE ms. */
  pump() {
    if (this.#pumping) return;
    const { writer } = this;
    const until = performance.now() + SLICE;
    this.#pumping = true;
    // While the daemon does not read results, no call is started: results must not
    // wait for a call's end, and their number is bounded.
    while (!writer.crowded) {
      const call = this.#next();
      if (call === undefined) break;
      if (writer.waits && call.function.quick < STEADY) writer.flush();
      const now = this.#begin(call);
      if (now - writer.last > LINGER) writer.flush();
      if (now > until) {
        this.#soon();
        break;
      }
    }
    this.#pumping = false;
    writer.flush();
    this.#leave();
  }

  #soon() {
    if (this.#again) return;
    this.#again = true;
    setImmediate(() => {
      this.#again = false;
      this.pump();
    });
  }

  /** Calls a function, and returns the time of its return. A promise is handled later. */
  #begin(call) {
    const { function: of } = call;
    let message;
    if (call.batch === undefined) {
      message = new Message(call);
      call.context = new Context(call, message);
    } else {
      message = frames.cutBatch(call.batch).map((one) => new Message(one));
      call.context = new Context(call, message[0]);
      call.batch = message;
    }
    const { watch } = this;
    if (watch !== undefined) {
      if (!watch.awake && of.quick < STEADY) watch.begin();
      watch.begins(call);
    }
    call.began = performance.now();
    let value;
    let failed = false;
    try {
      value = current.run(call, of.run, message, call.context);
      if (value !== null && typeof value === 'object' && typeof value.then === 'function') {
        const promise = value instanceof Promise ? value : Promise.resolve(value);
        promise.then((result) => this.#done(call, result), (error) => this.#failed(call, error));
        if (!of.isAsync) this.#hold(call);
        failed = undefined; // unknown until the promise is settled
        if (watch?.awake === false) this.#turnEnds();
      }
    } catch (error) {
      failed = true;
      value = error;
    }
    watch?.waits();
    const now = performance.now();
    of.quick = now - call.began < QUICK ? of.quick + 1 : 0;
    if (failed === true) this.#failed(call, value, now);
    else if (failed === false) this.#done(call, value, now);
    return now;
  }

  #hold(call) {
    this.#held++;
    call.holds = true;
    const { function: of } = call;
    if (of.warned) return;
    of.warned = true;
    this.output.say(call.id, 'WARNING', 'drover', `${of.name} returned a promise, but is not declared async: each worker runs ${this.threads === 1 ? 'one call' : `${this.threads} calls`} of it at a time; make it async, as in: async (message, context) => ${of.run.name.replace('bound ', '') || 'f'}(message, context)`);
  }

  #done(call, value, now = performance.now()) {
    if (!call.open) return;
    const response = call.function.streams && call.stream === undefined ? streamed(value) : undefined;
    if (response !== undefined) {
      this.#stream(call, value, response);
      return;
    }
    let status;
    let payload;
    let fields;
    try {
      [status, payload, fields] = call.batch === undefined ? call.function.encode(value) : encodeBatch(value, call.batch, call.function.encode);
    } catch (error) {
      if (!call.function.shown || !(error instanceof Unsendable) || error instanceof Misaddressed) {
        this.#failed(call, error, now);
        return;
      }
      this.output.say(call.id, 'WARNING', 'drover', `${call.function.name} ${error.message}`);
      [status, payload] = [frames.OK, frames.EMPTY];
    }
    if (!call.changed) {
      this.#answer(call, status, now - call.began, payload, fields);
      return;
    }
    fields = Buffer.concat([frames.putState(call.state), fields ?? frames.EMPTY]);
    this.#answer(call, frames.STATE | (status & (frames.DESCRIBED | frames.SENT)), now - call.began, payload, fields);
  }

  /** Sends a response in parts, and then the result. */
  async #stream(call, value, response) {
    let fail; // rejects the current wait; with Promise.race, each wait would leave something behind
    const stopped = () => new DOMException('the attempt was cancelled', 'AbortError');
    call.stop = () => fail?.(stopped());
    const wait = (value) => new Promise((resolve, reject) => {
      fail = reject;
      if (call.context.cancelled) reject(stopped());
      Promise.resolve(value).then(resolve, reject);
    });
    try {
      const rest = await sendParts(this.writer, call.id, response, {
        opened: (stream) => { call.stream = stream; },
        run: (next) => current.run(call, next),
        wait,
      });
      this.#done(call, resultAfter(value, rest));
    } catch (error) {
      this.#failed(call, error);
    }
  }

  #failed(call, error, now = performance.now()) {
    if (!call.open) return;
    const [status, payload] = outcome(error);
    this.#answer(call, status, now - call.began, payload);
  }

  /** Queues a result, after the call's output lines. */
  #answer(call, status, took, payload, fields) {
    this.output.end(call);
    call.open = false;
    this.#open[call.id] = undefined;
    this.#count--;
    this.writer.result(call.id, status, took, payload, fields);
    if (call.holds) {
      call.holds = false;
      this.#held--;
      this.#soon();
    }
    if (this.#count === 0) this.watch?.ended();
    if (!this.#pumping) this.#turnEnds(); // the call ended outside pump; others may end in the same turn of the loop
  }

  /** Sends results at the end of the turn of the loop, and has the loop watched if calls wait then. */
  #turnEnds() {
    if (this.#flushing) return;
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.writer.flush();
      if (this.#count > 0 && this.watch?.awake === false) this.watch.begin();
      this.#leave();
    });
  }

  /**
   * Handles an uncaught error. It fails the call that caused it; if that call has already
   * ended, the error is logged. Returns false if no call caused it.
   */
  stray(error, what) {
    const call = current.getStore();
    if (call === undefined) return false;
    if (call.open) {
      this.#failed(call, error);
      cancel(call.context); // so that its pending operations stop
    } else {
      this.output.say(-1, 'ERROR', 'drover', `${call.function.name}: ${what} after the call had been answered: ${stack(error)}; is an await missing?`);
    }
    return true;
  }
}

module.exports = { Calls };
