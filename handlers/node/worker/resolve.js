'use strict';
// Has the app's code find the module drover, which is nowhere in its node_modules, and
// the worker find the app's packages.

const nodeModule = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

// An import of this and a package's name is one from the app's directory.
const FROM_APP = 'drover-app:';

const modules = path.join(__dirname, 'modules');
const drover = pathToFileURL(path.join(modules, 'drover', 'index.js')).href;

/**
 * Where the app has a package named drover of its own, that is what it gets. Node.js
 * 22.15 and newer have hooks for require and import in one; before, import takes hooks
 * that run in a thread of their own, and require a directory that it looks into last.
 * Where imports are given they are told of what is found, and what is not.
 */
function useHooks(app, imports) {
  const parentURL = pathToFileURL(path.join(app, 'package.json')).href;
  if (typeof nodeModule.registerHooks === 'function') {
    nodeModule.registerHooks({
      resolve(specifier, context, next) {
        if (specifier.startsWith(FROM_APP)) return next(specifier.slice(FROM_APP.length), { ...context, parentURL });
        if (specifier !== 'drover') return imports === undefined ? next(specifier, context) : imports.resolve(specifier, context, next);
        try {
          return next(specifier, context);
        } catch {
          return { url: drover, format: 'commonjs', shortCircuit: true };
        }
      },
    });
    return;
  }
  const before = process.env.NODE_PATH;
  process.env.NODE_PATH = before ? before + path.delimiter + modules : modules;
  nodeModule._initPaths();
  if (before === undefined) delete process.env.NODE_PATH; // the app's own children have nothing of it
  else process.env.NODE_PATH = before;
  const port = imports?.listen();
  nodeModule.register?.(pathToFileURL(path.join(__dirname, 'hooks.mjs')), { data: { drover, parentURL, FROM_APP, port }, transferList: port ? [port] : [] });
}

module.exports = { FROM_APP, useHooks };
