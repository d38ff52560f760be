'use strict';
// Functions that take batches: the verdicts on the messages, in the result of a call.

const { types } = require('node:util');
const { EMPTY, OK, VERDICTS } = require('./frames');
const { outcome } = require('./outcome');
const { Unsendable } = require('./results');
const { Verdicts } = require('./modules/drover');

/** Returns the verdicts in the order of the messages. */
function inOrder(verdicts, messages) {
  if (Array.isArray(verdicts)) {
    if (verdicts.length !== messages.length) throw new Error(`Verdicts has ${verdicts.length} verdicts for ${messages.length} messages; pass one for each, in order, or an object by message ID`);
    return verdicts;
  }
  const byId = types.isMap(verdicts) ? verdicts : new Map(Object.entries(verdicts));
  const ids = new Set(messages.map(({ id }) => id));
  for (const id of byId.keys()) {
    if (!ids.has(id)) throw new Error(`Verdicts has a verdict on '${id}', but no message in this batch has this ID`);
  }
  return messages.map(({ id }) => byId.get(id));
}

/** Returns the status, payload and fields of the verdict on a message. */
function verdictOn(one, encode) {
  if (one === undefined || one === null) return [OK, EMPTY];
  if (types.isNativeError(one) || one instanceof Error) return outcome(one);
  try {
    return encode(one);
  } catch (error) {
    if (error instanceof Unsendable) return outcome(error);
    throw error;
  }
}

/** Returns the status, payload and fields of the result of a call with a batch. encode encodes plain results. */
function encodeBatch(value, messages, encode) {
  if (!(value instanceof Verdicts)) return encode(value);
  const verdicts = inOrder(value.verdicts, messages).map((one) => verdictOn(one, encode));
  const count = Buffer.allocUnsafe(4);
  count.writeUInt32LE(verdicts.length);
  const parts = [count];
  for (const [status, payload, fields = EMPTY] of verdicts) {
    const head = Buffer.allocUnsafe(5);
    head.writeUInt32LE(fields.length + payload.length, head.writeUInt8(status));
    parts.push(head, fields, payload);
  }
  if (value.result !== undefined && value.result !== null) {
    const [status, payload, fields = EMPTY] = encode(value.result);
    parts.push(Buffer.of(status), fields, payload);
  }
  return [VERDICTS, Buffer.concat(parts)];
}

module.exports = { encodeBatch };
