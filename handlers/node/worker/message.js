'use strict';
// The arguments of a function: a message, and the context of the attempt.

const { cutTexts } = require('./frames');

/** Returns an object with the first value of each name in the pairs. */
function firsts(pairs) {
  const found = new Map();
  for (const [name, value] of pairs) if (!found.has(name)) found.set(name, value);
  return Object.fromEntries(found);
}

/** A message: its body, a Buffer, and its metadata. Read only. */
class Message {
  #call;
  #texts;
  #attributes;
  #properties;

  constructor(call) {
    this.#call = call;
    this.body = call.body;
    this.attempt = call.attempt;
  }

  #text(index) {
    this.#texts ??= cutTexts(this.#call.meta);
    return this.#texts[index];
  }

  get id() { return this.#text(0); }
  get subject() { return this.#text(1); }
  get orderingKey() { return this.#text(2); }

  /** Returns the attributes or the properties as pairs of name and value. */
  #pairs(ofProperties) {
    this.#text(0);
    const out = [];
    let properties = false;
    for (let at = 3; at + 1 < this.#texts.length; at += 2) {
      if (this.#texts[at] === '' && this.#texts[at + 1] === '' && !properties) properties = true;
      else if (properties === ofProperties) out.push([this.#texts[at], this.#texts[at + 1]]);
    }
    return out;
  }

  /**
   * The headers set by the sender, strings by name. docs/workers.md describes the form of values
   * that are not text. If a header has several values, this is the first.
   */
  get attributes() { return this.#attributes ??= firsts(this.#pairs(false)); }

  /** All values of an attribute, in order: an array, empty if there are none. */
  values(name) { return this.#pairs(false).filter(([other]) => other === name).map(([, value]) => value); }

  /** The properties set by the source, strings by name, such as sequence_number. */
  get properties() { return this.#properties ??= Object.fromEntries(this.#pairs(true)); }

  #known(name, header) {
    const value = this.properties[name];
    return value ?? (header && (this.attributes[header] ?? this.attributes[header.toLowerCase()])) ?? null;
  }

  #number(name) { return name in this.properties ? Number(this.properties[name]) : null; }

  // Each of these is null if the message has none.
  get contentType() { return this.#known('content_type', 'Content-Type'); }
  get correlationId() { return this.#known('correlation_id', 'Correlation-Id'); }
  get replyTo() { return this.#known('reply_to', 'Reply-To'); }
  get replyToSession() { return this.#known('reply_to_session'); }
  get to() { return this.#known('to'); }
  get sessionId() { return this.#known('session_id'); }
  get partitionKey() { return this.#known('partition_key'); }
  /** The number assigned by the source: a string, because it may exceed the exact integers of a number. */
  get sequenceNumber() { return this.#known('sequence_number'); }
  get deliveryCount() { return this.#number('delivery_count'); }
  get dequeueCount() { return this.#number('dequeue_count'); }
  /** When the message expires at the source, a Date. */
  get expiresAt() { return 'expires_at' in this.properties ? new Date(this.properties.expires_at) : null; }

  /** When the source accepted the message, a Date; null if unknown. */
  get enqueued() { return this.#call.enqueued === 0 ? null : new Date(this.#call.enqueued / 1000); }

  text() { return this.body.toString('utf8'); }
  json() { return JSON.parse(this.text()); }
}

/** The context of the running attempt. */
class Context {
  #call;
  #message;
  #controller;
  #cancelled = false;
  #trace;

  constructor(call, message) {
    this.#call = call;
    this.#message = message;
    this.function = call.function.name;
  }

  /** When the attempt times out, a Date; null if never. */
  get deadline() { return this.#call.deadline === 0 ? null : new Date(this.#call.deadline / 1000); }

  /** The milliseconds left, at least 0; Infinity if there is no limit. */
  remaining() { return this.#call.deadline === 0 ? Infinity : Math.max(0, this.#call.deadline / 1000 - Date.now()); }

  /** True when the attempt was cancelled: its result no longer counts. */
  get cancelled() { return this.#cancelled; }

  /** An AbortSignal that is aborted then, for fetch and other functions that accept one. */
  get signal() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#abort();
    }
    return this.#controller.signal;
  }

  #abort() { this.#controller.abort(new DOMException('the attempt was cancelled', 'AbortError')); }

  /** The attempt's trace context, in the format of W3C Trace Context; null if there is none. */
  get traceparent() { return this.#traced()[0]; }

  /** The tracestate that belongs to the traceparent; null if there is none. */
  get tracestate() { return this.#traced()[1]; }

  #traced() {
    if (this.#trace === undefined) {
      this.#trace = [null, null];
      const { attributes } = this.#message;
      for (const name of ['traceparent', 'Traceparent', 'Diagnostic-Id']) {
        const parent = attributes[name];
        if (parent?.[2] === '-') {
          this.#trace = [parent, attributes.tracestate || attributes.Tracestate || null];
          break;
        }
      }
    }
    return this.#trace;
  }

  /**
   * The state of the message's session, a Buffer; null if it has none. A new value is stored
   * when the function returns, before the message is done, and not if it throws.
   * null clears the state.
   */
  get sessionState() {
    this.#needState();
    return this.#call.state;
  }

  set sessionState(state) {
    this.#needState();
    if (state !== null && !(state instanceof Uint8Array)) {
      throw new TypeError("a session's state is a Buffer, a Uint8Array or null; encode it, as with Buffer.from(JSON.stringify(...))");
    }
    this.#call.state = state === null ? null : Buffer.from(state);
    this.#call.changed = true;
  }

  #needState() {
    if (this.#call.state === undefined) {
      throw new Error("there is no session's state; set session_state: true in the trigger, which needs sessions: true");
    }
  }

  /** For the worker only: cancels the attempt. */
  static cancel(context) {
    if (context.#cancelled) return;
    context.#cancelled = true;
    if (context.#controller !== undefined) context.#abort();
  }
}

const { cancel } = Context;
delete Context.cancel; // functions must not call it

module.exports = { Message, Context, cancel };
