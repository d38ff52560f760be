"""Reads cases from standard input and says what drover.frames.Reader makes of each.

A case is a u32 length, then u32 max, u16 functions, u8 due, u16 pieces, so many u16
sizes of pieces, and the bytes, which come in pieces of those sizes, in turn. What is said
is a u32 length and lines of text."""

import socket
import struct
import sys
import traceback
import zlib

from drover.frames import CHUNK, MAX_LOAD, Cancel, Credit, Drain, Hello, Load, Profile, Reader, Settings

HEAD = struct.Struct("<IHBH")


class Socket:
    """Gives bytes in pieces."""

    def __init__(self, data, sizes):
        self.data, self.sizes, self.at, self.turn = data, sizes or [len(data)], 0, 0

    def recv(self, size, flags):
        if not 0 < size <= CHUNK:
            raise AssertionError(f"a read of {size} bytes")  # a length alone must not allocate memory
        self.turn += 1
        if flags & socket.MSG_DONTWAIT and self.turn % 2:
            raise BlockingIOError
        n = min(max(self.sizes[self.turn % len(self.sizes)], 1), size)
        self.at += n
        return self.data[self.at - n : self.at]


def say(reader, item):
    if isinstance(item, Drain):
        return "drain"
    if isinstance(item, Cancel):
        return f"cancel {item.number}"
    if isinstance(item, Credit):
        return f"credit {item.number} {item.amount}"
    if isinstance(item, (Hello, Load, Profile, Settings)):
        return f"json {len(item.payload)} {zlib.crc32(item.payload)}"
    number, index, body, meta, attempt, enqueued, deadline, origin = item
    of_origin = f"{len(origin)} {zlib.crc32(origin)}"
    return f"invoke {number} {index} {attempt} {enqueued} {deadline} {len(meta)} {zlib.crc32(meta)} {len(body)} {zlib.crc32(body)} {of_origin}"


def run(case):
    maximum, functions, due, count = HEAD.unpack_from(case)
    sizes = struct.unpack_from(f"<{count}H", case, HEAD.size)
    reader = Reader(Socket(case[HEAD.size + 2 * count :], sizes))
    reader.max, reader.functions, reader.due = maximum, functions, due or None
    said = []
    try:
        while True:
            got = reader.read()
            said += [say(reader, item) for item in got]
            if sum(map(len, reader._parts)) >= 4 + max(maximum, MAX_LOAD):
                raise AssertionError("more is kept than the longest frame")
    except EOFError:
        said.append("end")
    except ValueError:
        said.append("wrong")
    except BaseException:
        said.append(traceback.format_exc())
    return "\n".join(said)


def main():
    source, to = sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = source.read(4)
        if len(head) < 4:
            return
        out = run(source.read(struct.unpack("<I", head)[0])).encode()
        to.write(struct.pack("<I", len(out)) + out)
        to.flush()


main()
