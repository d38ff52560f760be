'use strict';
// The module of `require('drover')` and `import ... from 'drover'` in a worker.
//
// A function takes a message and a context, and returns nothing, a Buffer or Uint8Array,
// a string, or a value that JSON.stringify accepts; or a promise of one. An error is a failed
// attempt, unless it is a Reject or a Retry. A worker also identifies both by name: code that
// must not depend on this module can throw its own Error with that name.

/** Throw it to dead-letter the message at once. */
class Reject extends Error {
  constructor(reason = '', options = undefined) {
    super(reason, options);
    this.name = 'Reject';
  }
}

const LONGEST = 30 * 86400 * 1000;

/** Throw it to retry the message after `after` milliseconds, or else with the function's backoff. */
class Retry extends Error {
  constructor(reason = '', { after = undefined, ...options } = {}) {
    super(reason, options);
    if (after !== undefined && !(typeof after === 'number' && after >= 0 && after <= LONGEST)) {
      throw new RangeError(`after is in milliseconds, a number from 0 to ${LONGEST}`);
    }
    this.name = 'Retry';
    this.after = after;
  }
}

const NAMES = {
  contentType: 'content_type', correlationId: 'correlation_id', messageId: 'message_id', replyTo: 'reply_to', replyToSession: 'reply_to_session',
  sessionId: 'session_id', subject: 'subject', to: 'to', partitionKey: 'partition_key',
};

/**
 * An output with properties. Return it in place of the body, for example as the reply to a
 * request:
 *
 *     return new Output(result, { correlationId: message.correlationId ?? message.id, sessionId: message.replyToSession });
 *
 * The body is any value that a function may return. If it is encoded as JSON, the default
 * contentType is application/json.
 */
class Output {
  constructor(body, { attributes = {}, ...properties } = {}) {
    if (body instanceof Output) throw new TypeError('the body of an Output is an Output; give it its body');
    this.body = body;
    this.properties = {};
    this.attributes = {};
    for (const [name, value] of Object.entries(properties)) {
      if (NAMES[name] === undefined) throw new TypeError(`an Output has no ${name}; it has ${Object.keys(NAMES).join(', ')} and attributes`);
      if (value !== undefined && value !== null) this.properties[NAMES[name]] = checked(name, value);
    }
    for (const [name, value] of Object.entries(attributes)) this.attributes[name] = checked(name, value);
  }
}

function checked(name, value) {
  if (typeof value !== 'string') throw new TypeError(`${name} of an Output is of the type ${typeof value}; it must be a string`);
  return value;
}

exports.Output = Output;
exports.Reject = Reject;
exports.Retry = Retry;

// Called by the worker at its end.
const hooks = [];

/**
 * Registers a function to be called when the worker process ends normally, after its last
 * message: when the pool shrinks, when the worker is recycled, when the daemon stops. It may be
 * async. All such functions together have two seconds; the last one is called first.
 */
function atExit(hook) {
  if (typeof hook !== 'function') throw new TypeError('atExit takes a function');
  hooks.push(hook);
  return hook;
}

exports.atExit = atExit;
Object.defineProperty(exports, Symbol.for('drover.atExit'), { value: hooks });
