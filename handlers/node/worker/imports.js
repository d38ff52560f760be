'use strict';
// Names the files of the app that were imported or required, by IMPORTED: the daemon
// replaces the workers when one of them changes, and not when another does.

const nodeModule = require('node:module');
const path = require('node:path');
const { fileURLToPath } = require('node:url');
const { MessageChannel, receiveMessageOnPort } = require('node:worker_threads');
const { IMPORTED } = require('./frames');

// How many there are at most, and in one frame. For a daemon that gets more, all count.
const MOST = 20_000;
const SOME = 40;

const OURS = __dirname + path.sep; // may be below the app's directory

class Imports {
  #writer;
  #urls = new Set();
  #seen = new Set();
  #waiting = [];
  #ready = false;
  #port; // of the hooks that run in a thread of their own
  #own; // thread of the worker's

  constructor(app, writer) {
    this.#writer = writer;
    // Of what threads import nobody hears: where the app has any, all of its files count.
    process.on('worker', (thread) => {
      if (thread !== this.#own && thread.constructor.name !== 'InternalWorker') this.#note(app); // that of the hooks
    });
  }

  /** A hook of module.registerHooks, but for what is drover's. */
  resolve(specifier, context, next) {
    let found;
    try {
      found = next(specifier, context);
    } catch (error) {
      this.#missed(specifier, context.parentURL);
      throw error;
    }
    this.#found(found.url);
    return found;
  }

  /** Notes what is required, and returns a port for the hooks to say what is imported. */
  listen() {
    const real = nodeModule._resolveFilename;
    const note = (file) => this.#note(file);
    nodeModule._resolveFilename = function (request, parent, ...rest) {
      let file;
      try {
        file = real.call(this, request, parent, ...rest);
      } catch (error) {
        if (parent?.filename && /^\.{0,2}\//.test(request)) note(path.resolve(path.dirname(parent.filename), request));
        throw error;
      }
      if (path.isAbsolute(file)) note(file);
      return file;
    };
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.on('message', (message) => this.#heard(message));
    port1.unref();
    return port2;
  }

  #heard({ url, specifier, parentURL }) {
    if (url) this.#found(url);
    else this.#missed(specifier, parentURL);
  }

  #found(url) {
    if (!url.startsWith('file:') || this.#urls.has(url)) return;
    if (this.#urls.size < MOST) this.#urls.add(url);
    this.#note(fileURLToPath(url));
  }

  /** Notes a file that was looked for and not found; packages are none of the app's. */
  #missed(specifier, parentURL) {
    try {
      if (/^\.{0,2}\/|^file:/.test(specifier)) this.#note(fileURLToPath(new URL(specifier, parentURL)));
    } catch { /* it is no URL, or not of a file */ }
  }

  #note(file) {
    if (this.#seen.has(file) || this.#seen.size > MOST || file.startsWith(OURS) || file.includes('/node_modules/')) return;
    this.#seen.add(file);
    if (this.#ready) this.#send([file]);
    else this.#waiting.push(file);
  }

  #send(paths) {
    this.#writer.json(IMPORTED, { paths });
    this.#writer.flush(); // the call may go on for long
  }

  /** Sends what was imported until now: READY follows. own is the worker's own thread. */
  ready(own) {
    this.#own = own;
    for (let said; this.#port && (said = receiveMessageOnPort(this.#port));) this.#heard(said.message);
    do {
      this.#send(this.#waiting.splice(0, SOME)); // once at least: the daemon is to know that no more were imported
    } while (this.#waiting.length > 0);
    this.#ready = true;
  }
}

module.exports = { Imports };
