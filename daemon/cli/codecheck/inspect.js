'use strict';
// Finds the functions of an app by parsing its code, and reports those that cannot be loaded. It does
// not import the app. The request is JSON on standard input, the answer JSON on standard output.
// V8 checks the syntax; acorn, which is part of Node.js, finds the exports. A function that they cannot
// parse is not checked.

const fs = require('node:fs');
const nodeModule = require('node:module');
const path = require('node:path');
const vm = require('node:vm');

const { ENDINGS, findFile } = workerFiles; // files.js of the worker; codecheck.go puts it before this program
const [major, minor] = process.versions.node.split('.').map(Number);
// Whether Node.js detects that a .js file without a type is an ES module.
const DETECTS_MODULES = major > 22 || (major === 22 && minor >= 7) || (major === 20 && minor >= 19);

let acorn;
try {
  acorn = require('internal/deps/acorn/acorn/dist/acorn');
} catch { /* only the syntax is checked */ }

function main() {
  const { dir, functions } = JSON.parse(fs.readFileSync(0, 'utf8'));
  const modules = new Map();
  const problems = [];
  for (const { name, module, function: wanted, reply } of functions) {
    if (!modules.has(module)) {
      const read = readModule(dir, module);
      modules.set(module, read);
      if (read.problem) problems.push({ ...read.problem, function: name });
    }
    const read = modules.get(module);
    const problem = read.exported && check(read, wanted, reply);
    if (problem) problems.push({ ...problem, function: name });
  }
  process.stdout.write(JSON.stringify({ problems }));
}

function readModule(dir, module) {
  const file = findFile(path.resolve(dir, module));
  if (!file) {
    try {
      if (!module.startsWith('.') && nodeModule.createRequire(path.join(dir, 'package.json')).resolve(module)) return {};
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') return {}; // for example a package that only import finds
    }
    const found = fs.readdirSync(dir).filter((name) => ENDINGS.includes(path.extname(name))).slice(0, 10);
    const which = module === '.' ? 'index.js, and no package.json with main' : `module ${module}`;
    return { problem: { kind: 'module', message: `${dir} has no ${which}${found.length > 0 ? `; it has ${found.join(', ')}` : ''}; module names another file` } };
  }
  let source = fs.readFileSync(file, 'utf8').replace(/^#!.*/, '');
  const ending = path.extname(file);
  if (ending.endsWith('ts')) {
    if (!nodeModule.stripTypeScriptTypes) return {};
    try {
      source = nodeModule.stripTypeScriptTypes(source);
    } catch (error) {
      return { problem: syntaxProblem(file, error, '') };
    }
  }
  const [type, error] = parsedAs(file, source, typeOf(file, ending));
  if (error) return { problem: syntaxProblem(file, error, source) };
  let tree;
  try {
    tree = acorn?.parse(source, { ecmaVersion: 'latest', sourceType: type, allowReturnOutsideFunction: type === 'script', locations: true });
  } catch { /* V8 knows newer syntax */ }
  if (!tree) return {};
  const declared = declarations(tree);
  return { file, exported: type === 'module' ? moduleExports(tree) : scriptExports(tree), declared };
}

/** Returns module, script or, if the file does not say, either. */
function typeOf(file, ending) {
  if (ending.startsWith('.m')) return 'module';
  if (ending.startsWith('.c')) return 'script';
  for (let dir = path.dirname(file); ; dir = path.dirname(dir)) {
    try {
      const { type } = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8'));
      if (type === 'module') return 'module';
      return type === 'commonjs' ? 'script' : 'either';
    } catch { /* look in the parent directory */ }
    if (dir === path.dirname(dir)) return 'either';
  }
}

/** Returns how V8 parses the source, and its error. */
function parsedAs(file, source, type) {
  let failure;
  if (type !== 'module') {
    try {
      vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'], { filename: file });
      return ['script'];
    } catch (error) {
      failure = error;
    }
  }
  if (type === 'module' || (type === 'either' && DETECTS_MODULES)) {
    try {
      new vm.SourceTextModule(source, { identifier: file });
      return ['module'];
    } catch (error) {
      if (type === 'module' || /import|export|await/.test(failure.message)) failure = error;
    }
  }
  return [undefined, failure];
}

function syntaxProblem(file, error, source) {
  // The stack begins with the place, except for an ES module: acorn finds it.
  let line = Number(/^.*:(\d+)\n/.exec(error.stack ?? '')?.[1] ?? 0);
  let column = 0;
  if (line === 0) {
    try {
      acorn?.parse(source, { ecmaVersion: 'latest', sourceType: 'module' });
    } catch ({ loc }) {
      if (loc) ({ line, column } = { line: loc.line, column: loc.column + 1 });
    }
  }
  return { kind: 'code', file, line, column, message: `${error.name}: ${error.message}` };
}

/** Returns the functions, classes and other values that the top level of a file declares, by name. */
function declarations(tree) {
  const found = new Map();
  for (let node of tree.body) {
    if (node.type.startsWith('Export') && node.declaration) node = node.declaration;
    if (node.id && /^(Function|Class)Declaration$/.test(node.type)) found.set(node.id.name, node);
    if (node.type === 'VariableDeclaration' && node.kind === 'const') {
      for (const { id, init } of node.declarations) if (id.type === 'Identifier') found.set(id.name, init);
    }
  }
  return found;
}

// Exports: names maps each name to its node, or to undefined; open means that there may be more.

function moduleExports(tree) {
  const out = { names: new Map(), open: false };
  for (const node of tree.body) {
    if (node.type === 'ExportAllDeclaration') {
      if (node.exported) out.names.set(node.exported.name ?? node.exported.value);
      else out.open = true;
    } else if (node.type === 'ExportDefaultDeclaration') {
      addWhole(out, node.declaration);
    } else if (node.type === 'ExportNamedDeclaration') {
      for (const { local, exported } of node.specifiers) out.names.set(exported.name ?? exported.value, node.source ? undefined : local);
      const { declaration } = node;
      if (declaration?.id) out.names.set(declaration.id.name, declaration);
      for (const { id, init } of declaration?.declarations ?? []) {
        if (id.type === 'Identifier') out.names.set(id.name, init ?? undefined);
        else out.open = true; // a pattern
      }
    }
  }
  return out;
}

/** Adds the functions of a default export, or of the value that is assigned to module.exports. */
function addWhole(out, value) {
  out.names.set('default', value);
  if (value.type === 'ObjectExpression') {
    for (const property of value.properties) {
      if (property.type !== 'Property' || property.computed) out.open = true;
      else out.names.set(property.key.name ?? property.key.value, property.value);
    }
  } else if (!/Function|Class/.test(value.type)) {
    out.open = true;
  }
}

function scriptExports(tree) {
  const out = { names: new Map(), open: false };
  walk(tree, [], (node, above) => {
    const parent = above.at(-1);
    if (node.type !== 'Identifier' || (node.name !== 'exports' && node.name !== 'module')) return;
    if (parent.type === 'MemberExpression' && parent.property === node && !parent.computed) return; // x.exports
    if (parent.type === 'Property' && parent.key === node && !parent.shorthand) return;
    let at = above.length - 1;
    let whole = node;
    if (node.name === 'module') {
      if (parent.type === 'BinaryExpression') return; // require.main === module
      if (parent.type !== 'MemberExpression' || propertyOf(parent) === undefined) {
        out.open = true;
        return;
      }
      if (propertyOf(parent) !== 'exports') return; // module.id
      whole = parent;
      at--;
    }
    const user = above[at];
    if (user.type === 'AssignmentExpression' && user.left === whole) {
      let value = user.right;
      while (value.type === 'AssignmentExpression') value = value.right; // exports = module.exports = ...
      if (node.name === 'module' || user.right !== value) addWhole(out, value);
    } else if (user.type === 'MemberExpression' && user.object === whole && propertyOf(user) !== undefined) {
      const assignment = above[at - 1];
      if (assignment?.type === 'AssignmentExpression' && assignment.left === user) out.names.set(propertyOf(user), assignment.right);
    } else if (user.type === 'CallExpression' && user.callee.property?.name === 'defineProperty' && user.arguments[1]?.type === 'Literal') {
      out.names.set(user.arguments[1].value);
    } else if (!(user.type === 'AssignmentExpression' && user.right === whole)) {
      out.open = true;
    }
  });
  return out;
}

function propertyOf({ computed, property }) {
  if (!computed) return property.name;
  return property.type === 'Literal' ? String(property.value) : undefined;
}

function walk(node, above, visit) {
  visit(node, above);
  above.push(node);
  for (const key of Object.keys(node)) {
    for (const inner of [node[key]].flat()) if (typeof inner?.type === 'string') walk(inner, above, visit);
  }
  above.pop();
}

function check({ file, exported, declared }, name, reply) {
  const { names, open } = exported;
  if (!names.has(name)) {
    if (open) return undefined;
    const known = [...names.keys()].filter((key) => key !== '__esModule').sort();
    return { kind: 'function', names: known, message: `${file} exports no function ${name}; it has: ${known.join(', ') || 'none'}` };
  }
  let node = names.get(name);
  if (node?.type === 'Identifier') node = declared.get(node.name);
  const wrong = node && misfit(node, name, reply);
  return wrong && { kind: 'code', file, line: node.loc.start.line, column: node.loc.start.column + 1, message: wrong };
}

function misfit(node, name, reply) {
  const right = `write async function ${name}(message, context)`;
  if (/^Class/.test(node.type)) return `${name} is a class, not a function; ${right}`;
  if (/^(Literal|TemplateLiteral|ArrayExpression|ObjectExpression)$/.test(node.type)) return `${name} is not a function; ${right}`;
  if (!/Function/.test(node.type)) return undefined;
  if (node.generator && !node.async && !reply) return `${name} is a generator function, so its code would not run; ${right}`;
  const optional = node.params.findIndex(({ type }) => type === 'AssignmentPattern' || type === 'RestElement');
  const needed = optional < 0 ? node.params.length : optional;
  if (needed > 2) return `${name} takes ${needed} parameters, but drover passes no callback; ${right}`;
  if (needed === 2 && /^(context|ctx)$/.test(node.params[0].name)) return `${name} has its parameters in the wrong order; ${right}`;
  return undefined;
}

main();
