"""AstDB's keys from the pages of its file, whatever has become of the others.

SQLite opens no file whose first page is garbage, and its command's ``.recover`` is no help
with that: Debian 13's (3.46) ends with "file is not a database", Debian 12's (3.40) was
built without what it needs and ends with "SQL logic error" on any file. So the pages are
read here, each for itself.

The format is https://www.sqlite.org/fileformat2.html, sections 1.2 (header), 1.5 (freelist),
1.6 (B-tree pages) and 2.1 (records). AstDB's one table is, in Asterisk's main/db.c:

    CREATE TABLE astdb (key VARCHAR(256), value VARCHAR(256), PRIMARY KEY(key))

Each row is in a leaf of the table, and its key once more, without the value, in the index
that belongs to PRIMARY KEY. So a key whose value is lost still has a name.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asha.run.deadline import Deadline

MAGIC = b"SQLite format 3\0"
HEADER = 100
PAGE_LEAST, PAGE_MOST = 512, 65536
# Asterisk's SQLite chooses the first by itself, one of before 2016 the second.
USUAL_SIZES = (4096, 1024, 512, 2048, 8192, 16384, 32768, 65536)

INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 10, 13

# Bytes of one value, and of all that is kept: who may write the file chooses what it says.
VALUE_MOST = 1 << 20
KEPT_MOST = 512 << 20
# Bytes of memory for a row or a name, beside its own.
COST = 300
# Pages of the freelist that are remembered, a hundred bytes each.
UNUSED_MOST = 1 << 20
# Bytes by which the size of pages is found out.
SAMPLE = 1 << 20

class Over(Exception):
    """The time for reading is."""


class Found:
    """``rows``: of each key the newest row's number and value. ``names``: every key that was
    seen, also those whose value is lost. ``complete``: time and memory were enough for all."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, bytes]] = {}
        self.names: set[bytes] = set()
        self.complete = True
        self._room = KEPT_MOST

    def take(self, number: int, key: bytes, value: bytes) -> None:
        """Asterisk replaces a row by one with a higher number, so the highest is the newest:
        an older one may still be in a page that is not in use."""
        before = self.rows.get(key)
        if before is not None and before[0] >= number:
            return
        if self._has_room(len(key) + len(value)):
            self.rows[key] = (number, value)
            self.names.add(key)

    def name(self, key: bytes) -> None:
        """One whose value may be lost."""
        if key not in self.names and self._has_room(len(key)):
            self.names.add(key)

    def _has_room(self, size: int) -> bool:
        if self._room < size + COST:
            self.complete = False
            return False
        self._room -= size + COST
        return True

    @property
    def lost(self) -> list[bytes]:
        """The keys whose value nobody has found."""
        return sorted(self.names - self.rows.keys())


def read(file: int, found: Found, deadline: Deadline) -> None:
    """Add to ``found`` what the pages of an open file have. Raises OSError."""
    size, reserved, is_known = _page_size(os.pread(file, HEADER, 0))
    if not is_known:
        size = _likely_size(file, deadline)
    _Pages(file, size, reserved, deadline).read(found)


def _likely_size(file: int, deadline: Deadline) -> int:
    """That of which the file's beginning has the most rows: each size has some by chance,
    at places where a page of another begins."""
    best = (-1, 0)
    for size in USUAL_SIZES:
        sample = Found()
        _Pages(file, size, 0, deadline).read(sample, SAMPLE // size)
        if len(sample.rows) > best[0]:
            best = (len(sample.rows), size)
    return best[1]


def _page_size(header: bytes) -> tuple[int, int, bool]:
    """Size and unused bytes at the end of each page, and whether the header is one."""
    if len(header) < HEADER or not header.startswith(MAGIC):
        return 0, 0, False
    size = int.from_bytes(header[16:18], "big")
    size = PAGE_MOST if size == 1 else size
    if not PAGE_LEAST <= size <= PAGE_MOST or size & (size - 1):
        return 0, 0, False
    return size, min(header[20], size - 480), True


class _Pages:
    """A file as pages of one size, read until the deadline."""

    def __init__(self, file: int, size: int, reserved: int, deadline: Deadline) -> None:
        self.file = file
        self.size = size
        self.usable = size - reserved
        self.count = -(-os.fstat(file).st_size // size)
        self._deadline = deadline

    def read(self, found: Found, most: int = 0) -> None:
        """``most``: so many pages and no more."""
        try:
            unused = self._unused()
            for looked, number in enumerate(self._numbers()):
                if most and looked >= most:
                    return
                if number not in unused:
                    self._read_page(number, found)
        except Over:
            found.complete = False

    def _numbers(self) -> Iterator[int]:
        """Of all pages, without those that a hole in the file is all of."""
        here = 0
        while True:
            try:
                data = os.lseek(self.file, here, os.SEEK_DATA)
                hole = os.lseek(self.file, data, os.SEEK_HOLE)
            except OSError as problem:
                if problem.errno == errno.ENXIO:
                    return
                raise
            first = max(data // self.size, here // self.size)
            last = -(-hole // self.size)
            yield from range(first + 1, last + 1)
            here = last * self.size

    def page(self, number: int) -> bytes:
        """b"" where the disk does not give it. Raises Over: whatever leads from page to
        page, in circles too, has an end."""
        if self._deadline.expired:
            raise Over
        try:
            return os.pread(self.file, self.size, (number - 1) * self.size)
        except OSError:
            return b""

    def _unused(self) -> set[int]:
        """The pages of the freelist, as far as it can be followed: what they still have was
        deleted (Debian's SQLite overwrites it, another's does not)."""
        header = self.page(1)[:HEADER]
        found: set[int] = set()
        if not header.startswith(MAGIC) or len(header) < HEADER:
            return found
        trunk = int.from_bytes(header[32:36], "big")
        while 0 < trunk <= self.count and trunk not in found and len(found) < UNUSED_MOST:
            page = self.page(trunk)
            following, leaves = (int.from_bytes(page[at:at + 4], "big") for at in (0, 4))
            if following > self.count or leaves > self.usable // 4 - 2:
                break  # a page of rows is none of these
            found |= {trunk, *(int.from_bytes(page[at:at + 4], "big")
                               for at in range(8, 8 + 4 * leaves, 4))}
            trunk = following
        return found

    def _read_page(self, number: int, found: Found) -> None:
        page = self.page(number)
        top = HEADER if number == 1 else 0
        if len(page) < top + 12 or page[top] not in (INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF):
            return
        kind = page[top]
        cells = int.from_bytes(page[top + 3:top + 5], "big")
        first = top + (12 if kind == INDEX_INTERIOR else 8)
        if first + 2 * cells > self.usable:
            return
        for at in range(first, first + 2 * cells, 2):
            cell = int.from_bytes(page[at:at + 2], "big")
            if first + 2 * cells <= cell < self.usable:
                try:
                    self._read_cell(page, kind, cell, found)
                except (IndexError, ValueError):
                    continue  # this one is damaged, the next need not be

    def _read_cell(self, page: bytes, kind: int, at: int, found: Found) -> None:
        if kind == INDEX_INTERIOR:
            at += 4
        length, at = _varint(page, at)
        number = 0
        if kind == TABLE_LEAF:
            number, at = _varint(page, at)
        record = self._payload(page, at, length, is_table=kind == TABLE_LEAF)
        fields = _texts(record)
        key = fields[0]
        if not key.startswith(b"/") or b"\0" in key:
            return
        if kind == TABLE_LEAF:
            found.take(number, key, fields[1])
        else:
            found.name(key)

    def _payload(self, page: bytes, at: int, length: int, *, is_table: bool) -> bytes:
        """Of a cell: what is in its page, and the rest in a chain of others. ValueError."""
        if length > VALUE_MOST:
            raise ValueError("too long")
        usable = self.usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            here = page[at:at + length]
            if at + length > usable:
                raise ValueError("beyond the page")
            return here
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        local = local if local <= most else least
        if at + local + 4 > usable:
            raise ValueError("beyond the page")
        parts, left = [page[at:at + local]], length - local
        following = int.from_bytes(page[at + local:at + local + 4], "big")
        while left > 0:
            if not 1 < following <= self.count:
                raise ValueError("a chain that leads nowhere")
            other = self.page(following)
            part = other[4:4 + min(left, usable - 4)]
            if len(part) < min(left, usable - 4):
                raise ValueError("a page that is cut off")
            parts.append(part)
            left -= len(part)
            following = int.from_bytes(other[:4], "big")
        if following:
            raise ValueError("a chain that does not end")  # so it is not this cell's
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next begins. IndexError."""
    value = 0
    for place in range(at, at + 8):
        byte = data[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    return value << 8 | data[at + 8], at + 9


def _texts(record: bytes) -> tuple[bytes, bytes]:
    """The two columns of a row of AstDB, or the first of its index twice.

    Raises ValueError for any other record. The lengths in the head must give the whole, so
    that garbage is taken for a row as good as never.
    """
    head, at = _varint(record, 0)
    kinds: list[int] = []
    while at < head and len(kinds) <= 2:
        kind, at = _varint(record, at)
        kinds.append(kind)
    if at != head or len(kinds) != 2:
        raise ValueError("not a row of AstDB")
    # Text of N bytes is 2 N + 13; NULL is 0; a row's number in the index is 1 to 6, 8 or 9.
    key_kind, value_kind = kinds
    if key_kind < 13 or not key_kind % 2:
        raise ValueError("its key is no text")
    key = record[head:head + (key_kind - 13) // 2]
    if value_kind >= 12:
        value = record[head + len(key):head + len(key) + (value_kind - 12) // 2]
        size = len(key) + (value_kind - 12) // 2
    else:
        value = b""
        size = len(key) + (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[value_kind]
    if head + size != len(record):
        raise ValueError("its lengths do not give the whole")
    return key, value
