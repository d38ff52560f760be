'use strict';
// The work of one message, as in work.py. Node.js cannot map a file into memory: the counters are written
// to it at most every few milliseconds. Those writes are counted, so that the driver can leave them out.

const fs = require('node:fs');
const path = require('node:path');

const lasts = Number(process.env.BENCH_SECONDS ?? 0);
const waits = process.env.BENCH_WORK === 'wait';
const latency = 'BENCH_LATENCY' in process.env;

// The counters are words of eight bytes; counts.go has the same layout.
const [STARTED, ENDED, OWN_CALLS, LATENCIES, RING] = [0, 1, 2, 3, 4];
const RING_SIZE = 4096;
const PAUSE = 5; // the time between two writes, in ms

const words = new BigUint64Array(RING + RING_SIZE);
const file = fs.openSync(path.join(process.env.BENCH_COUNTS, String(process.pid)), 'w+');
fs.writeSync(file, words);
const head = words.subarray(0, RING);
let [started, ended, ownCalls, latencies] = [0, 0, 0, 0];
let wrote = 0;
let timer;

function write() {
  timer = undefined;
  wrote = performance.now();
  ownCalls++;
  [head[STARTED], head[ENDED], head[OWN_CALLS], head[LATENCIES]] = [started, ended, ownCalls, latencies].map(BigInt);
  const all = latency ? words : head;
  fs.writeSync(file, all, 0, all.byteLength, 0);
}

function begin(body) {
  started++;
  if (!latency) return;
  const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
  const took = now - BigInt(body.toString('latin1', 0, 19));
  words[RING + (++latencies % RING_SIZE)] = took > 0n ? took : 0n;
}

function end() {
  ended++;
  if (performance.now() - wrote >= PAUSE) write();
  else timer ??= setTimeout(write, PAUSE);
}

/** Takes the processor time of this process. Reading that is a system call, which is counted. */
function burn() {
  const used = () => {
    ownCalls++;
    const { user, system } = process.cpuUsage();
    return user + system;
  };
  const until = used() + lasts * 1e6;
  while (used() < until) for (let i = 0; i < 10_000; i++);
}

exports.job = ({ body }) => {
  begin(body);
  if (lasts > 0) burn();
  end();
};

exports.async_job = async ({ body }) => {
  begin(body);
  if (waits && lasts > 0) await new Promise((resolve) => { setTimeout(resolve, lasts * 1000); });
  else if (lasts > 0) burn();
  end();
};
