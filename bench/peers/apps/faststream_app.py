"""FastStream on NATS JetStream, by a pull consumer."""

import os

import work
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

broker = NatsBroker(os.environ["NATS_URL"], logger=None)
subscriber = broker.subscriber(
    "job",
    stream=JStream("JOB", subjects=["job"], declare=False),
    durable="job",
    pull_sub=PullSub(batch_size=200),
    config=ConsumerConfig(max_ack_pending=20_000),
    max_workers=int(os.environ["PEER_WORKERS"]),
    no_reply=True,
)

if os.environ["PEER_FUNCTION"] == "async":

    @subscriber
    async def job(body: str):
        await work.async_job(body)

else:

    @subscriber
    def job(body: str):
        work.job(body)


app = FastStream(broker)


@app.on_startup
async def raise_thread_limit():
    """anyio runs 40 blocking functions at a time by default."""
    import anyio.to_thread

    anyio.to_thread.current_default_thread_limiter().total_tokens = max(40, int(os.environ["PEER_WORKERS"]))
