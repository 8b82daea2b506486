"""Processes that share out work by numbers; one that dies costs what it was at, not the run.

Made of fork and pipes rather than of `multiprocessing`: a pool there waits for ever for a member that the kernel
killed, and says nothing of what it was doing. Lines of JSON go both ways. The caller must have no threads.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_FLUSH_SECONDS = 0.1  # how old an answer may get before it is sent: a message a file would cost 3 % of a small one
_NUMBER = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Task:
    """Numbers for one member; `is_whole` ones stand or fall together."""

    numbers: tuple[int, ...]
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Died:
    """A member died while it was at these numbers; `how` is a sentence without an identity."""

    numbers: tuple[int, ...]
    how: str


class Member:
    """What a member's work is: answers JSON can hold, one for each number, and what it gathered since it was asked."""

    def work(self, task: Task, begins: Callable[[int], None]) -> Iterator[Any]:
        """One answer for each number, in order; calls `begins` before each."""
        raise NotImplementedError

    def gathered(self) -> Any:
        """What belongs to the answers since the last call, as a whole."""
        return None


Message = tuple[list[Any], Any]
"""Answers, and what was gathered with them."""


def shared_out(
    tasks: Iterable[Task], join: Callable[[], Member], processes: int
) -> Generator[Message | Died, None, None]:
    """Let `processes` members work through the tasks. What a dead member had not answered is given to another.

    Ends its members when it is closed or broken off.
    """
    waiting = deque(tasks)
    members: dict[int, _Worker] = {}
    poll = select.poll()
    try:
        while waiting or members:
            while waiting and len(members) < max(processes, 1):
                member = _hired(join, [*members.values()])
                members[member.answers] = member
                poll.register(member.answers, select.POLLIN)
                member.give(waiting.popleft())
            for handle, _ in poll.poll():
                member = members[handle]
                said = member.heard()
                if said is None:
                    poll.unregister(handle)
                    del members[handle]
                    yield from _buried(member, waiting)
                    continue
                for message in said:
                    member.answered += len(message[0])
                    yield message
                if member.is_done:
                    member.give(waiting.popleft() if waiting else None)
    finally:
        for member in members.values():
            member.end()


@dataclass(slots=True)
class _Worker:
    """A member as its employer sees it."""

    pid: int
    orders: int
    answers: int
    at: mmap.mmap
    task: Task | None = None
    answered: int = 0
    rest: bytearray = field(default_factory=bytearray)

    @property
    def is_done(self) -> bool:
        return self.task is not None and self.answered >= len(self.task.numbers)

    def give(self, task: Task | None) -> None:
        """The next task; none ends it."""
        self.task, self.answered = task, 0
        _NUMBER.pack_into(self.at, 0, -1)
        if task is None:
            os.close(self.orders)
            self.orders = -1
            return
        with suppress(BrokenPipeError):  # it died: its pipe of answers says so next
            _write(self.orders, json.dumps([task.numbers, task.is_whole]).encode() + b"\n")

    def heard(self) -> list[Message] | None:
        """What it said since; None when it is gone."""
        data = os.read(self.answers, 1 << 20)
        if not data:
            return None
        self.rest += data
        *lines, rest = bytes(self.rest).split(b"\n")
        self.rest = bytearray(rest)
        return [tuple(json.loads(line)) for line in lines]

    def end(self) -> None:
        """Stop it at once."""
        for handle in (self.orders, self.answers):
            if handle >= 0:
                os.close(handle)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def _buried(member: _Worker, waiting: deque[Task]) -> Iterator[Died]:
    """Say what a member died of; what it had not come to goes back to the others."""
    if member.orders >= 0:
        os.close(member.orders)
    os.close(member.answers)
    code = os.waitstatus_to_exitcode(os.waitpid(member.pid, 0)[1])
    if member.task is None:
        return
    left = member.task.numbers[member.answered :]
    how = f"the worker died (signal {-code})" if code < 0 else f"the worker died (exit code {code})"
    at = int(_NUMBER.unpack_from(member.at, 0)[0])
    lost = left if member.task.is_whole else tuple(n for n in left if n == at) or left[:1]
    if rest := tuple(n for n in left if n not in lost):
        waiting.appendleft(Task(rest))
    yield Died(lost, how)


def _hired(join: Callable[[], Member], others: Sequence[_Worker]) -> _Worker:
    """A new member, in a process of its own."""
    orders_out, orders_in = os.pipe()
    answers_out, answers_in = os.pipe()
    at = mmap.mmap(-1, _NUMBER.size)
    _NUMBER.pack_into(at, 0, -1)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(orders_out)
        os.close(answers_in)
        return _Worker(pid, orders_in, answers_out, at)
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the employer's to answer
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for other in others:  # else it would keep their pipes open when the employer is gone
            for handle in (other.orders, other.answers):
                if handle >= 0:
                    os.close(handle)
        os.close(orders_in)
        os.close(answers_out)
        _serve(join(), orders_out, answers_in, at)
        code = 0
    except BrokenPipeError:  # the employer is gone
        code = 0
    finally:
        os._exit(code)  # nothing of the employer's is flushed or closed a second time


def _serve(member: Member, orders: int, answers: int, at: mmap.mmap) -> None:
    gc.freeze()
    gc.set_threshold(100_000)  # an instance makes thousands of small tuples and no cycles
    with open(orders, "rb") as lines:
        for line in lines:
            numbers, is_whole = json.loads(line)
            said: list[Any] = []
            due = time.monotonic() + _FLUSH_SECONDS
            for answer in member.work(Task(tuple(numbers), is_whole), lambda number: _NUMBER.pack_into(at, 0, number)):
                said.append(answer)
                if time.monotonic() > due and len(said) < len(numbers):
                    _write(answers, json.dumps([said, member.gathered()]).encode() + b"\n")
                    said, due = [], time.monotonic() + _FLUSH_SECONDS
            if said:
                _write(answers, json.dumps([said, member.gathered()]).encode() + b"\n")


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
