"""What the peers' apps share: run as a program, an app sends messages: NAME.py COUNT SIZE RATE.
The rate 0 is as fast as possible."""

import sys
import time


def send(publish):
    count, size, rate = map(int, sys.argv[1:])
    start = time.monotonic()
    for n in range(count):
        if rate:
            time.sleep(max(0, start + n / rate - time.monotonic()))
        publish(str(time.time_ns()).ljust(size, "x"))
