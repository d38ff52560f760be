"""Huey on Redis, without results."""

import os

import sending
import work
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["REDIS_URL"], results=False)


@huey.task()
def job(body):
    work.job(body)


if __name__ == "__main__":
    import huey_app  # tasks are named by their module, which is __main__ here

    sending.send(huey_app.job)
