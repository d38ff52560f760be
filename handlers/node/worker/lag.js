'use strict';
// How late the event loop is.

const { STATS } = require('./frames');

// The time between two measurements, in ms, and how many go into a frame.
const PERIOD = 100;
const MANY = 10;

/**
 * Measures how much later than it is due the loop runs a timer, and tells the daemon
 * each second. It rests when nothing was to do for a second.
 */
class Lag {
  #writer;
  #busy;
  #lags = []; // in µs
  #idle = 0; // so many times in a row nothing was to do
  #awake = false;
  #came = false;

  /** busy tells whether anything is in flight. */
  constructor(writer, busy) {
    this.#writer = writer;
    this.#busy = busy;
  }

  /** Called when there is something to do. */
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
