'use strict';
// Resolves the module drover, which is not in node_modules, for the app's code, and
// the app's packages for the worker.

const nodeModule = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

// A specifier with this prefix is resolved from the app's directory.
const FROM_APP = 'drover-app:';

const modules = path.join(__dirname, 'modules');
const drover = pathToFileURL(path.join(modules, 'drover', 'index.js')).href;

/**
 * Installs the hooks of require and import. A package named drover of the app's own takes
 * precedence. Node.js 22.15 and newer have hooks for both. In older versions the hooks of
 * import run in a thread of their own, and require searches an additional directory last.
 * imports, if given, records the files that are found, and those that are not.
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
  if (before === undefined) delete process.env.NODE_PATH; // the app's child processes must not inherit it
  else process.env.NODE_PATH = before;
  const port = imports?.listen();
  nodeModule.register?.(pathToFileURL(path.join(__dirname, 'hooks.mjs')), { data: { drover, parentURL, FROM_APP, port }, transferList: port ? [port] : [] });
}

module.exports = { FROM_APP, useHooks };
