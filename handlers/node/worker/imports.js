'use strict';
// Reports the files of the app that were imported or required, with IMPORTED. The daemon
// replaces the workers only when one of these files changes.

const nodeModule = require('node:module');
const path = require('node:path');
const { fileURLToPath } = require('node:url');
const { MessageChannel, receiveMessageOnPort } = require('node:worker_threads');
const { IMPORTED } = require('./frames');

// The most files, and the most in one frame. If a daemon receives more, all of the app's files count.
const MOST = 20_000;
const SOME = 40;

const OURS = __dirname + path.sep; // may be below the app's directory

class Imports {
  #writer;
  #urls = new Set();
  #seen = new Set();
  #waiting = [];
  #ready = false;
  #port; // of the hooks, which run in their own thread
  #own; // the worker's own thread

  constructor(app, writer) {
    this.#writer = writer;
    // Imports in other threads are not reported. If the app has such threads, all of its files count.
    process.on('worker', (thread) => {
      if (thread !== this.#own && thread.constructor.name !== 'InternalWorker') this.#note(app); // InternalWorker is the thread of the hooks
    });
  }

  /** The resolve hook of module.registerHooks, for all specifiers but drover's. */
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

  /** Records required files, and returns a port to which the hooks report imported files. */
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

  /** Records a file that was not found. Packages do not count: they are not the app's. */
  #missed(specifier, parentURL) {
    try {
      if (/^\.{0,2}\/|^file:/.test(specifier)) this.#note(fileURLToPath(new URL(specifier, parentURL)));
    } catch { /* it is no URL, or not the URL of a file */ }
  }

  #note(file) {
    if (this.#seen.has(file) || this.#seen.size > MOST || file.startsWith(OURS) || file.includes('/node_modules/')) return;
    this.#seen.add(file);
    if (this.#ready) this.#send([file]);
    else this.#waiting.push(file);
  }

  #send(paths) {
    this.#writer.json(IMPORTED, { paths });
    this.#writer.flush(); // the call may take long
  }

  /** Sends the imports so far, before READY. own is the worker's own thread. */
  ready(own) {
    this.#own = own;
    for (let said; this.#port && (said = receiveMessageOnPort(this.#port));) this.#heard(said.message);
    do {
      this.#send(this.#waiting.splice(0, SOME)); // at least one frame: an empty list reports that nothing was imported
    } while (this.#waiting.length > 0);
    this.#ready = true;
  }
}

module.exports = { Imports };
