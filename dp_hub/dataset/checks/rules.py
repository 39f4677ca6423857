"""The table of all checks: what each asks for, how grave a breach is, and what to do about it.

docs/checks.md shows the same table; a test keeps the two together.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warn", "fail"]


@dataclass(frozen=True)
class Rule:
    """One check.

    Attributes:
        id: family and number.
        severity: of a breach.
        rule: what is asked for, with its threshold.
        remedy: what to do about a breach.
        source: why, or who asks for it.
        fixable: whether ``--fix`` mends it.
    """

    id: str
    severity: Severity
    rule: str
    remedy: str
    source: str
    fixable: bool = False


_AGAIN = "copy or pull the dataset again"
_FIX = "dp-hub check DIR --fix --to NEW"
_DELETE = "look at them; dp-hub edit DIR --delete {episodes} --to NEW leaves them out"
_SOURCE = "mend the recording and convert it again"
_LEROBOT = "LeRobot v3.0"

_TABLE: tuple[tuple[str, Severity, str, str, str, bool], ...] = (
    # meta/info.json and the files it names
    ("STRUCT-001", "fail", "meta/info.json is there and is a JSON object",
     _AGAIN, _LEROBOT, False),
    ("STRUCT-002", "fail", "codebase_version is v3.x",
     "convert it: dp-hub convert lerobot DIR --to NEW", _LEROBOT, False),
    ("STRUCT-003", "warn", "codebase_version is spelled exactly v3.0",
     _FIX, "the Hub's visualizer takes no other spelling", True),
    ("STRUCT-004", "fail", "fps is a positive number",
     "write the rate of the recording into meta/info.json", _LEROBOT, False),
    ("STRUCT-005", "fail", "every feature has a dtype and a shape of positive numbers, and no / "
     "in its name", "mend the entry in meta/info.json", _LEROBOT, False),
    ("STRUCT-006", "fail", "timestamp, frame_index, episode_index, index and task_index are "
     "declared", _FIX, _LEROBOT, True),
    ("STRUCT-007", "fail", "total_episodes, total_frames and total_tasks are what the tables hold",
     _FIX, "LeRobot crashes or loads too little", True),
    ("STRUCT-008", "warn", "data_path and video_path are the default templates",
     _FIX + " renames the files", "the Hub's visualizer ignores templates", True),
    ("STRUCT-009", "fail", "path templates can be filled in and stay inside the dataset",
     "mend the template in meta/info.json", "safety", False),
    ("STRUCT-010", "fail", "every declared feature but videos has a column in data/",
     _FIX + " takes the declaration out; to keep the feature, convert again", "LeRobot then gives "
     "None in the batch", True),
    ("STRUCT-011", "fail", "every column in data/ is declared in features",
     _FIX + " declares it", "LeRobot raises CastError", True),
    ("STRUCT-012", "fail", "columns have the declared dtype and shape",
     "mend shape or dtype in meta/info.json, or convert again", "LeRobot raises", False),
    ("STRUCT-013", "fail", "the data files that meta/episodes names are there",
     _AGAIN, _LEROBOT, False),
    ("STRUCT-014", "fail", "data files can be read", _AGAIN, "Parquet", False),
    ("STRUCT-015", "fail", "files of meta/episodes are numbered without gaps",
     _FIX, "readers walk the numbers until one is missing", True),
    ("STRUCT-016", "warn", "files of data/ and videos/ are numbered without gaps",
     _FIX, "readers walk the numbers until one is missing", True),
    ("STRUCT-017", "warn", "data/, videos/, images/ and meta/episodes hold no file that nobody "
     "refers to", _FIX, "LeRobot loads every Parquet file in data/", True),
    ("STRUCT-018", "info", "the dataset is finished (state in meta/dp_hub.json)",
     "finish the recording", "dp_hub", False),
    ("STRUCT-019", "warn", "camera features have names for their three dimensions",
     _FIX, "lerobot#3786: names null crashes dataset_to_policy_features", True),
    ("STRUCT-020", "fail", "meta/dp_hub.json, if there, is a JSON object", _AGAIN, "dp_hub", False),
    # meta/episodes
    ("INDEX-001", "fail", "meta/episodes holds at least one episode and can be read",
     _AGAIN, _LEROBOT, False),
    ("INDEX-002", "fail", "rows have episode_index, dataset_from_index, dataset_to_index, and "
     "data/ and videos/ locations", _FIX, "LeRobot raises KeyError; subset downloads fail", True),
    ("INDEX-003", "warn", "rows have length and tasks",
     _FIX, "the visualizer reads them first", True),
    ("INDEX-004", "fail", "row i is episode i", _FIX,
     "LeRobot addresses rows by position: every action_is_pad turns True, silently", True),
    ("INDEX-005", "fail", "episodes lie end to end from frame 0 and hold at least one frame",
     _FIX, "lerobot#1919, #4143: wrong boundaries, silently", True),
    ("INDEX-006", "fail", "length is dataset_to_index - dataset_from_index",
     _FIX, "lerobot#4143", True),
    ("INDEX-007", "fail", "the bounds of episodes are those of the rows in data/",
     _FIX, "lerobot#4143", True),
    ("INDEX-008", "fail", "each episode lies in the data file that its row names",
     _FIX, "lerobot#2401", True),
    ("INDEX-009", "fail", "no entry of those columns is empty", _FIX, _LEROBOT, True),
    ("INDEX-010", "info", "no rows beyond total_episodes",
     "left by an interrupted recording; readers ignore them", "dp_hub", True),
    # the rows of data/
    ("DATA-001", "fail", "index counts 0, 1, 2 ... over all data files",
     _FIX, "the visualizer slices by it", True),
    ("DATA-002", "fail", "episode_index counts up by one, each episode in one piece and one file",
     _FIX, _LEROBOT, True),
    ("DATA-003", "fail", "frame_index counts 0, 1, 2 ... in every episode",
     _FIX, _LEROBOT, True),
    ("DATA-004", "fail", "no entry of a column is empty",
     _SOURCE, "LeRobot then gives None in the batch", False),
    ("DATA-005", "warn", "row groups hold less than 300 MB",
     "convert again; dp_hub writes one row group per episode", "the Hub's viewer", False),
    # meta/tasks.parquet
    ("TASK-001", "fail", "meta/tasks.parquet is there", _FIX,
     "LeRobot asks the Hub instead, even for a local dataset", True),
    ("TASK-002", "fail", "it can be read and has task_index and the texts",
     _FIX, _LEROBOT, True),
    ("TASK-003", "fail", "the text is the pandas index", _FIX,
     "else item['task'] is a number instead of the text, silently", True),
    ("TASK-004", "fail", "row i is task i", _FIX, "LeRobot addresses rows by position", True),
    ("TASK-005", "fail", "every task_index in data/ is in it",
     "dp-hub edit DIR --task TEXT --to NEW", "LeRobot raises IndexError", False),
    ("TASK-006", "warn", "each text is there once", "dp-hub edit DIR --task TEXT --to NEW",
     "dp_hub", False),
    ("TASK-007", "warn", "the tasks of an episode in meta/episodes are those of its rows",
     _FIX, "the visualizer shows one, training uses the other", True),
    # checksums
    ("SUM-001", "fail", "every file is what meta/checksums.json says (sha256, length)",
     _AGAIN + "; if the files were changed on purpose, remove meta/checksums.json", "dp_hub",
     False),
    ("SUM-002", "fail", "meta/checksums.json is as it was written", _AGAIN, "dp_hub", False),
    ("SUM-003", "info", "there is a meta/checksums.json",
     "dp-hub check DIR --fix --to NEW writes one", "dp_hub", True),
    ("SUM-004", "fail", "the fingerprint in meta/dp_hub.json is that of features, rate and "
     "episodes", "pull the dataset again, or convert it again", "dp_hub", False),
    ("SUM-005", "fail", "the sha256 of each episode is that of its contents",
     _AGAIN + "; if it was edited on purpose by another program, remove meta/dp_hub.json",
     "dp_hub", False),
    ("SUM-006", "info", "the sha256 of each episode can be computed again", "nothing to do",
     "dp_hub", False),
    ("SUM-007", "fail", "a pulled folder is what the Hub holds", "pull it again", "dp_hub", False),
    ("SUM-008", "warn", "the words and pictures about a pulled dataset are the Hub's",
     "pull it again, or push it if they were changed on purpose", "dp_hub", False),
    ("SUM-009", "info", "a pulled or pushed dataset has not been added to since",
     "push it when it is ready", "dp_hub", False),
    # time
    ("TIME-001", "fail", "timestamp is frame_index / fps to 0.1 ms", _FIX,
     "LeRobot's tolerance_s: FrameTimestampError with videos", True),
    ("TIME-002", "fail", "timestamps rise within an episode", _FIX, "rdq, lerobot-doctor", True),
    ("TIME-003", "warn", "no step is longer than 1.5 / fps (dropped frames)",
     "resample the recording to a fixed rate; --fix only renames the times", "robovet", True),
    ("TIME-004", "fail", "the median step is 1 / fps to 5 %",
     "write the true rate into meta/info.json, or --fix if fps is right", "robovet", True),
    ("TIME-005", "fail", "at its end an episode is less than half a frame from the grid",
     _FIX, "robovet TIME-204", True),
    # numbers
    ("NUM-001", "fail", "no NaN and no infinity",
     _DELETE, "rdq, lerobot-doctor", False),
    ("NUM-002", "warn", "every dimension of actions and observations moves at all",
     "leave the feature out, or look whether a sensor was off", "lerobot-lint DEAD_JOINT", False),
    ("NUM-003", "warn", "the state is not bit-identical for more than 0.5 s while the action moves",
     _DELETE, "lerobot-lint FROZEN_STATE", False),
    ("NUM-004", "warn", "no dimension rests a whole episode that moves in 90 % of the others",
     _DELETE, "lerobot-lint DEAD_JOINT", False),
    ("NUM-005", "warn", "no value leaps by more than 30 % of its range and back within 3 frames",
     _DELETE, "lerobot-lint DISCONTINUITY", False),
    ("NUM-006", "warn", "no step is longer than 8 standard deviations",
     _DELETE, "lerobot-lint", False),
    ("NUM-007", "info", "angles do not wrap around (steps > pi in a range of at most 2 pi)",
     "unwrap them in the source or store sine and cosine", "measured on PushT", False),
    ("NUM-008", "warn", "no dimension of the action is at one of its extremes in more than 10 % "
     "of all frames (switches with 95 % at the extremes excepted)",
     "look whether the limits of the teleoperation are too narrow", "deepen-grade", False),
    ("NUM-009", "info", "dimensions named as angles stay within 2 pi",
     "say in the card that they are degrees", "deepen-grade", False),
    ("NUM-010", "warn", "dimensions named as quaternions have norm 1 +- 0.001",
     "normalise them in the source", "recording formats", False),
    ("NUM-011", "warn", "quaternions do not flip their sign from frame to frame",
     "make the signs continuous in the source", "recording formats", False),
    ("NUM-012", "warn", "features named as rotation matrices have determinant 1 +- 0.01",
     _SOURCE, "recording formats", False),
    # episodes
    ("EPI-001", "warn", "episodes have at least --horizon + --n-obs frames (16 + 2)",
     _DELETE, "Diffusion Policy's windows", False),
    ("EPI-002", "fail", "episodes have at least 10 frames", _DELETE, "rdq", False),
    ("EPI-003", "warn", "no episode has less than 20 % of the median length or lies 4 robust "
     "deviations from it", _DELETE, "rdq", False),
    ("EPI-004", "fail", "no two episodes hold the same actions and states",
     _DELETE, "rdq, deepen-grade", False),
    ("EPI-005", "warn", "no two episodes are nearly the same (cosine of 32 steps > 0.995, lengths "
     "within 5 %)", _DELETE, "deepen-grade", False),
    ("EPI-006", "warn", "at most 40 % of an episode, at its start and end, is idle (speed below "
     "0.5 % of the range per frame)", "dp-hub edit DIR --trim EPISODE:FROM:TO --to NEW",
     "deepen-grade", False),
    ("EPI-007", "warn", "the state follows the action by the same number of frames everywhere "
     "(4 frames from the median, error 1.3 times smaller there)", _DELETE, "lerobot-lint "
     "ACTION_STATE_DIVERGENCE", False),
    ("EPI-008", "info", "actions and states correlate (0.6), so that the lag can be judged",
     "nothing to do if actions are velocities or deltas", "measured on PushT", False),
    # pictures
    ("IMAGE-001", "fail", "every picture can be decoded", _AGAIN, "all", False),
    ("IMAGE-002", "fail", "every picture has the declared size",
     "mend the shape in meta/info.json, or convert again", _LEROBOT, False),
    ("IMAGE-003", "warn", "no picture is black (mean < 8 of 255)", _DELETE, "rdq", False),
    ("IMAGE-004", "warn", "no picture is flat (standard deviation < 4 of 255)",
     _DELETE, "rdq", False),
    ("IMAGE-005", "warn", "the picture is not the same for more than 0.5 s while the state moves",
     _DELETE, "lerobot-lint FROZEN_CAMERA", False),
    ("IMAGE-006", "warn", "no two cameras show the same pictures",
     "look whether a camera was recorded twice", "rdq", False),
    ("VIDEO-001", "fail", "the videos that meta/episodes names are there", _AGAIN, _LEROBOT, False),
    ("VIDEO-002", "fail", "videos can be opened and their packets read", _AGAIN, "FFmpeg", False),
    ("VIDEO-003", "fail", "from_timestamp to to_timestamp is as many frames as the episode has",
     _SOURCE, "lerobot#4143", False),
    ("VIDEO-004", "fail", "the video holds a frame within 0.1 ms of every frame's time",
     _SOURCE, "LeRobot's tolerance_s: FrameTimestampError", False),
    ("VIDEO-005", "fail", "videos have the declared height and width",
     "mend the shape in meta/info.json", _LEROBOT, False),
    ("VIDEO-006", "warn", "codec, pixel format and rate are the declared ones",
     "mend the feature's info in meta/info.json", "the visualizer", False),
    ("VIDEO-007", "fail", "sampled frames can be decoded", _AGAIN, "FFmpeg", False),
    ("VIDEO-008", "fail", "no two episodes share frames of a video",
     _SOURCE, "starVLA: data/file_index used for videos", False),
    ("VIDEO-009", "info", "key frames are at most 60 frames apart",
     "encode again with a key frame every 2 frames", "measured: 10 times slower to read", False),
    ("VIDEO-010", "warn", "HEVC without B-frames",
     "encode again as h264 or av1", "torchcodec#179, #1339: seeks return the next frame", False),
    # statistics
    ("STATS-001", "warn", "meta/stats.json is there", _FIX, "needed to train with LeRobot", True),
    ("STATS-002", "fail", "meta/stats.json is a JSON object of features", _FIX, _LEROBOT, True),
    ("STATS-003", "fail", "mean, std, min, max and count are those of the data",
     _FIX, "lerobot#2189, #3682, #4401", True),
    ("STATS-004", "warn", "quantiles are those of all frames to 5 % of the range",
     _FIX, "lerobot#4156: LeRobot stores bounds instead", True),
    ("STATS-005", "warn", "every feature has mean, std, min, max and count",
     _FIX, "needed to train with LeRobot", True),
    ("STATS-006", "info", "every feature has the quantiles q01 q10 q50 q90 q99",
     _FIX, "needed by LeRobot's quantile normalisation", True),
    ("STATS-007", "fail", "statistics have the feature's shape, are finite, and min <= max",
     _FIX, "lerobot#2189", True),
    ("STATS-008", "fail", "the statistics of each episode in meta/episodes are those of its rows",
     _FIX, "LeRobot merges them when datasets are edited", True),
    ("STATS-009", "warn", "statistics of pictures are in 0..1 and their mean is that of sampled "
     "frames to 0.05", "convert again", "LeRobot", False),
    # words and files
    ("TEXT-001", "warn", "every episode says what was to be done",
     'dp-hub edit DIR --task "..." --to NEW', "rdq, lerobot-doctor", False),
    ("TEXT-002", "info", "of several tasks none has more than 90 % of the episodes",
     "record more of the others, or weigh them", "rdq", False),
    ("TEXT-003", "warn", "no two tasks differ in nothing but case, spaces or a full stop",
     'dp-hub edit DIR --task "..." --to NEW', "rdq", False),
    ("CARD-001", "warn", "README.md has a front matter with configs that name the data files",
     _FIX, "else the Hub's viewer takes tables of meta/ for data", True),
    ("CARD-002", "warn", "README.md names a licence",
     "dp-hub push DIR NAME --license ID, or write `license: ID` into its front matter",
     "rdq: 200 of 304 sets on the Hub state another licence than their source", False),
    ("CARD-003", "warn", "the front matter of README.md is a YAML mapping",
     "mend README.md", "the Hub refuses the file", False),
    ("CARD-004", "info", "README.md has the tag LeRobot", _FIX,
     "found by it on the Hub", True),
    ("PORT-001", "fail", "no file is needed from outside the dataset (absolute paths)",
     "store the pictures in the dataset: convert again", "others do not have those files", False),
    ("PORT-002", "warn", "there are no symbolic links", "copy the files in their place",
     "links do not survive a copy or an upload", True),
    ("PORT-003", "warn", "no two names differ in case only", "rename one of them",
     "they clash on macOS and Windows", False),
    ("PORT-004", "warn", "no file is larger than 5 GB", "convert again; dp_hub writes shards",
     "Hub and object stores", False),
    ("PORT-005", "warn", "metadata holds no paths of a person's home folder",
     "mend meta/ and README.md by hand", "rdq: names of people", False),
)  # fmt: skip

RULES: dict[str, Rule] = {row[0]: Rule(*row) for row in _TABLE}
