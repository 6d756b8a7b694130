"""pynetdicom's upper layer and DIMSE provider on one thread, awake only when there is something to do.

Stock pynetdicom gives an association two threads, which ask each other and the socket a thousand times a second. Here the association's own
thread makes the steps of the state machine, whenever it would otherwise wait for the other: in `SteppedDimse.get_msg` and in
`SteppedUpperLayer.receive_pdu`. The state machine, the PDUs and the services are pynetdicom's, untouched.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ

log = structlog.get_logger(__name__)

_ESTABLISHED, _AWAITING_CLOSE = "Sta6", "Sta13"  # PS3.8 9.2.1
_CLOSE_SECONDS = 0.5  # that a peer gets to close the connection
_BREATH = 0.25  # seconds after which a waiting thread looks whether another one wants something of it


class SteppedUpperLayer(DULServiceProvider):  # type: ignore[misc]  # pynetdicom is untyped
    """The upper layer of an acceptor without a thread of its own; data goes the fast path."""

    def __init__(self, association: Any) -> None:
        super().__init__(association)
        self._running, self._close_by = False, 0.0

    def start(self) -> None:
        """Be ready for steps; no thread is started."""
        self._running = True
        self._idle_timer.start()
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        """Tell whether steps are still made."""
        return self._running and not self._kill_thread

    def stop_dul(self) -> bool:
        """Step on, and tell whether the state machine has come to rest; asked again until it has."""
        self.step(_BREATH)
        if self.state_machine.current_state != "Sta1":
            return False
        self._kill_thread = True
        return True

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Return the next primitive for the association, stepping for ``timeout`` seconds (None: for ever) where it is to wait."""
        if wait:
            self.step_until(lambda: not self.to_user_queue.empty(), timeout)
        return super().receive_pdu(wait=False)

    def step_until(self, happened: Callable[[], bool], seconds: float | None) -> None:
        """Make steps until something has happened, the association is over, or ``seconds`` have passed."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.is_alive() and not happened():
            left = _BREATH if deadline is None else min(_BREATH, deadline - time.monotonic())
            if left <= 0:
                return
            self.step(left)

    def step(self, seconds: float) -> None:
        """Do one thing of what there is to do, waiting at most ``seconds`` for the peer (the loop body of `DULServiceProvider.run_reactor`)."""
        if not self.is_alive():
            return
        try:
            if self.artim_timer.expired:
                self.event_queue.put("Evt18")
            elif self.event_queue.empty() and not self._process_recv_primitive() and self._is_transport_event(seconds):
                self._idle_timer.restart()
            self.state_machine.do_action(self.event_queue.get(block=False))
        except queue.Empty:
            return
        except Exception:
            log.exception("upper layer failed, the association is aborted")
            self._give_up()

    def _give_up(self) -> None:
        """Abort past the state machine, which can no longer be trusted."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 2, 0
        if self.socket is not None and self.socket.socket is not None:
            self.socket.send(abort.encode())
        self.assoc.is_aborted, self.assoc.is_established = True, False
        self.assoc._kill = self._kill_thread = True

    def _is_transport_event(self, seconds: float = 0.0) -> bool:
        """Take in what has come; data that belongs to a C-STORE goes past the state machine, everything else through it."""
        state = self.state_machine.current_state
        if state == _AWAITING_CLOSE:
            return self._await_close(seconds)
        if not self.socket.wait(seconds):
            return False
        if state == _ESTABLISHED and self.assoc.fast_path.next_is_data():
            self.assoc.fast_path.run(self)
            return True
        return bool(super()._is_transport_event())

    def _await_close(self, seconds: float) -> bool:
        """Leave it to the peer to close, as PS3.8 9.2.3 does: one that is closed upon may lose our last PDU, or not look for it."""
        now = time.monotonic()
        self._close_by = self._close_by or now + _CLOSE_SECONDS
        if now < self._close_by and not self.socket.has_ended(min(seconds, self._close_by - now)):
            return False
        self.socket.close()
        return True


class SteppedDimse(DIMSEServiceProvider):  # type: ignore[misc]
    """The DIMSE provider that has the upper layer stepped while it waits for a message."""

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message as pynetdicom does; where it need not wait, it rests for a moment in place of asking all the time."""
        dul = self.dul
        dul.step_until(lambda: not self.msg_queue.empty() or (not block and dul.peek_next_pdu() is not None), self.dimse_timeout if block else _BREATH)
        return super().get_msg(block=False)
