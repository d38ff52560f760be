"""Celery on Redis: late acknowledgements, no results."""

import os

import sending
import work
from celery import Celery

app = Celery("bench", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    task_serializer="json",
    worker_send_task_events=False,
    worker_enable_remote_control=False,
)


@app.task(name="job")
def job(body):
    work.job(body)


if __name__ == "__main__":
    with app.connection_for_write() as connection, app.amqp.producer_pool.acquire(block=True) as producer:
        sending.send(lambda body: job.apply_async((body,), producer=producer))
