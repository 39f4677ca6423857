"""Where the agent touches the T and how it walks round it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_hub.envs.pusht import expert_geometry as geometry
from dp_hub.envs.pusht.physics import AGENT_RADIUS_PX, PushTPhysics

far = st.tuples(st.floats(-400, 400), st.floats(-400, 400)).map(np.array)


def test_contact_points_just_touch_the_t_with_normals_pointing_away():
    centres, normals = geometry.contact_points()
    assert len(centres) >= 36
    np.testing.assert_allclose(geometry.distance_to_t(centres), AGENT_RADIUS_PX)
    away = geometry.distance_to_t(centres + normals)
    assert (away <= AGENT_RADIUS_PX + 1 + 1e-9).all()
    assert np.mean(away > AGENT_RADIUS_PX + 1 - 1e-9) > 0.9  # less only between bar and stem


def test_contact_points_agree_with_the_simulator():
    centres, normals = geometry.contact_points()
    pose = (250.0, 250.0, 0.7)
    table = PushTPhysics()
    for gap, moves in ((0.5, False), (-1.5, True)):
        for centre, normal in zip(centres, normals, strict=True):
            agent = geometry.to_world(centre + gap * normal, pose)
            table.reset_to((*agent, *pose), legacy=False)
            table.step(*agent)
            moved = math.dist(table.block_pose()[:2], pose[:2]) > 1e-9
            assert moved == moves, (centre, gap)


def test_body_and_world_frames_are_inverse():
    points = np.random.default_rng(0).normal(size=(20, 2)) * 100
    pose = (123.0, 321.0, -2.3)
    back = geometry.to_body(geometry.to_world(points, pose), pose)
    np.testing.assert_allclose(back, points, atol=1e-9)


@given(start=far, stop=far)
def test_ways_round_keep_the_clearance(start, stop):
    hull = geometry.walking_hull(10.0)
    a, b = geometry.leave(start, hull)[-1], geometry.leave(stop, hull)[-1]
    ways = geometry.ways_round(a, b, hull)
    assert 1 <= len(ways) <= 2
    for way in ways:
        corners = np.array([a, *way, b])
        along = np.concatenate(
            [p + np.linspace(0, 1, 50)[:, None] * (q - p) for p, q in itertools.pairwise(corners)]
        )
        assert geometry.distance_to_t(along).min() > AGENT_RADIUS_PX + 10.0 - 0.5


@given(start=far, stop=far)
def test_the_first_way_round_is_the_shortest(start, stop):
    hull = geometry.walking_hull(10.0)
    a, b = geometry.leave(start, hull)[-1], geometry.leave(stop, hull)[-1]
    lengths = [
        sum(math.dist(p, q) for p, q in zip([a, *way], [*way, b], strict=True))
        for way in geometry.ways_round(a, b, hull)
    ]
    assert lengths == sorted(lengths)


def test_a_free_straight_line_needs_no_corners():
    hull = geometry.walking_hull(10.0)
    assert geometry.ways_round(np.array((-200.0, 300.0)), np.array((200.0, 300.0)), hull) == [[]]


def test_a_walk_from_side_to_side_goes_round_either_end():
    hull = geometry.walking_hull(10.0)
    ways = geometry.ways_round(np.array((-150.0, 60.0)), np.array((150.0, 60.0)), hull)
    assert len(ways) == 2
    below, above = (np.mean([y for _, y in way]) for way in ways)
    assert (below - 60) * (above - 60) < 0


@pytest.mark.parametrize("start", [(0.0, 45.0), (30.1, 45.1), (0.0, -15.0), (-30.1, 60.0)])
def test_leaving_goes_out_of_the_hull_without_crossing_the_t(start):
    hull = geometry.walking_hull(10.0)
    path = np.array(geometry.leave(np.array(start), hull))
    assert not geometry.inside(path[-1], hull)
    gaps = geometry.distance_to_t(path)
    assert (np.diff(gaps) > 0).all() or gaps[0] == 0
