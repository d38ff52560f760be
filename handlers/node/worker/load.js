'use strict';
// Loads the app's functions.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { types } = require('node:util');
const { fileURLToPath, pathToFileURL } = require('node:url');
const { oneLine, stack } = require('./outcome');
const { article, encoder } = require('./results');
const { FROM_APP, useHooks } = require('./resolve');

const ENDINGS = ['.js', '.mjs', '.cjs', ...(process.features.typescript ? ['.ts', '.mts', '.cts'] : [])];

const AsyncFunction = Object.getPrototypeOf(async () => {});

/** The code failed to load. */
class LoadError extends Error {
  constructor(summary, detail = '') {
    super(summary);
    this.detail = detail;
  }
}

/**
 * Loads the functions that the daemon requested. Returns their names, how to call them, and
 * whether they are async. Throws a LoadError.
 */
async function load(app, wanted, imports) {
  useHooks(app, imports);
  const functions = [];
  for (const { name, module, function: wantedName, results } of wanted) {
    const specifier = find(app, module);
    const file = specifier.startsWith('file:') ? path.relative(app, fileURLToPath(specifier)) : module;
    let exported;
    try {
      exported = await import(specifier);
    } catch (error) {
      throw new LoadError(`loading ${file} from ${app}: ${oneLine(error)}${hint(error, app)}`, place(error, app, specifier) ?? stack(error));
    }
    const [run, owner] = pick(exported, wantedName);
    if (typeof run !== 'function') throw new LoadError(nothing(exported, file, wantedName, run));
    const wrong = misfit(run);
    if (wrong) throw new LoadError(`${wantedName} of ${file} ${wrong}; a function takes (message, context), and returns its output or a promise of it`);
    functions.push({
      name,
      run: owner === undefined ? run : run.bind(owner),
      // Only its prototype shows that a bound function is async.
      isAsync: types.isAsyncFunction(run) || Object.getPrototypeOf(run) === AsyncFunction,
      encode: encoder(results),
      shown: results === 'shown',
      quick: 0,
      warned: false,
    });
  }
  return functions;
}

/** Returns the specifier of a module: a file of the app, or a package. */
function find(app, module) {
  const file = path.resolve(app, module);
  const relative = path.relative(app, file);
  if (!relative.startsWith('..') && !path.isAbsolute(relative)) {
    const found = asFile(file) ?? asDirectory(file);
    if (found) return pathToFileURL(found).href;
  }
  if (module.startsWith('.') || path.isAbsolute(module)) {
    throw new LoadError(`there is no module ${module} in ${app}; it is looked for as it is named, with ${ENDINGS.join(', ')} behind it, and as a directory with a package.json or an index.js`);
  }
  return FROM_APP + module;
}

function asFile(file) {
  return ['', ...ENDINGS].map((ending) => file + ending).find((name) => fs.statSync(name, { throwIfNoEntry: false })?.isFile());
}

function asDirectory(dir) {
  let main;
  try {
    ({ main } = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')));
  } catch { /* package.json is optional */ }
  if (typeof main === 'string') {
    const found = asFile(path.join(dir, main)) ?? asFile(path.join(dir, main, 'index'));
    if (found) return found;
  }
  return asFile(path.join(dir, 'index'));
}

/**
 * Returns the export of a name, and the object of which it is a method, if any. Exports of a
 * CommonJS module that Node.js does not detect are only in its default export; so are all those
 * of a module whose default export is an object.
 */
function pick(exported, name) {
  const { default: whole } = exported;
  if (name === 'default') return typeof whole?.default === 'function' ? [whole.default] : [whole];
  if (name in exported) return [exported[name]];
  if (whole !== null && (typeof whole === 'object' || typeof whole === 'function')) return [whole[name], whole];
  return [undefined];
}

function nothing(exported, file, name, value) {
  if (value !== undefined) return `${name} of ${file} is no function, but ${article(value)}`;
  const found = new Set(Object.keys(exported).filter((key) => typeof exported[key] === 'function'));
  const whole = exported.default;
  if (whole !== null && typeof whole === 'object') {
    for (const key of Object.keys(whole)) if (typeof whole[key] === 'function') found.add(key);
  }
  found.delete('module.exports'); // the default export, in newer versions
  return `${file} exports no function ${name}; it has: ${[...found].sort().join(', ') || 'none'}`;
}

/** Returns why a function cannot be called with (message, context), to follow its name; '' if it can. */
function misfit(run) {
  const source = Function.prototype.toString.call(run);
  if (types.isGeneratorFunction(run)) return 'is a generator function';
  if (/^class\b/.test(source)) return 'is a class';
  if (run.length > 2) return `takes ${run.length} parameters, and drover calls no callback`;
  const [, first] = /^(?:async\s+)?(?:function\b[^(]*)?\(\s*(\w+)\s*,/.exec(source) ?? [];
  if (first === 'context' || first === 'ctx') return `takes (${first}, ...), as Azure Functions v3 calls it, in the wrong order`;
  return '';
}

/** Returns how to fix an error of an import. */
function hint(error, app) {
  if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
    const missing = /^Cannot find (?:module|package) '((?:@[^/']+\/)?[^./'][^/']*)/.exec(error.message)?.[1];
    if (missing && !missing.startsWith('file:')) return ` (by ${process.execPath}; to install it, in ${app}: npm install ${missing})`;
    return ` (by ${process.execPath})`;
  }
  if (error?.code === 'ERR_UNKNOWN_FILE_EXTENSION' && /\.[cm]?ts"?/.test(error.message)) {
    return ` (by ${process.execPath}, Node.js ${process.versions.node}; 22.18 and newer run TypeScript: use one, or compile it)`;
  }
  return '';
}

// The time limit of a second import that finds the place of a syntax error, in ms.
const SECOND_LOOK = 10_000;

/**
 * Returns the place of a syntax error of an ES module. Node.js prints it only to standard
 * error, when the error ends it. So another Node.js imports the module.
 */
function place(error, app, specifier) {
  if (error?.name !== 'SyntaxError' || stack(error).includes('\n')) return undefined;
  const program = `require(${JSON.stringify(require.resolve('./resolve'))}).useHooks(${JSON.stringify(app)}); import(${JSON.stringify(specifier)});`;
  const { stderr } = spawnSync(process.execPath, ['--eval', program], { cwd: app, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], timeout: SECOND_LOOK, killSignal: 'SIGKILL' });
  const at = stderr?.search(/^\S.*:\d+$/m);
  if (!stderr?.includes(oneLine(error)) || at < 0) return undefined;
  return stderr.slice(at).split('\n').filter((line) => !/^\s+at .*node:|^Node\.js v/.test(line)).join('\n').trim();
}

module.exports = { LoadError, load };
