// The Service Bus SDK for JavaScript against the emulator.
"use strict";
const { ServiceBusClient } = require("@azure/service-bus");
const { types } = require("rhea");
const { connection, main, same, rejects, entity } = require("checks.js");

const wait = 30_000; // milliseconds for what must come

async function connected(use, options = {}) {
  const client = new ServiceBusClient(connection, { retryOptions: { maxRetries: 0, timeoutInMs: wait }, ...options });
  try {
    await use(client);
  } finally {
    await client.close();
  }
}

const bodies = (messages) => messages.map((m) => m.body);

// receive receives exactly count messages.
async function receive(receiver, count) {
  const got = [];
  const deadline = Date.now() + wait;
  while (got.length < count && Date.now() < deadline) {
    got.push(...(await receiver.receiveMessages(count - got.length, { maxWaitTimeInMs: 5000 })));
  }
  same(got.length, count);
  return got;
}

async function noneLeft(receiver) {
  same(bodies(await receiver.receiveMessages(1, { maxWaitTimeInMs: 500 })), []);
}

const checks = {
  async everyWayToSettle() {
    const path = await entity("settle");
    await connected(async (client) => {
      await client.createSender(path).sendMessages(["complete", "abandon", "dead", "defer"].map((body) => ({ body })));
      const receiver = client.createReceiver(path);
      const [complete, abandon, dead, defer] = await receive(receiver, 4);
      await receiver.completeMessage(complete);
      await receiver.abandonMessage(abandon, { reason: "later", n: 1 });
      await receiver.deadLetterMessage(dead, { deadLetterReason: "broken", deadLetterErrorDescription: "no such order", n: 2 });
      await receiver.deferMessage(defer, { n: 3 });
      const [again] = await receive(receiver, 1);
      same([again.body, again.deliveryCount, again.applicationProperties], ["abandon", 1, { reason: "later", n: 1 }]);
      await receiver.renewMessageLock(again);
      await receiver.completeMessage(again);
      await noneLeft(receiver);

      const [deferred] = await receiver.receiveDeferredMessages(defer.sequenceNumber);
      same([deferred.body, deferred.state, deferred.applicationProperties], ["defer", "deferred", { n: 3 }]);
      await receiver.completeMessage(deferred);
      await rejects(receiver.receiveDeferredMessages(defer.sequenceNumber), { code: "MessageNotFound" });

      const letters = client.createReceiver(path, { subQueueType: "deadLetter" });
      const [letter] = await receive(letters, 1);
      same([letter.body, letter.deadLetterReason, letter.deadLetterErrorDescription, letter.deadLetterSource],
        ["dead", "broken", "no such order", undefined]);
      await letters.completeMessage(letter);
    });
  },

  async receiveAndDelete() {
    const path = await entity("delete");
    await connected(async (client) => {
      await client.createSender(path).sendMessages([{ body: 1 }, { body: 2 }]);
      const receiver = client.createReceiver(path, { receiveMode: "receiveAndDelete" });
      same(bodies(await receive(receiver, 2)), [1, 2]);
      same(await receiver.peekMessages(1), []);
    });
  },

  async streaming() {
    const path = await entity("stream");
    await connected(async (client) => {
      const sender = client.createSender(path);
      const receiver = client.createReceiver(path);
      const got = [];
      await new Promise((resolve, reject) => {
        receiver.subscribe({
          async processMessage(message) {
            got.push(message.body);
            // On its own: rhea 3.0 may send the outcome of another message that is
            // settled in the same turn of the event loop instead of this one's.
            if (got.length === 199) sender.sendMessages({ body: "fails" }).catch(reject);
            if (message.body === "fails" && message.deliveryCount === 0) throw new Error("once");
            if (got.length === 201) resolve();
          },
          async processError(args) {
            if (args.error.message !== "once") reject(args.error);
          },
        }, { maxConcurrentCalls: 8 });
        sender.sendMessages(Array.from({ length: 199 }, (_, i) => ({ body: i }))).catch(reject);
      });
      await receiver.close();
      same(new Set(got).size, 200);
    });
  },

  async iterating() {
    const path = await entity("iterate");
    await connected(async (client) => {
      await client.createSender(path).sendMessages([{ body: "a" }, { body: "b" }]);
      const receiver = client.createReceiver(path);
      const got = [];
      for await (const message of receiver.getMessageIterator()) {
        got.push(message.body);
        await receiver.completeMessage(message);
        if (got.length === 2) break;
      }
      same(got, ["a", "b"]);
    });
  },

  async sessions() {
    const path = await entity("sessions", "Queue", { RequiresSession: "true" });
    await connected(async (client) => {
      const sender = client.createSender(path);
      await sender.sendMessages(["a0", "b0", "a1", "b1"].map((body) => ({ body, sessionId: body[0] })));
      const receiver = await client.acceptSession(path, "b");
      same(receiver.sessionId, "b");
      same(await receiver.getSessionState(), null);
      await receiver.setSessionState("half");
      same(String(await receiver.getSessionState()), "half");
      const before = receiver.sessionLockedUntilUtc;
      same((await receiver.renewSessionLock()) >= before, true);
      await rejects(client.acceptSession(path, "b"), { code: "SessionCannotBeLocked" });
      const [b0, b1] = await receive(receiver, 2);
      same([b0.body, b1.body, b0.sessionId], ["b0", "b1", "b"]);
      await receiver.completeMessage(b0);
      await receiver.deferMessage(b1);
      const [deferred] = await receiver.receiveDeferredMessages(b1.sequenceNumber);
      await receiver.deadLetterMessage(deferred, { deadLetterReason: "no" });
      await receiver.close();

      const next = await client.acceptNextSession(path);
      same(next.sessionId, "a");
      same(bodies(await next.peekMessages(10)), ["a0", "a1"]);
      const got = [];
      await new Promise((resolve, reject) => {
        next.subscribe({
          async processMessage(message) {
            got.push(message.body);
            await next.completeMessage(message);
            if (got.length === 2) resolve();
          },
          async processError(args) {
            reject(args.error);
          },
        }, { autoCompleteMessages: false });
      });
      same(got, ["a0", "a1"]);
      await next.close();
      const letters = client.createReceiver(path, { subQueueType: "deadLetter" });
      const [letter] = await receive(letters, 1);
      same([letter.body, letter.sessionId, letter.deadLetterReason], ["b1", "b", "no"]);
      await letters.completeMessage(letter);
    });
    await connected((client) => rejects(client.acceptNextSession(path), { code: "ServiceTimeout" }),
      { retryOptions: { maxRetries: 0, timeoutInMs: 1000 } });
  },

  async aMessageLockEnds() {
    const path = await entity("short", "Queue", { LockDuration: "PT1S" });
    await connected(async (client) => {
      await client.createSender(path).sendMessages({ body: "x" });
      const receiver = client.createReceiver(path, { maxAutoLockRenewalDurationInMs: 0 });
      const [first] = await receive(receiver, 1);
      const [again] = await receive(receiver, 1);
      same(again.deliveryCount, 1);
      await rejects(receiver.completeMessage(first), { code: "MessageLockLost" });
      await receiver.completeMessage(again);
    });
  },

  async scheduling() {
    const path = await entity("scheduled");
    await connected(async (client) => {
      const sender = client.createSender(path);
      const receiver = client.createReceiver(path);
      const later = new Date(Date.now() + 3_600_000);
      const numbers = await sender.scheduleMessages([{ body: "a", messageId: 7 }, { body: "b" }], later);
      const [a, b] = await receiver.peekMessages(10);
      same([a.state, b.state, a.messageId, a.scheduledEnqueueTimeUtc], ["scheduled", "scheduled", 7, later]);
      same([a.sequenceNumber, b.sequenceNumber].map(String), numbers.map(String));
      await sender.cancelScheduledMessages(numbers);
      same(await receiver.peekMessages(10), []);
      await rejects(sender.cancelScheduledMessages(numbers[0]), { code: "MessageNotFound" });
      const soon = new Date(Date.now() + 1000);
      await sender.scheduleMessages({ body: "soon" }, soon);
      const [got] = await receive(receiver, 1);
      same(Date.now() >= soon.getTime(), true);
      await receiver.completeMessage(got);
    });
  },

  async topics() {
    await entity("news", "Topic");
    for (const name of ["a", "b"]) await entity("news/Subscriptions/" + name, "Subscription");
    await connected(async (client) => {
      const sender = client.createSender("news");
      await sender.sendMessages([{ body: 1 }, { body: 2 }]);
      const [number] = await sender.scheduleMessages({ body: "never" }, new Date(Date.now() + 3_600_000));
      await sender.cancelScheduledMessages(number);
      for (const name of ["a", "b"]) {
        const receiver = client.createReceiver("news", name);
        const [one, two] = await receive(receiver, 2);
        same([one.body, two.body], [1, 2]);
        await receiver.completeMessage(one);
        await receiver.deadLetterMessage(two, { deadLetterReason: name });
        const letters = client.createReceiver("news", name, { subQueueType: "deadLetter" });
        const [letter] = await receive(letters, 1);
        same(letter.deadLetterReason, name);
        await letters.completeMessage(letter);
      }
    });
  },

  async largeMessages() {
    const path = await entity("large");
    await connected(async (client) => {
      const sender = client.createSender(path);
      for (let i = 0; i < 6; i++) await sender.sendMessages({ body: String(i).repeat(100_000) });
      await rejects(sender.sendMessages({ body: "x".repeat(300_000) }), { code: "MessageSizeExceeded" });
      const batch = await sender.createMessageBatch();
      same(batch.tryAddMessage({ body: "x".repeat(300_000) }), false);
      let count = 0;
      while (batch.tryAddMessage({ body: "x".repeat(1000) })) count++;
      same(count > 200, true);
      await sender.sendMessages(batch);
      const receiver = client.createReceiver(path);
      const seen = [];
      for (let page; seen.length < 6 && (page = await receiver.peekMessages(10)).length > 0;) seen.push(...page);
      same(seen.slice(0, 6).map((m) => m.body[0]), ["0", "1", "2", "3", "4", "5"]);
      const got = await receive(receiver, 6 + count); // several frames each: deliveries are numbered apart from frames
      same(got.slice(0, 6).map((m) => m.body.length), Array(6).fill(100_000));
      for (const message of got.slice(0, 6)) await receiver.completeMessage(message);
    });
  },

  async everySystemProperty() {
    const path = await entity("system");
    const sent = {
      body: { a: 1 }, contentType: "application/json", correlationId: "c1", messageId: "m1", partitionKey: "p1", replyTo: "answers",
      replyToSessionId: "rs", sessionId: "p1", subject: "s", timeToLive: 7_200_000, to: "t",
    };
    await connected(async (client) => {
      await client.createSender(path).sendMessages(sent);
      const receiver = client.createReceiver(path);
      const [got] = await receive(receiver, 1);
      for (const name of Object.keys(sent)) same([name, got[name]], [name, sent[name]]);
      same(got.expiresAtUtc.getTime(), got.enqueuedTimeUtc.getTime() + sent.timeToLive);
      same([Number(got.sequenceNumber), got.deliveryCount, got.state], [1, 0, "active"]);
      same(got.lockedUntilUtc > got.enqueuedTimeUtc, true);
      await receiver.completeMessage(got);
    });
  },

  async idsOfAnyType() {
    const path = await entity("ids");
    await connected(async (client) => {
      const sender = client.createSender(path);
      const ids = [77, "text", "é\n<&>", Buffer.alloc(16, 9)]; // the SDK sends a buffer as a UUID
      for (const id of ids) await sender.sendMessages({ body: "x", messageId: id, correlationId: id });
      const got = await receive(client.createReceiver(path), ids.length);
      same(got.map((m) => m.messageId), ids);
      same(got.map((m) => m.correlationId), ids);
    });
  },

  async propertiesOfEveryType() {
    const path = await entity("types");
    const date = new Date("2024-02-29T12:30:15.250Z");
    const plain = {
      null: null, true: true, false: false, int: 1, negative: -5, long: 2 ** 40, double: 1.5, text: "grüße\r\n", empty: "",
    };
    const wrapped = {
      ubyte: types.wrap_ubyte(255), byte: types.wrap_byte(-7), ushort: types.wrap_ushort(65535), short: types.wrap_short(-300),
      uint: types.wrap_uint(2 ** 32 - 1), ulong: types.wrap_ulong(2 ** 50), float: types.wrap_float(0.25), char: types.wrap_char("é".codePointAt(0)),
      uuid: types.wrap_uuid(Buffer.alloc(16, 7)), binary: types.wrap_binary(Buffer.from([0, 255])), symbol: types.wrap_symbol("sym"),
    };
    await connected(async (client) => {
      await client.createSender(path).sendMessages({ body: "x", applicationProperties: { ...plain, ...wrapped, date } });
      const receiver = client.createReceiver(path);
      const verify = (message) => {
        same(message.applicationProperties.date, date.getTime()); // the SDK returns dates as numbers
        for (const [name, want] of Object.entries(plain)) same([name, message.applicationProperties[name]], [name, want]);
        for (const [name, want] of Object.entries(wrapped)) {
          let got = message.applicationProperties[name].valueOf();
          if (Buffer.isBuffer(want.valueOf())) got = Buffer.from(Object.values(got)); // the SDK copies a buffer into an object
          same([name, got], [name, want.valueOf()]);
        }
      };
      const [message] = await receive(receiver, 1);
      verify(message);
      await receiver.deadLetterMessage(message, { deadLetterReason: "r" }); // the section is written anew
      const letters = client.createReceiver(path, { subQueueType: "deadLetter" });
      const [letter] = await receive(letters, 1);
      verify(letter);
      await letters.completeMessage(letter);
    });
  },

  async bodiesOfEveryKind() {
    const path = await entity("bodies");
    await connected(async (client) => {
      const sender = client.createSender(path);
      await sender.sendMessages({ body: Buffer.from([0, 1, 255]) });
      await sender.sendMessages({ body: { a: [1, null, "x"] } });
      await sender.sendMessages({ bodyType: "value", body: { a: [1, -2, null] } });
      await sender.sendMessages({ bodyType: "sequence", body: [["a", 1], [2.5]] });
      const [data, json, value, sequence] = await receive(client.createReceiver(path), 4);
      same(data.body, Buffer.from([0, 1, 255]));
      same(json.body, { a: [1, null, "x"] });
      same([value.body, value._rawAmqpMessage.bodyType], [{ a: [1, -2, null] }, "value"]);
      same([sequence.body, sequence._rawAmqpMessage.bodyType], [[["a", 1], [2.5]], "sequence"]);
    });
  },

  async whatIsMissingOrDisabled() {
    await connected(async (client) => {
      await rejects(client.createSender("nowhere").sendMessages({ body: "x" }), { code: "MessagingEntityNotFound" });
      await rejects(client.createReceiver("nowhere").receiveMessages(1), { code: "MessagingEntityNotFound" });
      const path = await entity("closed", "Queue", { Status: "Disabled" });
      await rejects(client.createSender(path).sendMessages({ body: "x" }), { code: "MessagingEntityDisabled" });
    });
  },
};

main(checks);
