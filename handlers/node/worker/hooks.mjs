// The hooks of import for Node.js before 22.15; see resolve.js.

let drover, parentURL, FROM_APP, port;

export function initialize(data) {
  ({ drover, parentURL, FROM_APP, port } = data);
}

export async function resolve(specifier, context, next) {
  if (specifier.startsWith(FROM_APP)) return next(specifier.slice(FROM_APP.length), { ...context, parentURL });
  if (specifier !== 'drover') return found(specifier, context, next);
  try {
    return await next(specifier, context);
  } catch {
    return { url: drover, format: 'commonjs', shortCircuit: true };
  }
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
