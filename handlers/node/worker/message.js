'use strict';
// What a function gets: a message, and the attempt that is under way.

const { cutTexts } = require('./frames');

/** A message: body, a Buffer, and what is known of it. Read only. */
class Message {
  #call;
  #texts;
  #attributes;

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

  /** The headers that the sender gave, strings by their name. */
  get attributes() {
    if (this.#attributes === undefined) {
      this.#text(0);
      const pairs = [];
      for (let at = 3; at + 1 < this.#texts.length; at += 2) pairs.push([this.#texts[at], this.#texts[at + 1]]);
      this.#attributes = Object.fromEntries(pairs);
    }
    return this.#attributes;
  }

  /** When the source took it in, a Date; null if unknown. */
  get enqueued() { return this.#call.enqueued === 0 ? null : new Date(this.#call.enqueued / 1000); }

  text() { return this.body.toString('utf8'); }
  json() { return JSON.parse(this.text()); }
}

/** The attempt that is under way. */
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

  /** True when the attempt is given up: its outcome no longer counts. */
  get cancelled() { return this.#cancelled; }

  /** An AbortSignal that fires then; for fetch and all else that takes one. */
  get signal() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#abort();
    }
    return this.#controller.signal;
  }

  #abort() { this.#controller.abort(new DOMException('the attempt is given up', 'AbortError')); }

  /** The context of the trace that the attempt is in, as W3C Trace Context writes it; null if there is none. */
  get traceparent() { return this.#traced()[0]; }

  /** What goes with the traceparent; null if there is nothing. */
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
   * The bytes that are kept with the message's session, a Buffer; null if there are
   * none. What is set here is kept when the function returns, before the message is
   * done, and not when it throws. null clears it.
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

  /** The worker's own: gives the attempt up. */
  static cancel(context) {
    if (context.#cancelled) return;
    context.#cancelled = true;
    if (context.#controller !== undefined) context.#abort();
  }
}

const { cancel } = Context;
delete Context.cancel; // functions have no business with it

module.exports = { Message, Context, cancel };
