"""What the fields of a ring say of themselves."""

from dp_hub.robot.fields import Field
from dp_hub.robot.space import POSE, joints


def test_a_rotation_vector_is_known_by_the_names_of_its_numbers() -> None:
    assert Field("pose", (6,), names=POSE.names).rotation_at == POSE.rotation_at == 3
    assert Field("turn", (4,), names=("rx", "ry", "rz", "w")).rotation_at == 0
    assert Field("joints", (6,), names=joints(6).names).rotation_at is None
    assert Field("part", (2,), names=("rx", "ry")).rotation_at is None
    assert Field("nameless", (6,)).rotation_at is None


def test_a_picture_is_known_by_its_shape_and_dtype() -> None:
    assert Field("picture", (48, 64, 3), "uint8").is_picture
    assert not Field("depth", (48, 64, 1), "uint8").is_picture
    assert not Field("numbers", (48, 64, 3), "float32").is_picture
