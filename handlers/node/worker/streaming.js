'use strict';
// Sends the response of a call in parts, as far as the daemon has granted credit.

const { types } = require('node:util');
const { putHead } = require('./frames');
const { Outputs, Response } = require('./modules/drover');
const { BYTES_TYPE, TEXT_TYPE, article } = require('./results');

// The credit of a stream at its beginning, in bytes; docs/worker-protocol.md.
const WINDOW = 256 << 10;
// The most bytes of a body in one part.
const PIECE = 64 << 10;
// The longest head: a PART has 256 KiB at most.
const MAX_HEAD = 128 << 10;

/** The response of one call in parts. */
class Stream {
  #writer;
  #id;
  #head;
  #sent = 0;
  #granted = WINDOW;
  #wake;

  constructor(writer, id, status, headers) {
    this.#writer = writer;
    this.#id = id;
    this.#head = putHead(status, headers);
    if (this.#head.length > MAX_HEAD) throw new RangeError(`the headers of the response have ${this.#head.length} bytes; the maximum is ${MAX_HEAD}`);
  }

  grant(amount) {
    this.#granted += amount;
    this.#wake?.();
  }

  /** Sends bytes, and waits for credit. */
  async write(data) {
    do {
      const n = Math.min(data.length, this.#granted - this.#sent, PIECE);
      if (n > 0 || this.#head !== undefined) {
        this.#writer.part(this.#id, data.subarray(0, n), this.#head);
        this.#head = undefined;
        this.#sent += n;
        data = data.subarray(n);
      } else {
        await new Promise((resolve) => { this.#wake = resolve; });
        this.#wake = undefined;
      }
    } while (data.length > 0);
  }
}

const isIterator = (value) => typeof value === 'object' && value !== null && !types.isProxy(value)
  && (typeof value[Symbol.asyncIterator] === 'function' || typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function');

/**
 * Returns a response whose body is sent in parts; undefined for any other return value. It is a
 * Response with such a body, an iterator, a stream, or a Response of fetch.
 */
function streamed(value) {
  if (typeof value !== 'object' || value === null) return undefined;
  if (value instanceof Outputs) return streamed(value.result);
  if (value instanceof Response) return isIterator(value.body) ? value : undefined;
  if (globalThis.Response !== undefined && value instanceof globalThis.Response) {
    return new Response(value.body ?? [][Symbol.iterator](), { status: value.status, headers: [...value.headers] });
  }
  return isIterator(value) ? new Response(value) : undefined;
}

/** Returns the result of a call after the response that streamed has found in a value. */
const resultAfter = (value, rest) => (value instanceof Outputs ? new Outputs(value.messages, rest) : rest);

/** Returns a part of a body as bytes. */
function bytes(part) {
  if (typeof part === 'string') return Buffer.from(part);
  if (ArrayBuffer.isView(part)) return Buffer.from(part.buffer, part.byteOffset, part.byteLength);
  if (types.isAnyArrayBuffer(part)) return Buffer.from(part);
  throw new TypeError(`a part of a response is ${article(part)}; it must be a string, a Buffer or a Uint8Array`);
}

/** Opens the stream of a response whose body begins with a part. */
function open(writer, id, response, part) {
  const kind = response.properties.content_type ?? (typeof part === 'string' ? TEXT_TYPE : BYTES_TYPE);
  return new Stream(writer, id, response.status, [['Content-Type', kind], ...response.headers]);
}

/**
 * Sends the body of a response in parts. opened is called with the stream when the first part
 * exists. run calls a function for the call. wait returns the promise of its argument, but rejects
 * when the call is cancelled. Returns the response without a body if there is no part.
 */
async function sendParts(writer, id, response, { opened, run, wait }) {
  const { body } = response;
  const iterator = (body[Symbol.asyncIterator] ?? body[Symbol.iterator]).call(body);
  let stream;
  let done = false;
  try {
    for (;;) {
      const next = await wait(run(() => iterator.next()));
      done = next.done;
      if (done) return stream === undefined ? new Response('', { status: response.status, headers: response.headers, contentType: response.properties.content_type }) : undefined;
      const data = bytes(next.value);
      if (stream === undefined) opened(stream = open(writer, id, response, next.value));
      await wait(stream.write(data));
    }
  } finally {
    // It is not awaited: an async generator that waits ends only after that wait.
    if (!done) Promise.resolve(run(() => iterator.return?.())).catch(() => {});
  }
}

module.exports = { bytes, resultAfter, sendParts, streamed };
