"""Dramatiq on Redis, with retries as its only middleware."""

import os

import dramatiq
import sending
import work
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"], middleware=[Retries()]))


@dramatiq.actor
def job(body):
    work.job(body)


if __name__ == "__main__":
    sending.send(job.send)
