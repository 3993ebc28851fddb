"""The process that executes one notebook: papermill, with a kernel client that has no heartbeat channel.

The heartbeat is a thread of the client, and jupyter_client waits for its end without a limit: once it never came,
and the process hung after its last cell. Whether a kernel lives is known from its process, so the heartbeat is not
started. :mod:`lib.report.execute` starts this module and follows its events, one JSON object a line:

* ``{"kernel": pid}``: the kernel has been started;
* ``{"cell": 3, "of": 9}``: the third cell begins;
* ``{"complete": true}``: no cell is left and the notebook is written; what follows is only clearing away;
* ``{"failed": "..."}``: why the notebook could not be executed to its end.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook

# On a busy machine a kernel may take minutes to start; one that died or was stopped is noticed by its process.
START_SECONDS = 600
OUTPUT_SECONDS = 120  # from the end of a cell to its last output
DEATH_SECONDS = 5  # until a process that was killed can be asked how

_events = None  # file descriptor of the runner's pipe


class Client(AsyncKernelClient):
    """A kernel client without a heartbeat channel."""

    def start_channels(self, **channels):
        """Start all channels but the heartbeat."""
        super().start_channels(**{**channels, "hb": False})


class Manager(AsyncKernelManager):
    """Starts a kernel whose client is :class:`Client`, and says which process it is."""

    client_class = "lib.report.engine.Client"
    process = None

    async def _async_launch_kernel(self, *arguments, **options):
        await super()._async_launch_kernel(*arguments, **options)
        Manager.process = self.provisioner.process
        say(kernel=self.process.pid)


class NotebookClient(PapermillNotebookClient):
    """Papermill's client; it says when the notebook is complete, before it clears away."""

    def execute(self, **options):
        """Execute the cells, up to the first that fails."""
        self.reset_execution_trackers()
        with self.setup_kernel(**options):
            reply = self.wait_for_reply(self.kc.kernel_info())
            self.nb.metadata["language_info"] = reply["content"]["language_info"]
            self.papermill_execute_cells()
            self.set_widgets_metadata()
            self.nb_man.save()
            say(complete=True)
        return self.nb

    def execute_cell(self, cell, cell_index, **options):
        """Execute a cell, and say which."""
        say(cell=cell_index + 1, of=len(self.nb.cells))
        return super().execute_cell(cell, cell_index, **options)


class QuietEngine(Engine):
    """Papermill's engine on :class:`NotebookClient`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, execution_timeout=None, **_):
        """Execute a notebook."""
        NotebookClient(
            nb_man, kernel_manager_class=Manager, kernel_name=kernel_name, timeout=execution_timeout,
            startup_timeout=START_SECONDS, iopub_timeout=OUTPUT_SECONDS,
        ).execute()  # fmt: skip


def say(**event):
    """Send an event to the runner; without a runner there is nothing left to do."""
    try:
        os.write(_events, json.dumps(event).encode() + b"\n")
    except OSError:
        os._exit(1)


def death():
    """How the kernel ended, in words, or None while it lives."""
    try:
        code = Manager.process.wait(DEATH_SECONDS)
    except (AttributeError, subprocess.TimeoutExpired):  # not started yet, or alive
        return None
    if code < 0:
        reason = "; the usual cause is a lack of memory" if code == -signal.SIGKILL else ""
        return f"its Python process was ended by {signal.Signals(-code).name}{reason}"
    return f"its Python process ended by itself, exit code {code}"


def main(order):
    """Execute the notebook that an order describes; every way to end says why."""
    papermill_engines.register(None, QuietEngine)
    try:
        execute_notebook(
            order["source"], order["output"], order["parameters"], kernel_name="python3", cwd=order["folder"],
            progress_bar=False, execution_timeout=order["cell_timeout"],
        )  # fmt: skip
    except PapermillExecutionError:
        pass  # the executed copy holds the cell and its error
    except CellTimeoutError:
        say(failed=f"not finished within CELL_TIMEOUT={order['cell_timeout']} seconds")
    except (DeadKernelError, RuntimeError, asyncio.CancelledError) as error:
        died = isinstance(error, DeadKernelError) or "died" in str(error)
        say(failed=(died and death()) or f"{type(error).__name__}: {error}")
    except Exception as error:
        say(failed=f"papermill: {type(error).__name__}: {error}")


def run():
    """Entry point: the pipe's file descriptor is the argument, the order comes on standard input."""
    global _events
    _events = int(sys.argv[1])
    main(json.load(sys.stdin))
    os._exit(0)  # nothing that a library does when Python ends may keep this process
