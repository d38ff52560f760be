"""The same no-op for Celery; run as a program it fills the queue."""

import os
import sys

from celery import Celery

app = Celery("bench", broker=os.environ["BROKER"])
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=64, task_serializer="json")


@app.task(name="noop")
def noop(body):
    return None


if __name__ == "__main__":
    body = "x" * 128
    with app.connection_for_write() as connection, app.amqp.producer_pool.acquire(block=True) as producer:
        for _ in range(int(sys.argv[1])):
            noop.apply_async((body,), producer=producer)
