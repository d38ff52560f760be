// No-op functions: what is measured is everything around them.
exports.noop = () => {};
exports.async_noop = async () => {};
