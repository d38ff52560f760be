'use strict';
// What `require('drover')` and `import ... from 'drover'` give in a worker.
//
// A function takes a message and a context, and returns nothing, a Buffer or Uint8Array,
// a string, or what JSON.stringify takes; or a promise of one. An error is a failed
// attempt; Reject and Retry say more. A worker knows both by their name, too: code that
// must not need this module may throw an Error of its own with that name.

/** The message goes to the dead letters, now. */
class Reject extends Error {
  constructor(reason = '', options = undefined) {
    super(reason, options);
    this.name = 'Reject';
  }
}

const LONGEST = 30 * 86400 * 1000;

/** Try again after so many milliseconds; without `after`, after the function's back-off. */
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
 * What a function returns that says more of its output than the body. An answer to a
 * request is, for example:
 *
 *     return new Output(result, { correlationId: message.correlationId ?? message.id, sessionId: message.replyToSession });
 *
 * The body is what a function may return else. One that is encoded as JSON has the
 * contentType application/json where no other is given.
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

// Called by the worker at its end; it has no other business with them.
const hooks = [];

/**
 * Has a function called when the worker process ends in order, after its last message:
 * when there are too many workers, when one is recycled, when the daemon stops. It may be
 * async, and has two seconds together with all others; the last is called first.
 */
function atExit(hook) {
  if (typeof hook !== 'function') throw new TypeError('atExit takes a function');
  hooks.push(hook);
  return hook;
}

exports.atExit = atExit;
Object.defineProperty(exports, Symbol.for('drover.atExit'), { value: hooks });
