'use strict';

/**
 * Called once for each message; any error is a failed attempt. The return value is
 * sent on, where drover.yaml gives the function an output.
 *
 * It is async, so that a worker runs many at once: what waits is awaited. For what
 * takes an AbortSignal, such as fetch, a second parameter, context, has a signal, which
 * fires when the time is up.
 */
exports.orders = async (message) => {
  let order;
  try {
    order = JSON.parse(message.body);
  } catch (error) {
    // A retry would not help: dead-letter the message at once. The counterpart is
    // Retry: new Retry('down', { after: 30_000 }) retries after that many ms.
    const { Reject } = require('drover'); // exists in drover's workers, so not in a test
    throw new Reject(`no JSON: ${error.message}`);
  }
  console.log('order %d, attempt %d', order.id, message.attempt);
  return { id: order.id, total: total(order) };
};

function total(order) {
  return order.lines.reduce((sum, line) => sum + line.price * line.count, 0);
}

exports.total = total;
