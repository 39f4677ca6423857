"""Every threshold of the checks, in one place, with where it comes from.

Names of tools stand for the published checkers that use the same or nearly the same value:
lerobot-doctor, rdq, robovet, lerobot-lint and deepen-grade.
"""

import math

# Time
TOLERANCE_S = 1e-4  # LeRobot's tolerance_s: a frame further from its time raises at decoding
RATE_DIFFERENCE = 0.05  # of 1/fps, for the median step (robovet, lerobot-doctor)
GAP = 1.5  # steps of 1/fps; a longer one means frames were dropped (robovet)
DRIFT = 0.5  # steps of 1/fps at an episode's end (robovet TIME-204)

# Episodes
MIN_FRAMES = 10  # rdq; shorter ones hold nothing to learn
SHORT_SHARE = 0.2  # of the median length (rdq)
LENGTH_Z = 4.0  # robust z of the length, by the median absolute deviation (rdq)
NEAR_STEPS = 32  # steps to which episodes are resampled before they are compared (deepen-grade)
NEAR_COSINE = 0.995  # deepen-grade
NEAR_DURATION = 0.95  # ratio of lengths (deepen-grade)
ROUNDING = 1e-6  # of the range: numbers closer than this are one when episodes are compared

# Numbers
FROZEN_S = 0.5  # seconds of bit-identical values while something moves (lerobot-lint, rdq)
IDLE_SPEED = 0.005  # of the range per frame (deepen-grade)
IDLE_SHARE = 0.4  # of an episode, at its start and end together (deepen-grade)
SPIKE_SHARE = 0.3  # of the range, there and back (lerobot-lint DISCONTINUITY)
SPIKE_FRAMES = 3  # within so many frames
STEP_STD = 8.0  # standard deviations of the dimension's values (lerobot-lint JITTER)
LIMIT_WIDTH = 1e-3  # of the range: this close to an extreme counts as at it
SATURATED_SHARE = 0.10  # of all frames at one extreme (deepen-grade)
SWITCH_SHARE = 0.95  # of all frames at the extremes: a switch (gripper), not a saturated joint
MIN_LEVELS_RANGE = 1e-9  # a smaller range is none
ANGLE_MAX = 2 * math.pi * 1.001  # a dimension within this range, and wider than pi, may be an angle
DEGREES_MIN = 2 * math.pi * 1.05  # angles beyond a full turn are degrees, or turns are counted
QUATERNION_NORM = 1e-3
ROTATION_DET = 1e-2
DEAD_ELSEWHERE = 0.9  # share of episodes in which a dimension moves that rests in this one

# Action and state
LAG_FRAMES = 15  # searched on either side
LAG_DIFFERENCE = 4  # frames from the median
LAG_BETTER = 1.3  # how much smaller the error is at the episode's own lag
LAG_CORRELATION = 0.6  # below this, actions are no positions of the state (velocities, deltas)
MIN_LAG_EPISODE = 2 * LAG_FRAMES  # frames; in a shorter one a lag means nothing

# Pictures
BLACK_MEAN = 8.0  # of 255 (rdq)
FLAT_STD = 4.0  # of 255 (rdq)
PIXEL_STEP = 4  # every 4th row and column: 1/16 of the pixels
PIXEL_LEAST = 16  # rows and columns that are left at least
SAME_CAMERA_MEAN = 1.0  # of 255: mean difference of two cameras that show one picture
FROZEN_VIDEO_MEAN, FROZEN_VIDEO_MAX = 0.5, 16  # of 255: what coding adds to a still picture
VIDEO_FRAMES_PER_EPISODE = 4
VIDEO_FRAMES = 800  # decoded per camera at most; more episodes are sampled evenly
GOP_FRAMES = 60  # longer distances of key frames make random access slow
MOVING = 0.01  # of the range: the state moved if it changed by more

# Statistics
EXACT = 1e-4  # of the range, or of the size of the numbers: rounding of float32
QUANTILE_SHARE = 0.05  # of the range (rdq)
PICTURE_MEAN = 0.05  # pictures are sampled, in 0..1
PICTURE_FRAMES = 100  # below this many sampled frames the mean of pictures is not judged

# Text, files
ONE_TASK_SHARE = 0.9
PLACEHOLDERS = ("", "task", "todo", "test", "default", "n/a", "na", "none", "unknown", "null",
                "dummy", "placeholder", "your task here", "tbd", "xxx")  # fmt: skip
BIG_FILE_BYTES = 5_000_000_000  # single uploads of S3, and what the Hub asks to stay below
ROW_GROUP_BYTES = 300_000_000  # the Hub's viewer refuses row groups above 286 MiB
