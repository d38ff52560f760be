'use strict';
// Sends the output of functions to the daemon, with the ID of the call that printed it.

const { AsyncLocalStorage } = require('node:async_hooks');
const { StringDecoder } = require('node:string_decoder');

// The call that runs, also in the callbacks and promises that it started; undefined outside of calls.
const current = new AsyncLocalStorage();

const MAX = 16 << 10; // characters of a line
const LEVELS = { debug: 'DEBUG', warn: 'WARNING', error: 'ERROR' };

/** Replaces the output of process.stdout and process.stderr, and gives lines of console a level. */
class Output {
  #writer;
  #outside = new Map(); // unfinished lines outside of calls, by stream
  #level = null; // of the console method that writes now

  constructor(writer) {
    this.#writer = writer;
    this.#stand('stdout');
    this.#stand('stderr');
    for (const [name, level] of Object.entries(LEVELS)) {
      const plain = console[name];
      console[name] = (...args) => {
        const before = this.#level;
        this.#level = level;
        try {
          plain.apply(console, args);
        } finally {
          this.#level = before;
        }
      };
    }
  }

  #stand(name) {
    const stream = process[name];
    stream.write = (chunk, encoding, done) => {
      if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
      this.#write(name, chunk, encoding);
      if (typeof done === 'function') process.nextTick(done, null);
      return true;
    };
  }

  #write(name, chunk, encoding) {
    const call = current.getStore();
    const open = call?.open === true;
    const parts = open ? (call.parts ??= new Map()) : this.#outside;
    const part = parts.get(name) ?? { text: '', decoder: null };
    if (typeof chunk === 'string' && (encoding === undefined || /^utf-?8$/i.test(encoding))) {
      part.text += chunk;
    } else {
      part.decoder ??= new StringDecoder();
      part.text += part.decoder.write(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
    }
    const id = open ? call.id : -1;
    if (this.#level !== null && part.text.endsWith('\n')) { // one record, even with several lines
      this.say(id, this.#level, 'console', part.text.slice(0, -1));
      parts.delete(name);
      return;
    }
    const lines = part.text.split('\n');
    part.text = lines.pop();
    for (; part.text.length > MAX; part.text = part.text.slice(MAX)) lines.push(part.text.slice(0, MAX));
    if (part.text === '' && part.decoder === null) parts.delete(name);
    else parts.set(name, part);
    for (const line of lines) this.say(id, 'INFO', name, line);
  }

  say(id, level, logger, text) {
    for (let at = 0; at < text.length; at += MAX) {
      const piece = text.slice(at, at + MAX);
      if (piece.trim() !== '') this.#writer.log({ id, level, logger, text: piece });
    }
  }

  /** Sends the unfinished lines of a call. */
  end(call) {
    if (call.parts === undefined) return;
    for (const [name, part] of call.parts) this.say(call.id, 'INFO', name, part.text + (part.decoder?.end() ?? ''));
    call.parts = undefined;
  }
}

/** Replaces Output for a daemon that accepts no log: output goes to the standard streams. */
class NoOutput {
  say(id, level, logger, text) { process.stderr.write(`${text}\n`); }
  end() {}
}

module.exports = { Output, NoOutput, current };
