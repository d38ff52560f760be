"""taskiq on NATS JetStream, by a pull consumer."""

import os

import work
from nats.js.api import ConsumerConfig
from taskiq_nats import PullBasedJetStreamBroker

broker = PullBasedJetStreamBroker(
    os.environ["NATS_URL"],
    subject="job",
    stream_name="JOB",
    durable="job",
    consumer_config=ConsumerConfig(durable_name="job", max_ack_pending=20_000),
    # A fetch waits until it has so many messages.
    pull_consume_batch=int(os.environ["PEER_BATCH"]),
)

if os.environ["PEER_FUNCTION"] == "async":

    @broker.task(task_name="job")
    async def job(body: str):
        await work.async_job(body)

else:

    @broker.task(task_name="job")
    def job(body: str):
        work.job(body)
