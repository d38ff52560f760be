'use strict';
// Resolves the module drover for the app's code, and the app's packages for the worker.

const fs = require('node:fs');
const nodeModule = require('node:module');
const path = require('node:path');
const { fileURLToPath, pathToFileURL } = require('node:url');

// A specifier with this prefix is resolved from the app's directory.
const FROM_APP = 'drover-app:';

// The names of the module: in code, and as a package for tests and editors.
const NAMES = ['drover', 'drover-functions'];
const file = path.join(__dirname, 'modules', 'drover', 'index.js');
const drover = pathToFileURL(file).href;
// The end of the path of that package's file.
const PACKAGED = path.join(path.sep, 'worker', 'modules', 'drover', 'index.js');

/** Reports whether a file belongs to the package drover-functions, which the worker's module replaces. */
function isPackaged(found) {
  if (!found.endsWith(PACKAGED)) return false;
  try {
    return JSON.parse(fs.readFileSync(found.slice(0, -PACKAGED.length) + path.sep + 'package.json', 'utf8')).name === 'drover-functions';
  } catch {
    return false;
  }
}

/**
 * Installs the hooks of require and import. An unrelated package of the app named drover takes
 * precedence. Node.js 22.15 and newer have hooks for both. In older versions the hooks of import run
 * in a separate thread.
 * imports, if given, records the files that are found, and those that are not.
 */
function useHooks(app, imports) {
  const parentURL = pathToFileURL(path.join(app, 'package.json')).href;
  if (typeof nodeModule.registerHooks === 'function') {
    nodeModule.registerHooks({
      resolve(specifier, context, next) {
        if (specifier.startsWith(FROM_APP)) return next(specifier.slice(FROM_APP.length), { ...context, parentURL });
        if (!NAMES.includes(specifier)) return imports === undefined ? next(specifier, context) : imports.resolve(specifier, context, next);
        try {
          const found = next(specifier, context);
          if (!found.url.startsWith('file:') || !isPackaged(fileURLToPath(found.url))) return found;
        } catch { /* the app has none */ }
        return { url: drover, format: 'commonjs', shortCircuit: true };
      },
    });
    return;
  }
  const real = nodeModule._resolveFilename;
  nodeModule._resolveFilename = function (request, ...rest) {
    if (!NAMES.includes(request)) return real.call(this, request, ...rest);
    try {
      const found = real.call(this, request, ...rest);
      if (!isPackaged(found)) return found;
    } catch { /* the app has none */ }
    return file;
  };
  const port = imports?.listen();
  const data = { drover, names: NAMES, parentURL, FROM_APP, port };
  nodeModule.register?.(pathToFileURL(path.join(__dirname, 'hooks.mjs')), { data, transferList: port ? [port] : [] });
}

module.exports = { FROM_APP, isPackaged, useHooks };
