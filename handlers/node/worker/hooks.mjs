// The hooks of import for Node.js before 22.15; see resolve.js.

import { fileURLToPath } from 'node:url';
import resolver from './resolve.js';

let drover, names, parentURL, FROM_APP, port;

export function initialize(data) {
  ({ drover, names, parentURL, FROM_APP, port } = data);
}

export async function resolve(specifier, context, next) {
  if (specifier.startsWith(FROM_APP)) return next(specifier.slice(FROM_APP.length), { ...context, parentURL });
  if (!names.includes(specifier)) return found(specifier, context, next);
  try {
    const result = await next(specifier, context);
    if (!result.url.startsWith('file:') || !resolver.isPackaged(fileURLToPath(result.url))) return result;
  } catch { /* the app has none */ }
  return { url: drover, format: 'commonjs', shortCircuit: true };
}

/** Resolves a specifier, and reports the result or the failure to the main thread. */
async function found(specifier, context, next) {
  try {
    const result = await next(specifier, context);
    port?.postMessage({ url: result.url });
    return result;
  } catch (error) {
    port?.postMessage({ specifier, parentURL: context.parentURL });
    throw error;
  }
}
