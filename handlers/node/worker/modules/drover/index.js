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

exports.Reject = Reject;
exports.Retry = Retry;
