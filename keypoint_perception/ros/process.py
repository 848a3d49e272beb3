"""A node as a process: starts, spins, and ends within a second on SIGINT or SIGTERM, at whatever moment they come."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from keypoint_perception.errors import UserError, first_line
from keypoint_perception.heap import keep_freed_memory
from keypoint_perception.ros.faults import Faults

_GRACE_S = 0.8
_LARGEST_IMAGE = 16 << 20
"""Bytes of an image whose memory is used for the next."""


class ProcessNode(Protocol):
    """An rclpy node that keeps its faults."""

    faults: Faults

    def get_logger(self) -> Any:
        """As rclpy's."""

    def destroy_node(self) -> None:
        """As rclpy's."""


class _Stop:
    """Turns a signal into the end of the executor's loop.

    rclpy's own handlers pull the context from under a callback that runs, and one written in Python waits until the
    middleware has something to say. So a thread waits for the byte that the interpreter writes at once.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.done = threading.Event()
        self.wake: Callable[[], Any] = lambda: None
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self.thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self.thread.start()

    def _wait(self) -> None:
        os.read(self._reader, 1)
        self.asked.set()
        self.wake()
        if not self.done.wait(_GRACE_S):
            os._exit(0)  # an engine is being built, and nothing that matters is open


def run_node(create: Callable[[], ProcessNode], args: Sequence[str] | None = None) -> int:
    """Runs one node until it is told to end; the exit status: 0, or 2 where it could not be started as asked.

    create: makes the node, may raise UserError. args: command line, None for the process' own.
    """
    stop = _Stop()
    keep_freed_memory(_LARGEST_IMAGE, 4 * _LARGEST_IMAGE)
    status = _run(create, args, stop)
    if set(threading.enumerate()) - {threading.main_thread(), stop.thread}:
        # A model is being loaded, and the interpreter's end would abort the process inside of the engine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _run(create: Callable[[], ProcessNode], args: Sequence[str] | None, stop: _Stop) -> int:
    try:
        rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # arguments that rcl cannot parse
        return _refuse(f"ROS cannot take its arguments: {str(error).split(', at ')[0]}")
    node: Any = None
    try:
        executor = SingleThreadedExecutor()
        stop.wake = lambda: executor.create_task(lambda: None)  # a task, since a bare wake-up goes back to waiting
        node = create()
        executor.add_node(node)
        spare_collections()
        while not stop.asked.is_set():
            _serve_one(executor, node)
        return 0
    except (ShutdownException, ExternalShutdownException):
        return 0
    except UserError as error:
        return _refuse(str(error))
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        stop.done.set()


def _serve_one(executor: SingleThreadedExecutor, node: ProcessNode) -> None:
    """Waits for one callback and runs it. What it raises is told, and ends nothing: the others are still needed.

    Where rclpy could not even take what the callback is for, it would never call its group again: that is raised.
    """
    ready: Any = executor.wait_for_ready_callbacks()
    task, entity, _ = ready
    task()
    error = task.exception()
    if error is not None:
        if getattr(entity, "_executor_event", False):
            raise error
        text = f"{type(error).__name__}: {first_line(error)}"
        node.faults.error("callback", f"a callback failed, --log-level debug says where: {text}")
        node.get_logger().debug("".join(traceback.format_exception(error)))


def spare_collections() -> None:
    """To be called when all is set up: Python's collector then never looks again at what is there by now.

    Going through all modules takes it a tenth of a second, in which no image is served, and finds nothing.
    """
    gc.collect()
    gc.freeze()


def _refuse(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2
