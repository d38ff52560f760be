'use strict';
// Converts return values of functions to the status and payload of a result.

const { types } = require('node:util');
const { DESCRIBED, EMPTY, MAX_SENT, OK, SENT, putOutputs, putProperties } = require('./frames');
const { Output, Outputs, Response } = require('./modules/drover');

const MEANT = 'return nothing, a Buffer, a string, or a value that JSON can represent (docs/workers.md lists the types)';

/** A function returned a value that cannot be sent. A retry would not help. */
class Unsendable extends TypeError {}

/** A function returned messages for outputs, and one of them cannot be sent. */
class Misaddressed extends Unsendable {}

const NO_OUTPUTS = 'returned Outputs, but the function has no named outputs; in the configuration, give its outputs names';

function article(value) {
  const name = typeof value === 'object' ? value?.constructor?.name || 'object' : typeof value;
  return /^[aeiou]/i.test(name) ? `an ${name}` : `a ${name}`;
}

/** Returns a function's return value as bytes; throws an Unsendable. */
function encode(value) {
  if (value === undefined || value === null) return EMPTY;
  if (value instanceof Outputs) throw new Misaddressed(NO_OUTPUTS);
  if (typeof value === 'string') return Buffer.from(value);
  if (Buffer.isBuffer(value)) return value;
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (types.isAnyArrayBuffer(value)) return Buffer.from(value);
  let text;
  let why = 'JSON cannot represent it';
  try {
    text = JSON.stringify(value, plain);
  } catch (error) {
    if (error instanceof Unsendable) throw new Unsendable(`returned ${article(value)}${error.message === article(value) ? '' : ` with ${error.message} in it`}, which cannot be sent: ${MEANT}`);
    why = String(error?.message ?? error).replace(/\s+/g, ' ');
  }
  if (text === undefined) throw new Unsendable(`returned ${article(value)}, which cannot be sent: ${why}; ${MEANT}`);
  return Buffer.from(text);
}

/** The replacer of JSON.stringify: replaces values that it cannot encode. this is the object with the value. */
function plain(key, value) {
  const own = this[key]; // before toJSON
  if (typeof value === 'bigint') return String(value);
  if (typeof own !== 'object' || own === null) return value;
  if (types.isMap(own)) return Object.fromEntries(own);
  if (types.isSet(own)) return [...own];
  if (types.isUint8Array(own)) return Buffer.from(own.buffer, own.byteOffset, own.byteLength).toString('base64');
  if (ArrayBuffer.isView(own) && !types.isDataView(own)) return [...own];
  if (own instanceof Error || own instanceof Outputs || types.isNativeError(own) || types.isPromise(own) || types.isWeakMap(own) || types.isWeakSet(own)) throw new Unsendable(article(own));
  if (value === own && (typeof own.next === 'function' && (own[Symbol.iterator] || own[Symbol.asyncIterator]) || typeof own.pipe === 'function')) throw new Unsendable(article(own));
  return value;
}

const isText = (value) => value === undefined || value === null || typeof value === 'string' || ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value);

const TEXT_TYPE = 'text/plain; charset=utf-8';
const BYTES_TYPE = 'application/octet-stream';
const JSON_TYPE = { content_type: 'application/json' };
const JSON_PROPERTIES = putProperties(JSON_TYPE);
const REPLY_TEXT = putProperties({ content_type: TEXT_TYPE });
const REPLY_BYTES = putProperties({ content_type: BYTES_TYPE });

/**
 * Returns the status and payload of a result with a value, and the fields that precede the payload, if
 * any: then the payload need not be copied. Throws an Unsendable.
 */
function result(value) {
  if (isText(value)) return [OK, encode(value)];
  if (!(value instanceof Output)) return [OK | DESCRIBED, encode(value), JSON_PROPERTIES];
  const [properties, body] = described(value);
  return [OK | DESCRIBED, body, putProperties(properties)];
}

/** Returns the properties and the body of an Output. */
function described(output) {
  const properties = { ...output.properties };
  if (!isText(output.body)) properties.content_type ??= 'application/json';
  else if (output instanceof Response && typeof output.body === 'string') properties.content_type ??= TEXT_TYPE;
  else if (output instanceof Response && output.body?.byteLength > 0) properties.content_type ??= BYTES_TYPE;
  for (const [name, text] of Object.entries(output.attributes)) properties[`attribute:${name}`] = text;
  return [properties, encode(output.body)];
}

/**
 * Like result, for a function that answers requests: text and bytes have a content type, and a body
 * without bytes is still a body.
 */
function reply(value) {
  if (typeof value === 'string') return [OK | DESCRIBED, encode(value), REPLY_TEXT];
  if (value !== undefined && value !== null && isText(value)) return [OK | DESCRIBED, encode(value), REPLY_BYTES];
  return result(value);
}

/** The result of a function whose results are dropped. */
function drop(value) {
  if (value instanceof Outputs) throw new Misaddressed(NO_OUTPUTS);
  return [OK, EMPTY];
}

/**
 * Returns the encoder of a function's return values, by the use of its results, as in LOAD, the
 * names of its outputs, and whether it answers requests.
 */
function encoder(results, outputs = [], replies = false) {
  let plain = replies ? reply : result;
  if (results === 'dropped') plain = drop;
  if (outputs.length === 0) return plain;
  const indices = new Map(outputs.map((name, index) => [name, index]));
  return (value) => {
    if (!(value instanceof Outputs)) return plain(value);
    const records = recordsOf(value.messages, indices);
    const [status, payload, fields = EMPTY] = value.result === undefined || value.result === null ? [OK, EMPTY] : plain(value.result);
    return [status | SENT, payload, fields === EMPTY ? putOutputs(records) : Buffer.concat([putOutputs(records), fields])];
  };
}

/** Returns the messages for outputs as putOutputs takes them; throws a Misaddressed. */
function recordsOf(messages, indices) {
  const records = [];
  for (const [name, value] of Object.entries(messages)) {
    const index = indices.get(name);
    if (index === undefined) throw new Misaddressed(`returned a message for the output ${JSON.stringify(name)}, which the function does not have; it has: ${[...indices.keys()].join(', ')}`);
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each === undefined || each === null) continue;
      try {
        records.push([index, ...messageOf(each)]);
      } catch (error) {
        if (!(error instanceof Unsendable)) throw error;
        throw new Misaddressed(`${error.message} (for the output ${name})`);
      }
    }
  }
  if (records.length > MAX_SENT) throw new Misaddressed(`returned ${records.length} messages for outputs; one call can send ${MAX_SENT}`);
  return records;
}

/** Returns the properties and the body of a message for an output. */
function messageOf(value) {
  if (isText(value)) return [{}, encode(value)];
  if (value instanceof Output) return described(value);
  if (value instanceof Outputs) throw new Unsendable('returned Outputs as one of the messages in Outputs');
  return [JSON_TYPE, encode(value)];
}

module.exports = { BYTES_TYPE, Misaddressed, TEXT_TYPE, Unsendable, article, encode, encoder };
