"""PushT's physics, the original's bit for bit: a T pushed over a table by a round agent.

Source: real-stanford/diffusion_policy, ``env/pusht/pusht_env.py`` (MIT). pymunk builds the
space; stepping calls Chipmunk through pymunk's bindings, since the properties in between cost
ten times what the physics does. Lengths are px on a 512 x 512 table, y points down.
"""

import math
from typing import Any

import numpy as np
import pymunk
from pymunk._chipmunk_cffi import ffi, lib

TABLE_PX = 512
AGENT_RADIUS_PX = 15.0
CONTROL_HZ = 10
SIMULATION_HZ = 100
MAX_EPISODE_STEPS = 300
GOAL_POSE = (256.0, 256.0, math.pi / 4)
SUCCESS_COVERAGE = 0.95
# Body frame of the T: two boxes (x0, y0, x1, y1), the bar and the stem.
BAR = (-60.0, 0.0, 60.0, 30.0)
STEM = (-15.0, 30.0, 15.0, 120.0)
T_AREA = 6300.0
T_CENTRE_OF_GRAVITY = (0.0, 45.0)
# The original's nine points on the T, body frame: farthest-point sampling of the pixels of a drawn
# T, each shifted by U(0, 1), all from default_rng(0) (its ``pymunk_keypoint_manager.py``).
T_KEYPOINTS = np.array(
    [
        (9.269786713763871, 90.04097352393619),
        (-60.983472364471474, -1.1867297607997276),
        (60.91275557727772, -1.3933642242328201),
        (-0.2705034390160016, 25.54362499146542),
        (-14.064927576212233, 122.81585355412153),
        (39.002738500170146, 32.857404276587566),
        (-39.966414424694534, 32.729655446429945),
        (-16.82434437939744, 62.86317892234989),
        (23.54146122024909, -1.7002881094626152),
    ]
)
_GAIN_P, _GAIN_V = 100.0, 20.0
_DT_S = 1.0 / SIMULATION_HZ
_SUBSTEPS = SIMULATION_HZ // CONTROL_HZ
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))
_WALL_RADIUS_PX = 2


class PushTPhysics:
    """One table with the agent and the T.

    A state is float64 (5,): agent x, y, block x, y in px and the block's angle in radians.
    """

    def __init__(self, *, count_contacts: bool = False) -> None:
        """``count_contacts`` keeps ``contact_points`` up to date, for a few us a step."""
        self._counts_contacts = count_contacts
        self._contact_points = [0]
        self._velocity = ffi.new("cpVect *")
        self._build()
        self.set_state((256.0, 400.0, 256.0, 300.0, 0.0))

    def _build(self) -> None:
        space = pymunk.Space()
        space.damping = 0  # Chipmunk drops all velocity every step: the block is quasi-static
        walls = [pymunk.Segment(space.static_body, a, b, _WALL_RADIUS_PX) for a, b in WALLS]
        space.add(*walls)
        agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        agent.position = (256, 400)
        space.add(agent, pymunk.Circle(agent, AGENT_RADIUS_PX))
        bar, stem = _bar_vertices(), _stem_vertices()
        # LEGACY: the moment of the bar counted twice (never the stem's), kept for score parity.
        block = pymunk.Body(1, 2 * pymunk.moment_for_poly(1, bar))
        block.center_of_gravity = T_CENTRE_OF_GRAVITY
        space.add(block, pymunk.Poly(block, bar), pymunk.Poly(block, stem))
        if self._counts_contacts:
            space.on_collision(0, 0, post_solve=_count_contacts, data=self._contact_points)
        # Keep pymunk's objects only, never the C ones inside: those are freed with their owner,
        # and a space that outlives its shapes crashes when it is freed itself.
        self.space, self.agent, self.block = space, agent, block

    def reset(self, seed: int) -> None:
        """The original's start state of ``seed``, in its legacy order."""
        self.reset_to(start_state(seed))

    def reset_to(self, state: Any, *, legacy: bool = True) -> None:
        """A fresh table in ``state``, as after nothing else: see ``set_state``."""
        self.space.remove(*self.space.shapes, *self.space.bodies)
        self._build()
        self.set_state(state, legacy=legacy)

    def set_state(self, state: Any, *, legacy: bool = True) -> None:
        """Put agent and block somewhere, then let one physics step push them apart.

        Args:
            state: (5,), as in the class docstring.
            legacy: the order of the released demonstrations and all published evaluations:
                position first, then angle, which turns the block about its centre of gravity and
                so moves its position. False restores a recorded state exactly.
        """
        x, y, block_x, block_y, angle = (float(value) for value in state)
        self.agent.velocity = (0, 0)
        self.agent.position = (x, y)
        if legacy:
            self.block.position = (block_x, block_y)
            self.block.angle = angle
        else:
            self.block.angle = angle
            self.block.position = (block_x, block_y)
        self.space.step(_DT_S)
        self.agent_x, self.agent_y = self.agent.position
        self.velocity_x, self.velocity_y = 0.0, 0.0
        self._contact_points[0] = 0

    def step(self, target_x: float, target_y: float) -> None:
        """One control period (0.1 s): a PD controller pulls the agent towards the target, in px."""
        self.substep(target_x, target_y, _SUBSTEPS)

    def substep(self, target_x: float, target_y: float, n: int) -> None:
        """``n`` physics steps of 0.01 s towards one target: ten are a control period, bit for bit.

        ``contact_points`` are those of these steps.
        """
        # The agent is kinematic: its motion is this arithmetic, in the original's order.
        x, y, vx, vy = self.agent_x, self.agent_y, self.velocity_x, self.velocity_y
        space, agent, velocity = self.space._space, self.agent._body, self._velocity
        self._contact_points[0] = 0
        for _ in range(n):
            vx += (_GAIN_P * (target_x - x) + _GAIN_V * (0 - vx)) * _DT_S
            vy += (_GAIN_P * (target_y - y) + _GAIN_V * (0 - vy)) * _DT_S
            velocity.x = vx
            velocity.y = vy
            lib.cpBodySetVelocity(agent, velocity[0])
            lib.cpSpaceStep(space, _DT_S)
            x += vx * _DT_S
            y += vy * _DT_S
        self.agent_x, self.agent_y, self.velocity_x, self.velocity_y = x, y, vx, vy

    def n_contacts(self) -> int:
        """Contact points per physics step of the last control period, rounded up as the original's.

        Needs ``count_contacts``; 0 after a reset.
        """
        return -(-self.contact_points // _SUBSTEPS)

    @property
    def contact_points(self) -> int:
        """Summed over the physics steps of the last call; needs ``count_contacts``."""
        return self._contact_points[0]

    def block_pose(self) -> tuple[float, float, float]:
        """Block x, y in px and its raw angle in radians (not wrapped)."""
        position = lib.cpBodyGetPosition(self.block._body)
        return position.x, position.y, lib.cpBodyGetAngle(self.block._body)

    def state(self) -> np.ndarray:
        """float64 (5,): agent x, y, block x, y, angle in [0, 2 pi)."""
        x, y, angle = self.block_pose()
        return np.array((self.agent_x, self.agent_y, x, y, angle % (2 * math.pi)))

    def coverage(self) -> float:
        """Share of the goal covered by the block, in [0, 1]."""
        return coverage_of(*self.block_pose())


def _count_contacts(arbiter: Any, space: Any, total: list[int]) -> None:
    total[0] += lib.cpArbiterGetCount(arbiter._arbiter)


def start_state(seed: int) -> np.ndarray:
    """The original's start state of ``seed``, float64 (5,): ``RandomState``, a Gaussian angle."""
    rng = np.random.RandomState(seed)
    agent = rng.randint(50, 450), rng.randint(50, 450)
    block = rng.randint(100, 400), rng.randint(100, 400)
    return np.array([*agent, *block, rng.randn() * 2 * np.pi - np.pi], dtype=np.float64)


def keypoints_of(x: Any, y: Any, angle: Any) -> np.ndarray:
    """World keypoints of blocks at poses (...,), float64 (..., 9, 2) in px."""
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    px, py = T_KEYPOINTS[:, 0], T_KEYPOINTS[:, 1]
    world_x = cos * px - sin * py + np.asarray(x)[..., None]
    world_y = sin * px + cos * py + np.asarray(y)[..., None]
    return np.stack([world_x, world_y], axis=-1)


def coverage_of(x: float, y: float, angle: float) -> float:
    """Share of the goal covered by a block at this pose: the four box overlaps, in goal frame."""
    goal_x, goal_y, goal_angle = GOAL_POSE
    cos, sin = math.cos(goal_angle), math.sin(goal_angle)
    dx, dy, turn = x - goal_x, y - goal_y, angle - goal_angle
    ox, oy = cos * dx + sin * dy, -sin * dx + cos * dy
    cos, sin = math.cos(turn), math.sin(turn)
    area = 0.0
    for box in (BAR, STEM):
        corners = [
            (cos * px - sin * py + ox, sin * px + cos * py + oy) for px, py in _box_corners(box)
        ]
        area += sum(_overlap(corners, goal) for goal in (BAR, STEM))
    return area / T_AREA


def _bar_vertices() -> list[tuple[float, float]]:
    return [(-60.0, 30.0), (60.0, 30.0), (60.0, 0.0), (-60.0, 0.0)]


def _stem_vertices() -> list[tuple[float, float]]:
    return [(-15.0, 30.0), (-15.0, 120.0), (15.0, 120.0), (15.0, 30.0)]


def _box_corners(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _overlap(polygon: list[tuple[float, float]], box: tuple[float, float, float, float]) -> float:
    """Area of a convex polygon inside an axis-aligned box (Sutherland-Hodgman)."""
    x0, y0, x1, y1 = box
    for axis, bound, sign in ((0, x0, 1.0), (0, x1, -1.0), (1, y0, 1.0), (1, y1, -1.0)):
        clipped = []
        previous = polygon[-1]
        before = sign * (previous[axis] - bound)
        for corner in polygon:
            here = sign * (corner[axis] - bound)
            if (here >= 0) != (before >= 0):
                t = before / (before - here)
                clipped.append(
                    (
                        previous[0] + t * (corner[0] - previous[0]),
                        previous[1] + t * (corner[1] - previous[1]),
                    )
                )
            if here >= 0:
                clipped.append(corner)
            previous, before = corner, here
        if not clipped:
            return 0.0
        polygon = clipped
    twice = 0.0
    ax, ay = polygon[-1]
    for bx, by in polygon:
        twice += ax * by - bx * ay
        ax, ay = bx, by
    return abs(twice) / 2
