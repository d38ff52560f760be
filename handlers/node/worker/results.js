'use strict';
// Converts return values of functions to the status and payload of a result.

const { types } = require('node:util');
const { DESCRIBED, EMPTY, OK, putProperties } = require('./frames');
const { Output } = require('./modules/drover');

const MEANT = 'return nothing, a Buffer, a string, or a value that JSON can represent (docs/workers.md lists the types)';

/** A function returned a value that cannot be sent. A retry would not help. */
class Unsendable extends TypeError {}

function article(value) {
  const name = typeof value === 'object' ? value?.constructor?.name || 'object' : typeof value;
  return /^[aeiou]/i.test(name) ? `an ${name}` : `a ${name}`;
}

/** Returns a function's return value as bytes; throws an Unsendable. */
function encode(value) {
  if (value === undefined || value === null) return EMPTY;
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
  if (own instanceof Error || types.isNativeError(own) || types.isPromise(own) || types.isWeakMap(own) || types.isWeakSet(own)) throw new Unsendable(article(own));
  if (value === own && (typeof own.next === 'function' && (own[Symbol.iterator] || own[Symbol.asyncIterator]) || typeof own.pipe === 'function')) throw new Unsendable(article(own));
  return value;
}

const isText = (value) => value === undefined || value === null || typeof value === 'string' || ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value);

const JSON_TYPE = putProperties({ content_type: 'application/json' });

/** Returns the status and payload of a result with a value; throws an Unsendable. */
function result(value) {
  if (isText(value)) return [OK, encode(value)];
  if (!(value instanceof Output)) return [OK | DESCRIBED, Buffer.concat([JSON_TYPE, encode(value)])];
  const properties = { ...value.properties };
  if (!isText(value.body)) properties.content_type ??= 'application/json';
  for (const [name, text] of Object.entries(value.attributes)) properties[`attribute:${name}`] = text;
  return [OK | DESCRIBED, Buffer.concat([putProperties(properties), encode(value.body)])];
}

/** Returns the encoder of a function's return values, by their use. */
const encoder = (results) => (results === 'dropped' ? () => [OK, EMPTY] : result);

module.exports = { Unsendable, article, encoder };
