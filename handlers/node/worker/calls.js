'use strict';
// Runs what the daemon invokes, and answers.

const frames = require('./frames');
const { current } = require('./logs');
const { Context, Message, cancel } = require('./message');
const { atEnd } = require('./end');
const { outcome, stack } = require('./outcome');
const { Unsendable } = require('./results');

// Answers that wait for company are sent after so many ms at the latest.
const LINGER = 0.3;
// How long functions run before the loop looks at sockets and timers, in ms.
const SLICE = 1;
// A call that keeps the loop for less is quick, in ms; answers wait behind calls of a
// function of which so many in a row were, and behind no others.
const QUICK = 0.1;
const STEADY = 32;

/** First in, first out. */
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
 * The calls of a worker. Async functions run together; of those that are not so many
 * at once as the daemon has threads in mind: the one that runs, and those whose promises
 * are waited for.
 */
class Calls {
  #open = []; // by the daemon's id
  #count = 0;
  #async = new Queue(); // those that have not begun
  #sync = new Queue();
  #held = 0; // so many calls of functions that are not async wait for their promise
  #again = false; // pump is to run
  #flushing = false; // flush is
  #pumping = false;
  #draining = false;
  #left = false; // it ends

  constructor(functions, threads, writer, output, lag, watch) {
    this.functions = functions;
    this.threads = threads;
    this.writer = writer;
    this.output = output;
    this.lag = lag;
    this.watch = watch;
    writer.drained = () => this.pump();
  }

  get busy() { return this.#count > 0; }

  /** Takes an INVOKE, as cutInvoke gives it. */
  invoke(call) {
    if (this.#draining) throw new Error('an INVOKE after DRAIN');
    call.function = this.functions[call.index];
    if (call.function === undefined) throw new Error(`an INVOKE of function ${call.index}, of ${this.functions.length}`);
    if (this.#open[call.id] !== undefined) throw new Error(`an INVOKE of ${call.id}, which is in use`);
    call.open = true;
    call.began = 0;
    call.changed = false; // its session's state
    call.context = undefined;
    call.parts = undefined; // lines that are not finished
    call.holds = false; // the calls behind it
    this.#open[call.id] = call;
    this.#count++;
    (call.function.isAsync ? this.#async : this.#sync).push(call);
    this.lag?.came();
    this.watch?.came();
  }

  /** Gives a call up. */
  cancel(id) {
    const call = this.#open[id];
    if (call === undefined) return;
    if (call.context === undefined) {
      this.#answer(call, frames.NOT_TRIED, 0, frames.EMPTY); // and the queue passes it over
      return;
    }
    cancel(call.context);
  }

  /** Ends the process when all is answered. */
  drain() {
    this.#draining = true;
    this.#leave();
  }

  #leave() {
    if (!this.#draining || this.#count > 0 || this.#left) return;
    this.#left = true;
    atEnd(this.output).finally(() => {
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

  /** Begins what waits, for a while. */
  pump() {
    if (this.#pumping) return;
    const { writer } = this;
    const until = performance.now() + SLICE;
    this.#pumping = true;
    // While the daemon does not take answers, nothing new begins: what is to be sent
    // must not wait behind a call, nor grow without end.
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

  /** Calls a function, and returns when it returned. */
  #begin(call) {
    const { function: of } = call;
    const message = new Message(call);
    call.context = new Context(call, message);
    call.began = performance.now();
    this.watch?.begins(call);
    let value;
    let failed = false;
    try {
      value = current.run(call, of.run, message, call.context);
      if (value !== null && typeof value === 'object' && typeof value.then === 'function') {
        const promise = value instanceof Promise ? value : Promise.resolve(value);
        promise.then((result) => this.#done(call, result), (error) => this.#failed(call, error));
        if (!of.isAsync) this.#hold(call);
        failed = undefined; // nobody knows yet
      }
    } catch (error) {
      failed = true;
      value = error;
    }
    this.watch?.waits();
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
    let status;
    let payload;
    try {
      [status, payload] = call.function.encode(value);
    } catch (error) {
      if (!call.function.shown || !(error instanceof Unsendable)) {
        this.#failed(call, error, now);
        return;
      }
      this.output.say(call.id, 'WARNING', 'drover', `${call.function.name} ${error.message}`);
      [status, payload] = [frames.OK, frames.EMPTY];
    }
    if (!call.changed) {
      this.#answer(call, status, now - call.began, payload);
      return;
    }
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(call.state === null ? frames.NO_STATE : call.state.length);
    this.#answer(call, frames.STATE | (status & frames.DESCRIBED), now - call.began, Buffer.concat([length, call.state ?? frames.EMPTY, payload]));
  }

  #failed(call, error, now = performance.now()) {
    if (!call.open) return;
    const [status, payload] = outcome(error);
    this.#answer(call, status, now - call.began, payload);
  }

  /** Queues an answer, after all that the call said. */
  #answer(call, status, took, payload) {
    this.output.end(call);
    call.open = false;
    this.#open[call.id] = undefined;
    this.#count--;
    this.writer.result(call.id, status, took, payload);
    if (call.holds) {
      call.holds = false;
      this.#held--;
      this.#soon();
    }
    if (this.#pumping || this.#flushing) return;
    // It came to its end on the loop; others may in this turn.
    this.#flushing = true;
    setImmediate(() => {
      this.#flushing = false;
      this.writer.flush();
      this.#leave();
    });
  }

  /**
   * Takes an error that nobody caught. It fails the call whose it is; where that has
   * been answered, it can only be told. The error is not taken where it is no call's.
   */
  stray(error, what) {
    const call = current.getStore();
    if (call === undefined) return false;
    if (call.open) {
      this.#failed(call, error);
      cancel(call.context); // what it has set going has no purpose any more
    } else {
      this.output.say(-1, 'ERROR', 'drover', `${call.function.name}: ${what} after the call had been answered: ${stack(error)}; is an await missing?`);
    }
    return true;
  }
}

module.exports = { Calls };
