'use strict';
// Measures the lag of the event loop.

const { STATS } = require('./frames');

// The time between two measurements, in ms, and the number of measurements in a frame.
const PERIOD = 100;
const MANY = 10;

/**
 * Measures how much later than due the loop runs a timer, and reports it to the daemon
 * each second. It stops when no call was in flight for a second.
 */
class Lag {
  #writer;
  #busy;
  #lags = []; // in µs
  #idle = 0; // the number of consecutive measurements without a call in flight
  #awake = false;
  #came = false;

  /** busy reports whether a call is in flight. */
  constructor(writer, busy) {
    this.#writer = writer;
    this.#busy = busy;
  }

  /** Called when a call has arrived. */
  came() {
    this.#came = true;
    if (this.#awake) return;
    this.#awake = true;
    this.#idle = 0;
    this.#wait();
  }

  #wait() {
    const due = performance.now() + PERIOD;
    setTimeout(() => this.#measure(due), PERIOD);
  }

  #measure(due) {
    this.#lags.push(Math.max(0, Math.round((performance.now() - due) * 1000)));
    this.#idle = this.#came || this.#busy() ? 0 : this.#idle + 1;
    this.#came = false;
    if (this.#lags.length >= MANY) {
      this.#writer.json(STATS, { period_us: PERIOD * 1000, lags_us: this.#lags });
      this.#writer.flush();
      this.#lags = [];
      if (this.#idle >= MANY) {
        this.#awake = false;
        return;
      }
    }
    this.#wait();
  }
}

module.exports = { Lag };
