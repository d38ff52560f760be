"""Reads cases from standard input and says what drover.frames.Reader makes of each.

A case is a u32 length, then u32 max, u16 functions, u8 due, u16 pieces, so many u16
sizes of pieces, and the bytes, which come in pieces of those sizes, in turn. What is said
is a u32 length and lines of text."""

import struct
import sys
import traceback
import zlib

from drover.frames import Cancel, Drain, Hello, Load, Reader, Settings

HEAD = struct.Struct("<IHBH")


class Socket:
    """Gives bytes in pieces."""

    def __init__(self, data, sizes):
        self.data, self.sizes, self.at, self.turn = data, sizes or [len(data)], 0, 0

    def recv_into(self, view, _, flags):
        if not view:
            raise AssertionError("no room to read into")
        n = min(max(self.sizes[self.turn % len(self.sizes)], 1), len(view), len(self.data) - self.at)
        self.turn += 1
        view[:n] = self.data[self.at : self.at + n]
        self.at += n
        return n


def say(reader, item):
    if isinstance(item, Drain):
        return "drain"
    if isinstance(item, Cancel):
        return f"cancel {item.number}"
    if isinstance(item, (Hello, Load, Settings)):
        return f"json {len(item.payload)} {zlib.crc32(item.payload)}"
    number, index, data, meta, body, end, attempt, enqueued, deadline = item
    return f"invoke {number} {index} {attempt} {enqueued} {deadline} {meta_of(data, meta, body)} {end - body} {zlib.crc32(data[body:end])}"


def meta_of(data, meta, body):
    return f"{body - meta} {zlib.crc32(data[meta:body])}"


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
            if len(reader._buffer) > (512 << 10) + 2 * maximum + (8 << 20):
                raise AssertionError(f"a buffer of {len(reader._buffer)} bytes")
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
