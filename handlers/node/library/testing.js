'use strict';
// Runs functions in unit tests as a worker does, without a daemon:
//
//     const assert = require('node:assert');
//     const { test } = require('node:test');
//     const testing = require('drover/testing');
//     const { orders } = require('./index.js');
//
//     test('an order', async () => {
//       assert.deepEqual(await testing.run(orders, { id: 7 }), { id: 7 });
//       await assert.rejects(testing.run(orders, {}), { name: 'Reject' });
//     });

const { encodeBatch } = require('../worker/batches');
const { misfit, takes } = require('../worker/callable');
const { Context, Message, cancel } = require('../worker/message');
const { Outputs, Reject, Response } = require('../worker/modules/drover');
const { Unsendable, encode, encoder } = require('../worker/results');
const { bytes, resultAfter, streamed } = require('../worker/streaming');

// The properties of a message by the names of the options of message().
const PROPERTIES = {
  contentType: 'content_type', correlationId: 'correlation_id', replyTo: 'reply_to', replyToSession: 'reply_to_session', to: 'to',
  sessionId: 'session_id', partitionKey: 'partition_key', sequenceNumber: 'sequence_number', deliveryCount: 'delivery_count',
  dequeueCount: 'dequeue_count', expiresAt: 'expires_at',
};
const OWN = ['id', 'subject', 'orderingKey', 'attempt', 'enqueued', 'attributes', 'properties'];

/** Returns texts encoded like the daemon's. */
function putTexts(texts) {
  return Buffer.concat(texts.flatMap((text) => {
    const data = Buffer.from(String(text));
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(data.length);
    return [length, data];
  }));
}

/** Returns a time in µs; 0 is none. */
function micros(name, time) {
  if (time === undefined || time === null) return 0;
  if (!(time instanceof Date) || Number.isNaN(time.getTime())) throw new TypeError(`${name} must be a Date`);
  return time.getTime() * 1000;
}

/**
 * Returns a message. A body that is neither a string nor bytes is encoded as JSON. An attribute may
 * have several values, in an array. properties has the properties without a separate option.
 */
function message(body = '', { id = '1', subject = '', orderingKey = '', attempt = 1, enqueued, attributes = {}, properties = {}, ...known } = {}) {
  const texts = [id, subject, orderingKey];
  for (const [name, values] of Object.entries(attributes)) for (const value of [values].flat()) texts.push(name, value);
  texts.push('', '');
  for (const [name, value] of Object.entries(known)) {
    const property = PROPERTIES[name];
    if (property === undefined) throw new TypeError(`a message has no ${name}; it has ${[...OWN, ...Object.keys(PROPERTIES)].join(', ')}`);
    if (value !== undefined && value !== null) texts.push(property, value instanceof Date ? value.toISOString() : value);
  }
  for (const pair of Object.entries(properties)) texts.push(...pair);
  return new Message({ body: encode(body), attempt, enqueued: micros('enqueued', enqueued), meta: putTexts(texts) });
}

/**
 * Returns the message of an HTTP request, for a function with an http trigger. params are the
 * parameters of the route.
 */
function request(method = 'GET', url = 'http://localhost/', { body = '', headers = {}, params = {} } = {}) {
  const attributes = {};
  for (const [name, value] of headers instanceof Headers ? headers : Object.entries(headers)) {
    attributes[name.toLowerCase().replace(/(^|-)[a-z]/g, (start) => start.toUpperCase())] = value;
  }
  const query = new URL(url).search.slice(1);
  return message(body, {
    attributes,
    contentType: attributes['Content-Type'],
    properties: { http_method: method, http_url: url, http_query: query, http_params: JSON.stringify(params), http_remote: '127.0.0.1' },
  });
}

// The longest time of a timer, in ms.
const LONGEST = 2 ** 31 - 1;
// How long a function may take to clean up after its timeout, in ms: the default of kill_grace.
const GRACE = 5000;

/** Returns a context whose deadline is timeout milliseconds from now, with the state of a session, which the function may replace. */
function context(name = 'test', { timeout, sessionState = null } = {}, of = message()) {
  const call = { function: { name }, deadline: timeout === undefined ? 0 : (Date.now() + timeout) * 1000, state: sessionState === null ? null : Buffer.from(sessionState), changed: false };
  return new Context(call, of);
}

/**
 * Runs a function with a message, and returns a promise of its result. The promise is rejected with
 * the error of the attempt: a Reject (also if a worker would reject the result), a Retry, or any
 * other error, which is a failed attempt. It is rejected with a TypeError if a worker would not load
 * the function.
 *
 * input is a message, an array of messages for a function that takes batches, or a body, as message
 * takes it. A response that is sent in parts is returned as a Response with its whole body.
 *
 * After timeout milliseconds, context.signal fires. When the function then returns, or five seconds
 * later, the promise is rejected with a TimeoutError. outputs are the names of the function's outputs;
 * by default all names are valid.
 */
async function run(fn, input, { context: given, timeout, outputs } = {}) {
  if (typeof fn !== 'function') throw new TypeError(`run takes a function, not ${typeof fn}`);
  const batch = Array.isArray(input) && input.length > 0 && input.every((one) => one instanceof Message) ? input : undefined;
  const single = batch?.[0] ?? (input instanceof Message ? input : message(input));
  const wrong = misfit(fn, isRequest(single));
  if (wrong) throw new TypeError(`${fn.name || 'the function'} ${wrong}; ${takes}`);
  const its = given ?? context(fn.name || 'test', { timeout }, single);
  const attempt = finish(fn, batch ?? single, its, outputs);
  const limit = Math.min(timeout ?? Infinity, its.remaining());
  if (limit === Infinity) return attempt;
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(() => {
      cancel(its);
      resolve();
    }, Math.min(limit, LONGEST));
  });
  const settled = attempt.catch(() => {});
  try {
    let timedOut = false;
    await Promise.race([settled, late.then(() => { timedOut = true; })]);
    if (!timedOut) return await attempt;
    await Promise.race([settled, new Promise((resolve) => { timer = setTimeout(resolve, GRACE); })]);
    throw new DOMException('the attempt has timed out', 'TimeoutError');
  } finally {
    clearTimeout(timer);
  }
}

const isRequest = (one) => 'http_method' in one.properties;

/** Returns the result of a call as a worker would send it. */
async function finish(fn, argument, its, outputs) {
  const replies = !Array.isArray(argument) && isRequest(argument);
  let value = await fn(argument, its);
  const response = replies ? streamed(value) : undefined;
  if (response !== undefined) value = resultAfter(value, await whole(response));
  try {
    const encodeOne = (one) => encoder('sent', names(one, outputs), replies)(one);
    if (Array.isArray(argument)) encodeBatch(value, argument, encodeOne);
    else encodeOne(value);
  } catch (error) {
    if (error instanceof Unsendable) throw new Reject(error.message, { cause: error });
    throw error;
  }
  return value;
}

/** Returns the names of the outputs that a value may use. */
const names = (value, outputs) => outputs ?? (value instanceof Outputs ? ['', ...Object.keys(value.messages)] : []);

/** Collects a response in parts, and returns it with its whole body. */
async function whole({ body, status, headers, properties }) {
  const parts = [];
  let text = true;
  for await (const part of body) {
    text &&= typeof part === 'string';
    parts.push(bytes(part));
  }
  const all = Buffer.concat(parts);
  return new Response(text ? all.toString() : all, { status, headers, contentType: properties.content_type });
}

exports.context = context;
exports.message = message;
exports.request = request;
exports.run = run;
