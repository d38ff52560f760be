'use strict';
// The worker's side of docs/worker-protocol.md: frames on file descriptor 3.

const { writeSync } = require('node:fs');

const PROTOCOL = 4;
const HELLO = 1, LOAD = 2, INVOKE = 3, CANCEL = 4, DRAIN = 5, CREDIT = 8;
const WELCOME = 65, READY = 66, FAILED = 67, RESULT = 68, LOG = 69, STATS = 70, BLOCKED = 72, ALIVE = 73, IMPORTED = 75, PART = 76;
const OK = 0, FAILURE = 1, REJECT = 2, RETRY = 3, NOT_TRIED = 4, STATE = 5, VERDICTS = 6;

const DESCRIBED = 128; // added to OK and STATE: the output follows its properties
const SENT = 64; // likewise: messages for named outputs precede these
const MAX_SENT = 100_000; // the most such messages in a RESULT
const WITH_STATE = 1; // in the flags of an INVOKE: its session's state precedes meta
const WITH_ORIGIN = 2; // likewise: the source's own fields precede meta, after the state
const WITH_BATCH = 4; // its body is a batch of messages
const NO_STATE = 0xffffffff; // a state's length if the session has no state

const LENGTH = 4;
const HEAD = LENGTH + 1;
const INVOKE_SIZE = 4 + 2 + 2 + 4 + 8 + 8 + 4;
const RESULT_SIZE = 4 + 1 + 3 * 4;
const PART_SIZE = 4 + 1;
const WITH_HEAD = 1; // in the flags of a PART: the head of a response precedes its bytes
const UNMEASURED = 0xffffffff; // Node.js does not measure the CPU time of a call
const MAX_SMALL = 256 << 10;
const MAX_LOAD = 8 << 20;
const EMPTY = Buffer.alloc(0);

/** Splits the data of the socket into frames. */
class Reader {
  #parts = []; // of an incomplete frame
  #size = 0;
  #need = LENGTH;

  /** take is called with a frame's type, and the fields of an INVOKE or the payload of another frame. */
  constructor(take) {
    this.take = take;
    this.max = MAX_LOAD; // the longest INVOKE, in bytes; HELLO sets it
  }

  /** Handles data that was read. Throws if it violates the protocol. */
  push(data) {
    if (this.#size > 0) {
      this.#parts.push(data);
      this.#size += data.length;
      if (this.#size < this.#need) return;
      data = Buffer.concat(this.#parts, this.#size);
      this.#parts = [];
      this.#size = 0;
    }
    let at = 0;
    this.#need = LENGTH;
    while (data.length - at >= LENGTH) {
      const length = data.readUInt32LE(at);
      if (length === 0) throw new Error('a frame of 0 bytes');
      if (data.length - at < HEAD) {
        this.#need = HEAD;
        break;
      }
      const kind = data[at + 4];
      if (length > this.#most(kind)) throw new Error(`a frame of type ${kind} and ${length} bytes`);
      const end = at + 4 + length;
      if (end > data.length) {
        this.#need = 4 + length;
        break;
      }
      if ((kind === CANCEL && length !== 5) || (kind === CREDIT && length !== 9) || (kind === DRAIN && length !== 1)) throw new Error(`a frame of type ${kind} and ${length} bytes`);
      this.take(kind, kind === INVOKE ? cutInvoke(data, at + HEAD, end) : data.subarray(at + HEAD, end));
      at = end;
    }
    if (at < data.length) {
      this.#parts.push(at === 0 ? data : data.subarray(at));
      this.#size = data.length - at;
    }
  }

  #most(kind) {
    switch (kind) {
      case INVOKE: return this.max;
      case LOAD: return MAX_LOAD;
      case HELLO: case CANCEL: case CREDIT: case DRAIN: return MAX_SMALL;
    }
    throw new Error(`a frame of type ${kind}`);
  }
}

function readInt64(data, at) {
  return data.readInt32LE(at + 4) * 0x100000000 + data.readUInt32LE(at);
}

/**
 * Parses an INVOKE. Times are in µs since 1970; 0 is none. state is undefined without a session.
 * origin is the JSON of the source's own fields, empty if the function gets none.
 */
function cutInvoke(data, at, end) {
  if (end - at < INVOKE_SIZE) throw new Error(`an INVOKE of ${end - at} bytes`);
  const flags = data.readUInt16LE(at + 6);
  const length = data.readUInt32LE(at + 28);
  let start = at + INVOKE_SIZE;
  let state;
  if (flags & WITH_STATE) {
    if (end - start < 4) throw new Error('an INVOKE without the state that it announces');
    const size = data.readUInt32LE(start);
    start += 4;
    state = null;
    if (size !== NO_STATE) {
      if (size > end - start) throw new Error(`an INVOKE with a state of ${size} bytes`);
      state = data.subarray(start, start + size);
      start += size;
    }
  }
  let origin = EMPTY;
  if (flags & WITH_ORIGIN) {
    if (end - start < 4) throw new Error('an INVOKE without the origin that it announces');
    const size = data.readUInt32LE(start);
    start += 4;
    if (size > end - start) throw new Error(`an INVOKE with an origin of ${size} bytes`);
    origin = data.subarray(start, start + size);
    start += size;
  }
  if (length > end - start) throw new Error(`an INVOKE with ${length} bytes of meta`);
  return {
    id: data.readUInt32LE(at),
    index: data.readUInt16LE(at + 4),
    attempt: data.readUInt32LE(at + 8),
    enqueued: readInt64(data, at + 12),
    deadline: readInt64(data, at + 20),
    state,
    origin,
    meta: data.subarray(start, start + length),
    body: data.subarray(start + length, end),
    batch: (flags & WITH_BATCH) === 0 ? undefined : data.subarray(start + length, end),
  };
}

/** Returns the messages of a batch, with the fields that a Message needs. */
function cutBatch(batch) {
  const out = new Array(batch.readUInt32LE(0));
  let at = 4;
  for (let n = 0; n < out.length; n++) {
    const attempt = batch.readUInt32LE(at);
    const enqueued = readInt64(batch, at + 4);
    const meta = at + 16;
    const body = meta + batch.readUInt32LE(at + 12) + 4;
    at = body + batch.readUInt32LE(body - 4);
    if (at > batch.length) throw new Error(`a batch of ${batch.length} bytes, with a message that is cut off`);
    out[n] = { attempt, enqueued, meta: batch.subarray(meta, body - 4), body: batch.subarray(body, at) };
  }
  return out;
}

/** Returns the texts of meta. */
function cutTexts(meta) {
  const out = [];
  for (let at = 0; at < meta.length;) {
    const end = at + 4 + meta.readUInt32LE(at);
    out.push(meta.toString('utf8', at + 4, end));
    at = end;
  }
  return out;
}

/** Encodes the properties of a result, an object of strings. They precede its payload. */
function putProperties(properties) {
  const parts = [EMPTY];
  for (const text of Object.entries(properties).flat()) {
    const data = Buffer.from(text);
    parts.push(lengthOf(data.length), data);
  }
  parts[0] = lengthOf(parts.reduce((sum, part) => sum + part.length, 0));
  return Buffer.concat(parts);
}

/**
 * Encodes messages for named outputs, which precede the properties and the payload of a result.
 * Each is the index of its output in LOAD, its properties, and its body.
 */
function putOutputs(records) {
  const parts = [EMPTY];
  for (const [index, properties, body] of records) {
    const head = Buffer.allocUnsafe(2);
    head.writeUInt16LE(index);
    parts.push(head, putProperties(properties), lengthOf(body.length), body);
  }
  parts[0] = lengthOf(parts.reduce((sum, part) => sum + part.length, 0));
  return Buffer.concat(parts);
}

/** Encodes the head of a response, as it begins its first PART. */
function putHead(status, headers) {
  const head = Buffer.from(JSON.stringify({ status, headers }));
  return Buffer.concat([lengthOf(head.length), head]);
}

function lengthOf(n) {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32LE(n);
  return out;
}

const BATCH = 64 << 10;
// With more than this unsent, a writer waits for the daemon, in bytes: code that logs in a
// loop must not use all memory.
const CROWDED = 1 << 20;
// The time between two attempts to write to a full socket, in ms.
const PAUSE = 1;

const nobody = new Int32Array(new SharedArrayBuffer(4));

/**
 * Collects frames and sends many at a time. It writes to the file descriptor, not to a stream:
 * a function's log lines must be sent while the function blocks the event loop.
 */
class Writer {
  #fd;
  #batch = Buffer.allocUnsafeSlow(BATCH);
  #used = 0;
  #queue = []; // data that the socket has not accepted yet
  #queued = 0;
  #timer = null;
  #shared = null; // memory shared with the thread that writes to the same file
  #lock = 0; // the index of the lock in it; 1 while one of the two writes
  #middle = false; // a frame is being sent in two pieces
  #holds = false; // this writer has sent part of a frame, and keeps the lock

  constructor(fd) {
    this.#fd = fd;
    this.max = MAX_SMALL; // the longest RESULT, in bytes; HELLO sets it
    this.last = 0; // the time of the last write, by performance.now
    this.drained = () => {}; // called when the socket has accepted all data
  }

  /** Shares the file with another thread, by a lock in shared memory. */
  share(shared, lock) {
    this.#shared = shared;
    this.#lock = lock;
    this.#holds = this.#queued > 0; // the queue may begin in the middle of a frame
    if (this.#holds) Atomics.store(shared, lock, 1);
  }

  /** True while frames wait for flush. */
  get waits() { return this.#used > 0; }

  /** True while the daemon reads more slowly than this worker writes. */
  get crowded() { return this.#queued > 0; }

  /** Queues a result; took is in ms. */
  result(id, status, took, payload = EMPTY) {
    if (1 + RESULT_SIZE + payload.length > this.max) {
      status = FAILURE;
      payload = Buffer.from(JSON.stringify({ summary: `returned ${payload.length} bytes, more than fit in a frame (${this.max})` }));
    }
    this.#room(HEAD + RESULT_SIZE);
    const batch = this.#batch;
    let at = this.#used;
    at = batch.writeUInt32LE(1 + RESULT_SIZE + payload.length, at);
    at = batch.writeUInt8(RESULT, at);
    at = batch.writeUInt32LE(id, at);
    at = batch.writeUInt8(status, at);
    at = batch.writeUInt32LE(Math.min(Math.round(took * 1000), 0xffffffff), at);
    at = batch.writeUInt32LE(UNMEASURED, at);
    this.#used = batch.writeUInt32LE(UNMEASURED, at);
    this.#add(payload);
  }

  /** Sends a part of a response: its head, if it is given, and bytes of its body. */
  part(id, head, data) {
    this.#room(HEAD + PART_SIZE);
    const batch = this.#batch;
    let at = this.#used;
    at = batch.writeUInt32LE(1 + PART_SIZE + (head?.length ?? 0) + data.length, at);
    at = batch.writeUInt8(PART, at);
    at = batch.writeUInt32LE(id, at);
    this.#used = batch.writeUInt8(head === undefined ? 0 : WITH_HEAD, at);
    this.#add(head === undefined ? data : Buffer.concat([head, data]));
    this.flush();
  }

  /** Queues a frame of JSON. */
  json(kind, value) {
    const payload = Buffer.from(JSON.stringify(value));
    this.#room(HEAD);
    this.#used = this.#batch.writeUInt8(kind, this.#batch.writeUInt32LE(1 + payload.length, this.#used));
    this.#add(payload);
  }

  /** Sends a log line at once, and waits if too much is unsent. */
  log(value) {
    this.json(LOG, value);
    this.flush();
    this.#until(CROWDED);
  }

  #room(size) {
    if (BATCH - this.#used < size) this.flush();
  }

  #add(payload) {
    if (payload.length > BATCH - this.#used) {
      this.#middle = true; // no other frame may follow this one's head
      this.flush();
      this.#middle = false;
      this.#send(payload);
      return;
    }
    payload.copy(this.#batch, this.#used);
    this.#used += payload.length;
  }

  /** Sends the collected frames. */
  flush() {
    const used = this.#used;
    this.#used = 0;
    if (used > 0) this.#send(this.#batch.subarray(0, used));
    this.last = performance.now();
  }

  /** Sends all frames, and returns when the socket has accepted them. */
  end() {
    this.flush();
    this.#until(0);
  }

  #send(data) {
    if (this.#queued === 0) data = this.#write(data);
    if (data.length === 0) return;
    this.#queue.push(Buffer.from(data)); // the caller may change it
    this.#queued += data.length;
    this.#timer ??= setTimeout(() => this.#again(), PAUSE);
  }

  #again() {
    this.#timer = null;
    this.#resend();
    if (this.#queued > 0) this.#timer = setTimeout(() => this.#again(), PAUSE);
    else this.drained();
  }

  #resend() {
    while (this.#queue.length > 0) {
      const data = this.#queue[0];
      const rest = this.#write(data);
      this.#queued -= data.length - rest.length;
      if (rest.length > 0) {
        this.#queue[0] = rest;
        return;
      }
      this.#queue.shift();
    }
  }

  #until(size) {
    while (this.#queued > size) {
      this.#resend();
      if (this.#queued > size) Atomics.wait(nobody, 0, 0, PAUSE);
    }
  }

  /** Writes as much as the socket accepts, and returns the rest. */
  #write(data) {
    if (this.#shared === null) return this.#writeAlone(data);
    while (!this.#holds && Atomics.compareExchange(this.#shared, this.#lock, 0, 1) !== 0) Atomics.wait(this.#shared, this.#lock, 1, PAUSE);
    const rest = this.#writeAlone(data);
    this.#holds = rest.length > 0 || this.#middle || this.#queue.length > 1;
    if (!this.#holds) {
      Atomics.store(this.#shared, this.#lock, 0);
    }
    return rest;
  }

  #writeAlone(data) {
    while (data.length > 0) {
      try {
        data = data.subarray(writeSync(this.#fd, data));
      } catch (error) {
        if (error.code === 'EAGAIN') return data;
        if (error.code !== 'EINTR') process.exit(0); // the daemon is gone, so the results are not needed
      }
    }
    return data;
  }
}

module.exports = {
  PROTOCOL, HELLO, LOAD, INVOKE, CANCEL, DRAIN, CREDIT, WELCOME, READY, FAILED, RESULT, LOG, STATS, BLOCKED, ALIVE, IMPORTED,
  HEAD, OK, FAILURE, REJECT, RETRY, NOT_TRIED, STATE, VERDICTS, NO_STATE, DESCRIBED, SENT, MAX_SENT, EMPTY, Reader, Writer,
  cutBatch, cutTexts, putHead, putProperties, putOutputs,
};
