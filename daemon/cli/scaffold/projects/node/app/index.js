'use strict';

/**
 * Called once for each message; any error is a failed attempt. The return value is
 * sent to the function's output, if drover.yaml names one.
 *
 * It is async, so a worker runs many calls concurrently. A second parameter, context, has
 * an AbortSignal, which is aborted when the attempt times out. Pass it to functions that
 * accept one, such as fetch.
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
