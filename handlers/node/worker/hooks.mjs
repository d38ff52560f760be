// The hooks of import for Node.js before 22.15; see resolve.js.

let drover, parentURL, FROM_APP;

export function initialize(data) {
  ({ drover, parentURL, FROM_APP } = data);
}

export async function resolve(specifier, context, next) {
  if (specifier.startsWith(FROM_APP)) return next(specifier.slice(FROM_APP.length), { ...context, parentURL });
  if (specifier !== 'drover') return next(specifier, context);
  try {
    return await next(specifier, context);
  } catch {
    return { url: drover, format: 'commonjs', shortCircuit: true };
  }
}
