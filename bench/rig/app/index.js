// No-op functions: everything around them is measured.
exports.noop = () => {};
exports.async_noop = async () => {};
