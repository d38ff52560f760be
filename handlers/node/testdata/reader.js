'use strict';
// Reads cases from standard input and says what the worker's Reader makes of each, as
// testdata/reader.py of the Python worker does. Which frame of JSON is due, it does not know.

const fs = require('node:fs');
const path = require('node:path');
const frames = require('../worker/frames');

const HEAD = 9;

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

function crc32(data) {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function line(kind, payload, functions) {
  switch (kind) {
    case frames.CANCEL: return `cancel ${payload.readUInt32LE(0)}`;
    case frames.CREDIT: return `credit ${payload.readUInt32LE(0)} ${payload.readUInt32LE(4)}`;
    case frames.DRAIN: return 'drain';
    case frames.INVOKE: {
      const { id, index, attempt, enqueued, deadline, origin, meta, body } = payload;
      if (index >= functions) throw new Error('no such function');
      return `invoke ${id} ${index} ${attempt} ${BigInt(enqueued)} ${BigInt(deadline)} ${meta.length} ${crc32(meta)} ${body.length} ${crc32(body)} ${origin.length} ${crc32(origin)}`;
    }
    default: return `json ${payload.length} ${crc32(payload)}`;
  }
}

function run(data) {
  const said = [];
  const functions = data.readUInt16LE(4);
  const count = data.readUInt16LE(7);
  const sizes = [];
  for (let at = 0; at < count; at++) sizes.push(Math.max(data.readUInt16LE(HEAD + 2 * at), 1));
  const reader = new frames.Reader((kind, payload) => said.push(line(kind, payload, functions)));
  reader.max = data.readUInt32LE(0);
  data = data.subarray(HEAD + 2 * count);
  try {
    for (let turn = 0; data.length > 0; turn++) {
      const n = data.copy(reader.space(), 0, 0, sizes.length > 0 ? sizes[turn % sizes.length] : data.length);
      reader.filled(n);
      data = data.subarray(n);
    }
    said.push('end');
  } catch (error) {
    said.push(error.constructor === Error ? 'wrong' : error.stack);
  }
  return said.join('\n');
}

function read(size) {
  const out = Buffer.alloc(size);
  for (let at = 0; at < size;) {
    const n = fs.readSync(0, out, at, size - at, null);
    if (n === 0) process.exit(0);
    at += n;
  }
  return out;
}

for (;;) {
  const out = Buffer.from(run(read(read(4).readUInt32LE(0))));
  const head = Buffer.alloc(4);
  head.writeUInt32LE(out.length);
  for (let rest = Buffer.concat([head, out]); rest.length > 0;) rest = rest.subarray(fs.writeSync(1, rest));
}
