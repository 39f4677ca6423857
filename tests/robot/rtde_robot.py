"""A stand-in for a UR controller: what the real ur_rtde client asks of one, over loopback.

It speaks the dashboard (29999), script (30003) and RTDE v2 (30004) ports from one thread. The
control script that the client uploads is not run but acted: the command in input register 0 is
answered in output register 0 as the script would. The plant is kinematic: joints follow the servo
target, and the tool's pose is a linear map of them, so that it can be inverted.

Ports are fixed, so each robot has an address of its own: 127.0.0.2, 127.0.0.3 and so on.
"""

import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

DASHBOARD, SCRIPT, RTDE = 29999, 30003, 30004
SERVO_J, SERVO_STOP, SERVO_L, SET_WATCHDOG, END = 11, 16, 24, 35, 255
AT_ONCE = {6, 9, 10, SERVO_J, SERVO_L, 25, 26, 27, 38, 58, 66, 67, 68, 69, 70, 71}
"""Commands after which the script says it is ready without waiting to be cleared."""
READY, DONE = 1, 2
HOME = np.array([0.0, -1.5, 1.5, -1.5, -1.5, 0.0])
HOME_POSE = np.array([0.4, 0.1, 0.3, 0.0, 3.0, 0.0])
_FORMATS = {"DOUBLE": "d", "VECTOR6D": "6d", "VECTOR3D": "3d", "INT32": "i", "UINT32": "I"}
_FORMATS |= {"UINT64": "Q", "VECTOR6INT32": "6i", "UINT8": "B", "BOOL": "?"}
_TYPES = {"robot_mode": "INT32", "safety_mode": "INT32", "runtime_state": "UINT32"}
_TYPES |= {"robot_status_bits": "UINT32", "safety_status_bits": "UINT32"}
_TYPES |= dict.fromkeys(("actual_q", "actual_qd", "target_q"), "VECTOR6D")
_TYPES |= dict.fromkeys(("actual_TCP_pose", "actual_TCP_speed", "actual_TCP_force"), "VECTOR6D")


def pose_of(joints: np.ndarray) -> np.ndarray:
    """The tool's pose, float64 (6,)."""
    return HOME_POSE + 0.1 * (joints - HOME)


def joints_of(pose: np.ndarray) -> np.ndarray:
    """The joints that have the tool at a pose, float64 (6,)."""
    return HOME + 10 * (pose - HOME_POSE)


@dataclass
class Servo:
    """One servo command as the robot saw it."""

    time_s: float
    command: int
    target: np.ndarray
    period_s: float
    lookahead_s: float
    gain: float


@dataclass
class _Peer:
    """One connection, its recipes, and what waits to be sent to it."""

    port: int
    buffer: bytes = b""
    inputs: dict[int, list[str]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    period_s: float = 0.008
    due_s: float = 0.0
    started: bool = False
    sending: deque[bytes] = field(default_factory=deque)


class RtdeRobot:
    """The robot itself; everything public may be set by a test."""

    def __init__(self, host: str, *, rate_hz: float = 125.0) -> None:
        self.host, self.period_s = host, 1 / rate_hz
        self.joints, self.target = HOME.copy(), HOME.copy()
        self.servos: list[Servo] = []
        self.commands: list[int] = []
        self.watchdog_hz = 0.0
        self.safety_mode, self.clock_offset_s = 1, 1000.0
        self.running = self.accepting = True
        self.program = False
        self.dashboard_calls: list[str] = []
        self._registers: dict[str, float] = {}
        self._answer = 0
        self._done = False
        self._servo_s = 0.0
        self._peers: dict[socket.socket, _Peer] = {}
        self._stalled_until_s = 0.0
        self._jobs: deque[str] = deque()
        self._selector = selectors.DefaultSelector()
        self._listeners = [self._listen(port) for port in (DASHBOARD, SCRIPT, RTDE)]
        self._thread = threading.Thread(target=self._run, name="rtde-robot", daemon=True)

    def __enter__(self) -> "RtdeRobot":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self._thread.join(5)
        for one in [*self._peers, *self._listeners]:
            one.close()
        self._selector.close()

    def drop(self, *, refuse: bool = True) -> None:
        """Cut every connection, as a pulled cable's end does; with ``refuse`` for good."""
        self.accepting = not refuse
        self._jobs.append("drop")

    def stall(self, seconds: float) -> None:
        """Nothing comes in or goes out for a while; it is all delivered afterwards."""
        self._stalled_until_s = time.monotonic() + seconds

    def protective_stop(self) -> None:
        """As after a collision: the program is halted, the arm stands."""
        self.safety_mode, self.program, self.target = 3, False, self.joints.copy()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((self.host, port))
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, port)
        return listener

    def _run(self) -> None:
        due_s = time.monotonic()
        while self.running:
            stalled = time.monotonic() < self._stalled_until_s
            events = [] if stalled else self._selector.select(max(0, due_s - time.monotonic()))
            for key, _ in events:
                if isinstance(key.data, int):
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
                else:
                    self._receive(key.fileobj, key.data)  # type: ignore[arg-type]
            while self._jobs:
                self._jobs.popleft()
                for peer in list(self._peers):
                    self._forget(peer)
            now_s = time.monotonic()
            if now_s >= due_s:
                self._step(now_s)
                due_s = max(due_s + self.period_s, now_s)
            if stalled:
                time.sleep(max(0, due_s - time.monotonic()))
            else:
                self._flush()

    def _accept(self, listener: socket.socket, port: int) -> None:
        peer, _ = listener.accept()
        if not self.accepting:
            peer.close()
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers[peer] = _Peer(port)
        self._selector.register(peer, selectors.EVENT_READ, self._peers[peer])
        if port == DASHBOARD:
            peer.sendall(b"Connected: Universal Robots Dashboard Server\n")

    def _forget(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        del self._peers[peer]
        peer.close()

    def _receive(self, connection: socket.socket, peer: _Peer) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._forget(connection)
            return
        peer.buffer += data
        {DASHBOARD: self._dashboard, SCRIPT: self._script, RTDE: self._rtde}[peer.port](peer)

    def _dashboard(self, peer: _Peer) -> None:
        *lines, peer.buffer = peer.buffer.split(b"\n")
        for line in lines:
            words = line.decode().strip().lower()
            self.dashboard_calls.append(words)
            if words == "stop":
                self._end_program()
            answers = {"polyscopeversion": "URSoftware 5.11.0.108249 (Jan 01 2024)"}
            answers |= {"get serial number": "20205500001", "is in remote control": "true"}
            peer.sending.append((answers.get(words, "ok") + "\n").encode())

    def _script(self, peer: _Peer) -> None:
        if b"run program" in peer.buffer or peer.buffer.rstrip().endswith(b"end"):
            peer.buffer = b""
            if self.safety_mode == 1:
                self.program, self._answer, self._done = True, READY, False

    def _end_program(self) -> None:
        self.program, self._answer, self.watchdog_hz = False, 0, 0.0
        self.target = self.joints.copy()

    def _rtde(self, peer: _Peer) -> None:
        while len(peer.buffer) >= 3:
            size, kind = struct.unpack(">HB", peer.buffer[:3])
            if len(peer.buffer) < size:
                return
            body, peer.buffer = peer.buffer[3:size], peer.buffer[size:]
            if kind == ord("U"):
                self._input(peer, body)
            else:
                answer = self._control(peer, chr(kind), body)
                peer.sending.append(struct.pack(">HB", 3 + len(answer), kind) + answer)

    def _control(self, peer: _Peer, kind: str, body: bytes) -> bytes:
        if kind == "v":
            return struct.pack(">4I", 5, 11, 0, 108249)
        if kind == "O":
            peer.period_s = 1 / struct.unpack(">d", body[:8])[0]
            peer.outputs = [name for name in body[8:].decode().split(",") if name]
            return b"\x01" + ",".join(map(_type_of, peer.outputs)).encode()
        if kind == "I":
            names = [name for name in body.decode().split(",") if name]
            number = len(peer.inputs) + 1
            peer.inputs[number] = names
            return bytes([number]) + ",".join(map(_type_of, names)).encode()
        if kind in "SP":
            peer.started, peer.due_s = kind == "S", time.monotonic()
        return b"\x01"

    def _input(self, peer: _Peer, body: bytes) -> None:
        names = peer.inputs[body[0]]
        values = struct.unpack(">" + "".join(_FORMATS[_type_of(n)] for n in names), body[1:])
        self._registers.update(zip(names, values, strict=True))
        if "input_int_register_0" in names:
            self._servo_s = time.monotonic()
            self._command(int(self._registers["input_int_register_0"]))

    def _command(self, command: int) -> None:
        if not self.program:
            return
        if command == 0:
            self._answer, self._done = READY, False
        elif command in AT_ONCE:
            self._servo(command)
            self._answer, self._done = READY, False
        elif not self._done:
            self._done, self._answer = True, DONE
            self.commands.append(command)
            if command == SERVO_STOP:
                self.target = self.joints.copy()
            elif command == SET_WATCHDOG:
                self.watchdog_hz = self._registers["input_double_register_0"]
            elif command == END:
                self._end_program()

    def _servo(self, command: int) -> None:
        numbers = np.array(
            [self._registers.get(f"input_double_register_{i}", 0) for i in range(11)]
        )
        self.servos.append(Servo(self._servo_s, command, numbers[:6], *numbers[8:11]))
        self.target = numbers[:6] if command == SERVO_J else joints_of(numbers[:6])

    def _step(self, now_s: float) -> None:
        if self.safety_mode != 1:
            self.program = False
        if self.program and self.watchdog_hz and now_s - self._servo_s > 1 / self.watchdog_hz:
            self.protective_stop()
        move = np.clip(self.target - self.joints, -3 * self.period_s, 3 * self.period_s)
        self.joints = self.joints + move
        values = self._values(now_s, move / self.period_s)
        for peer in self._peers.values():
            if peer.started and now_s >= peer.due_s - self.period_s / 4:
                peer.due_s = max(peer.due_s + peer.period_s, now_s)
                data = b"\x01" + b"".join(_packed(name, values) for name in peer.outputs)
                peer.sending.append(struct.pack(">HB", 3 + len(data), ord("U")) + data)

    def _values(self, now_s: float, velocity: np.ndarray) -> dict[str, object]:
        stopped = self.safety_mode in (3, 5, 6, 7)
        return {
            "timestamp": now_s + self.clock_offset_s,
            "actual_q": self.joints,
            "actual_qd": velocity,
            "actual_TCP_pose": pose_of(self.joints),
            "actual_TCP_speed": 0.1 * velocity,
            "robot_mode": 7,
            "safety_mode": self.safety_mode,
            "runtime_state": 2 if self.program else 1,
            "robot_status_bits": 1 | (2 if self.program else 0),
            "safety_status_bits": 1 << (self.safety_mode - 1) | (1 << 7 if stopped else 0),
            "output_int_register_0": self._answer,
        }

    def _flush(self) -> None:
        for connection, peer in list(self._peers.items()):
            try:
                while peer.sending:
                    connection.sendall(peer.sending.popleft())
            except OSError:
                self._forget(connection)


def _type_of(name: str) -> str:
    if "_int_register_" in name:
        return "INT32"
    return _TYPES.get(name, "VECTOR6D" if name == "external_force_torque" else "DOUBLE")


def _packed(name: str, values: dict[str, object]) -> bytes:
    form = _FORMATS[_type_of(name)]
    value = values.get(name, np.zeros(6) if form == "6d" else 0)
    return struct.pack(">" + form, *(value if isinstance(value, np.ndarray) else [value]))
