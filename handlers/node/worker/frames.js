'use strict';
// The worker's side of docs/worker-protocol.md: frames on file descriptor 3.

const { writeSync, writevSync } = require('node:fs');

const PROTOCOL = 4;
const HELLO = 1, LOAD = 2, INVOKE = 3, CANCEL = 4, DRAIN = 5, CREDIT = 8, PROFILE = 9;
const WELCOME = 65, READY = 66, FAILED = 67, RESULT = 68, LOG = 69, STATS = 70, BLOCKED = 72, ALIVE = 73, IMPORTED = 75, PART = 76, PROFILED = 77;
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

// The size of the buffers for frames, in bytes; a body that lies in one keeps it in memory.
const CHUNK = 64 << 10;
// A frame that reaches beyond its buffer gets a buffer of its own if it has at least so many bytes.
const LARGE = 32 << 10;
// With less than this left, a buffer is replaced, if no more than this is copied to the next one.
const ROOM = 4 << 10;

/**
 * Splits the data of the socket into frames. The data is read into the buffers of the frames: a body
 * is copied only as far as it arrived before its frame was found to reach beyond a buffer.
 */
class Reader {
  #chunk = Buffer.allocUnsafeSlow(CHUNK);
  #start = 0; // of the first incomplete frame in the chunk
  #end = 0; // of the data in it
  #need = HEAD; // the length of that frame, or of its head, if that has not arrived
  #frame = null; // the buffer of a frame of its own,
  #have = 0; // and the number of bytes in it
  #short = false; // the next read is short

  /** take is called with a frame's type, and the fields of an INVOKE or the payload of another frame. */
  constructor(take) {
    this.take = take;
    this.max = MAX_LOAD; // the longest INVOKE, in bytes; HELLO sets it
  }

  /** Returns the buffer for the next read. Its size is at least 1. */
  space() {
    if (this.#frame !== null) return this.#frame.subarray(this.#have);
    const have = this.#end - this.#start;
    if (this.#start + this.#need > CHUNK || (CHUNK - this.#end < ROOM && have <= ROOM)) {
      const before = this.#chunk;
      this.#chunk = Buffer.allocUnsafeSlow(CHUNK);
      before.copy(this.#chunk, 0, this.#start, this.#end);
      [this.#start, this.#end] = [0, have];
    }
    // Another large frame is likely to follow a large one. What is read of it here is copied.
    return this.#chunk.subarray(this.#end, this.#short ? Math.min(this.#end + ROOM, CHUNK) : CHUNK);
  }

  /** Handles n bytes that were read into space. Throws if they violate the protocol. */
  filled(n) {
    if (this.#frame !== null) {
      this.#have += n;
      const frame = this.#frame;
      if (this.#have < frame.length) return;
      this.#frame = null;
      this.#short = true;
      this.#took(frame, 0, frame.length);
      return;
    }
    this.#end += n;
    this.#short = false;
    const chunk = this.#chunk;
    for (;;) {
      const start = this.#start;
      const need = this.#need = this.#lengthOf(chunk, start, this.#end);
      if (need > this.#end - start) break;
      this.#start += need;
      this.#took(chunk, start, this.#start);
    }
    if (this.#need < LARGE || this.#start + this.#need <= CHUNK) return;
    this.#frame = Buffer.allocUnsafeSlow(this.#need);
    this.#have = chunk.copy(this.#frame, 0, this.#start, this.#end);
    this.#start = this.#end;
    this.#need = HEAD;
  }

  /** Returns the length of the frame at an offset with its head; HEAD if that has not arrived. */
  #lengthOf(data, at, end) {
    if (end - at < LENGTH) return HEAD;
    const length = data.readUInt32LE(at);
    if (length === 0) throw new Error('a frame of 0 bytes');
    if (end - at < HEAD) return HEAD;
    const kind = data[at + LENGTH];
    if (length > this.#most(kind)) throw new Error(`a frame of type ${kind} and ${length} bytes`);
    return LENGTH + length;
  }

  #took(data, at, end) {
    const kind = data[at + LENGTH];
    const length = end - at - LENGTH;
    if ((kind === CANCEL && length !== 5) || (kind === CREDIT && length !== 9) || (kind === DRAIN && length !== 1)) throw new Error(`a frame of type ${kind} and ${length} bytes`);
    this.take(kind, kind === INVOKE ? cutInvoke(data, at + HEAD, end) : data.subarray(at + HEAD, end));
  }

  #most(kind) {
    switch (kind) {
      case INVOKE: return this.max;
      case LOAD: return MAX_LOAD;
      case HELLO: case CANCEL: case CREDIT: case DRAIN: case PROFILE: return MAX_SMALL;
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

/** Encodes a new state of a session. It precedes all else in a result. */
function putState(state) {
  return state === null ? lengthOf(NO_STATE) : Buffer.concat([lengthOf(state.length), state]);
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
// The most parts in one write.
const MOST_PARTS = 1000;

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

  /** Queues a result; took is in ms. fields, such as its properties, precede the payload. */
  result(id, status, took, payload = EMPTY, fields = EMPTY) {
    const length = fields.length + payload.length;
    if (1 + RESULT_SIZE + length > this.max) {
      this.result(id, FAILURE, took, Buffer.from(JSON.stringify({ summary: `returned ${length} bytes, more than fit in a frame (${this.max})` })));
      return;
    }
    this.#room(HEAD + RESULT_SIZE);
    const batch = this.#batch;
    let at = this.#used;
    at = batch.writeUInt32LE(1 + RESULT_SIZE + length, at);
    at = batch.writeUInt8(RESULT, at);
    at = batch.writeUInt32LE(id, at);
    at = batch.writeUInt8(status, at);
    at = batch.writeUInt32LE(Math.min(Math.round(took * 1000), 0xffffffff), at);
    at = batch.writeUInt32LE(UNMEASURED, at);
    this.#used = batch.writeUInt32LE(UNMEASURED, at);
    this.#add(payload, fields);
  }

  /** Sends a part of a response: bytes of its body, and before them its head, if it is given. */
  part(id, data, head = EMPTY) {
    this.#room(HEAD + PART_SIZE);
    const batch = this.#batch;
    let at = this.#used;
    at = batch.writeUInt32LE(1 + PART_SIZE + head.length + data.length, at);
    at = batch.writeUInt8(PART, at);
    at = batch.writeUInt32LE(id, at);
    this.#used = batch.writeUInt8(head === EMPTY ? 0 : WITH_HEAD, at);
    this.#add(data, head);
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

  /** Adds the rest of a frame: its fields, and a payload, which is not copied if it does not fit. */
  #add(payload, fields = EMPTY) {
    if (fields.length + payload.length > BATCH - this.#used) {
      this.flush(fields, payload);
      return;
    }
    if (fields.length > 0) this.#used += fields.copy(this.#batch, this.#used);
    this.#used += payload.copy(this.#batch, this.#used);
  }

  /** Sends the collected frames. rest is the rest of the last one, which is not copied. */
  flush(...rest) {
    const parts = [this.#batch.subarray(0, this.#used), ...rest].filter(({ length }) => length > 0);
    this.#used = 0;
    if (parts.length > 0) this.#send(parts);
    this.last = performance.now();
  }

  /** Sends all frames, and returns when the socket has accepted them. */
  end() {
    this.flush();
    this.#until(0);
  }

  #send(parts) {
    if (this.#queue.length === 0) parts = this.#write(parts);
    if (parts.length === 0) return;
    for (const part of parts) {
      this.#queue.push(Buffer.from(part)); // the caller may change it
      this.#queued += part.length;
    }
    this.#timer ??= setTimeout(() => this.#again(), PAUSE);
  }

  #again() {
    this.#timer = null;
    this.#resend();
    if (this.#queued > 0) this.#timer = setTimeout(() => this.#again(), PAUSE);
    else this.drained();
  }

  #resend() {
    if (this.#queued === 0) return;
    this.#queue = this.#write(this.#queue);
    this.#queued = lengthOfAll(this.#queue);
  }

  #until(size) {
    while (this.#queued > size) {
      this.#resend();
      if (this.#queued > size) Atomics.wait(nobody, 0, 0, PAUSE);
    }
  }

  /** Writes as much as the socket accepts, and returns the rest. */
  #write(parts) {
    if (this.#shared === null) return this.#writeAlone(parts);
    while (!this.#holds && Atomics.compareExchange(this.#shared, this.#lock, 0, 1) !== 0) Atomics.wait(this.#shared, this.#lock, 1, PAUSE);
    const rest = this.#writeAlone(parts);
    this.#holds = rest.length > 0;
    if (!this.#holds) Atomics.store(this.#shared, this.#lock, 0);
    return rest;
  }

  #writeAlone(parts) {
    while (parts.length > 0) {
      try {
        const n = parts.length === 1 ? writeSync(this.#fd, parts[0]) : writevSync(this.#fd, parts.slice(0, MOST_PARTS));
        parts = after(parts, n);
      } catch (error) {
        if (error.code === 'EAGAIN') return parts;
        if (error.code !== 'EINTR') process.exit(0); // the daemon is gone, so the results are not needed
      }
    }
    return parts;
  }
}

const lengthOfAll = (parts) => parts.reduce((sum, { length }) => sum + length, 0);

/** Returns what is left of parts after their first n bytes. */
function after(parts, n) {
  let done = 0;
  while (done < parts.length && n >= parts[done].length) n -= parts[done++].length;
  const rest = parts.slice(done);
  if (n > 0) rest[0] = rest[0].subarray(n);
  return rest;
}

module.exports = {
  PROTOCOL, HELLO, LOAD, INVOKE, CANCEL, DRAIN, CREDIT, PROFILE, WELCOME, READY, FAILED, RESULT, LOG, STATS, BLOCKED, ALIVE, IMPORTED, PROFILED,
  HEAD, OK, FAILURE, REJECT, RETRY, NOT_TRIED, STATE, VERDICTS, DESCRIBED, SENT, MAX_SENT, EMPTY, Reader, Writer,
  cutBatch, cutTexts, putHead, putProperties, putOutputs, putState,
};
