// The storage queue SDK for JavaScript against the emulator, and against Azurite: both must answer the same.
"use strict";
const { randomUUID } = require("node:crypto");
const { QueueServiceClient } = require("@azure/storage-queue");
const { connection, main, same, rejects } = require("checks.js");

const service = QueueServiceClient.fromConnectionString(connection);

async function queue() {
  const q = service.getQueueClient("js-" + randomUUID());
  await q.create();
  return q;
}

const texts = async (q) => (await q.peekMessages({ numberOfMessages: 32 })).peekedMessageItems.map((m) => m.messageText);

const checks = {
  async textComesBackAsSent() {
    const q = await queue();
    // Line ends, and text that looks like a reference, are changed by the SDK itself.
    for (const text of ['{"a":1}', "it's <b> & c", "a\tb", "grüße 你好 🎈", "]]>"]) {
      await q.sendMessage(text);
      const { receivedMessageItems: [m] } = await q.receiveMessages();
      same(m.messageText, text);
      await q.deleteMessage(m.messageId, m.popReceipt);
    }
  },

  async receivingUpdatingDeleting() {
    const q = await queue();
    for (let i = 0; i < 40; i++) await q.sendMessage(String(i));
    same((await q.getProperties()).approximateMessagesCount, 40);
    same(await texts(q), Array.from({ length: 32 }, (_, i) => String(i)));
    const { receivedMessageItems: got } = await q.receiveMessages({ numberOfMessages: 32, visibilityTimeout: 60 });
    same([got.length, got[0].dequeueCount], [32, 1]);
    const updated = await q.updateMessage(got[0].messageId, got[0].popReceipt, "<new>", 0);
    await rejects(q.deleteMessage(got[0].messageId, got[0].popReceipt), { statusCode: 400, code: "PopReceiptMismatch" });
    await q.deleteMessage(got[0].messageId, updated.popReceipt);
    await rejects(q.deleteMessage(got[0].messageId, updated.popReceipt), { statusCode: 404, code: "MessageNotFound" });
    await q.clearMessages();
    same(await texts(q), []);
  },

  async edges() {
    const q = await queue();
    same((await q.sendMessage("x", { messageTimeToLive: -1 })).expiresOn.getUTCFullYear(), 9999);
    await rejects(q.sendMessage("x".repeat(65537)), { statusCode: 413, code: "RequestBodyTooLarge" });
    await rejects(q.receiveMessages({ numberOfMessages: 33 }), { statusCode: 400, code: "OutOfRangeQueryParameterValue" });
    await rejects(q.receiveMessages({ visibilityTimeout: 604801 }), { statusCode: 400, code: "OutOfRangeQueryParameterValue" });
  },

  async queuesAndMetadata() {
    const prefix = "list-" + randomUUID().slice(0, 8);
    const names = [0, 1, 2, 3, 4].map((i) => `${prefix}-${i}`);
    for (const name of names) await service.createQueue(name, { metadata: { team: "a&b <c>" } });
    const listed = [];
    for await (const page of service.listQueues({ prefix, includeMetadata: true }).byPage({ maxPageSize: 2 })) listed.push(...page.queueItems);
    same(listed.map((q) => q.name), names);
    same(listed.map((q) => q.metadata), names.map(() => ({ team: "a&b <c>" })));
    const q = service.getQueueClient(names[0]);
    same((await q.createIfNotExists()).succeeded, false);
    await q.setMetadata({ only: "this" });
    same((await q.getProperties()).metadata, { only: "this" });
    await q.delete();
    same(await q.exists(), false);
    await rejects(q.sendMessage("x"), { statusCode: 404, code: "QueueNotFound" });
  },
};

main(checks);
