"""Foreign pickles are read without running them: plain values come out, anything else is refused.

Every attack is also shown to be real: Python's own pickle would have run it.
"""

import collections
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import dill
import pytest

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.names import Name, Record
from dp_hub.policies.foreign.pickles import read_pickle

PLAIN = {
    "numbers": [0, -1, 255, 256, 65536, 2**31, -(2**63), 2**100, 0.5, float("inf")],
    "text": ["", "x", "é", "\u4e16" * 300],
    "bytes": [b"", b"\x00\xff", b"x" * 300],
    "nothing": [None, True, False],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, (4, 5))],
    "nested": {"a": [{"b": {1: 2.0}}], 3: None},
    "sets": [set(), {1, 2}, frozenset({"a"})],
    "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
}


def read(data: bytes):
    return read_pickle(io.BytesIO(data), where="x.ckpt")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("key", PLAIN)
@pytest.mark.parametrize("writer", [pickle, dill])
def test_plain_values_come_out_as_they_went_in(writer, key: str, protocol: int) -> None:
    assert read(writer.dumps(PLAIN[key], protocol=protocol)) == PLAIN[key]


def test_values_that_are_shared_stay_shared_and_may_hold_themselves() -> None:
    shared = [1]
    value = [shared, shared]
    value.append(value)
    result = read(pickle.dumps(value))
    assert result[0] is result[1] and result[2] is result


class Attack:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class WithState:
    """Pickles as an object with state, whose ``__setstate__`` Python would call."""

    def __setstate__(self, state) -> None:
        Path(state["sentinel"]).touch()

    def __getstate__(self):
        return {"sentinel": os.environ["SENTINEL"]}


def attacks(sentinel: Path) -> dict[str, object]:
    shell = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w')"
    return {
        "os.system": Attack(os.system, shell),
        "eval": Attack(eval, code),
        "exec": Attack(exec, code),
        "open": Attack(open, str(sentinel), "w"),
        "getattr": Attack(getattr, os, "system"),
        "map": Attack(map, os.system, [shell]),
        "in a dict": {"cfg": [Attack(os.system, shell)]},
        "as a key": {(Attack(os.system, shell),): 1},
        "an object with __setstate__": WithState(),
        "a lambda": lambda: Path(sentinel).touch(),
        "a function": collections.namedtuple,
        "defaultdict of a call": collections.defaultdict(os.getcwd),
    }


NAMES = list(attacks(Path("x")))


@pytest.mark.parametrize("writer", [pickle, dill])
@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    name: str, writer, tmp_path: Path, monkeypatch
) -> None:
    sentinel = tmp_path / "sentinel"
    monkeypatch.setenv("SENTINEL", str(sentinel))
    only_dill = name in ("getattr", "a lambda")  # pickle itself writes no modules and no lambdas
    data = (dill if only_dill else writer).dumps(attacks(sentinel)[name])
    with pytest.raises(PolicyError, match=r"refused to read x\.ckpt"):
        read(data)
    assert not sentinel.exists()


def test_the_attacks_are_real(tmp_path: Path, monkeypatch) -> None:
    for name in ("os.system", "eval", "open", "in a dict", "an object with __setstate__"):
        sentinel = tmp_path / name.replace(" ", "_")
        monkeypatch.setenv("SENTINEL", str(sentinel))
        pickle.loads(pickle.dumps(attacks(sentinel)[name]))
        assert sentinel.exists(), name


def test_what_is_refused_is_named() -> None:
    with pytest.raises(PolicyError, match=r"it names `(posix|os)\.system`") as caught:
        read(pickle.dumps(Attack(os.system, "true")))
    assert "only tensors, numbers, strings" in str(caught.value)


GLOBAL = b"c%s\n%s\n"


@pytest.mark.parametrize(
    "program",
    {
        "an attribute of an allowed name": b"\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
        "a dotted path": b"cbuiltins\nbytes.fromhex\n.",
        "a call of a type": b"cbuiltins\ndict\n(tR.",
        "a call of a storage type": b"ctorch\nFloatStorage\n(tR.",
        "a call of a number": b"K\x01)R.",
        "a call with no tuple": b"ccollections\nOrderedDict\nK\x01R.",
        "a call with too much": b"c_codecs\nencode\n(\x8c\x01a\x8c\x06latin1K\x01tR.",
        "another encoding": b"c_codecs\nencode\n(\x8c\x01a\x8c\x05utf-7tR.",
        "state on a list": b"]}b.",
        "state on a dict": b"}}\x8c\x09__class__K\x01sb.",
        "state on a type": b"comegaconf.base\nMetadata\n}b.",
        "state of slots": b"comegaconf.base\nMetadata\n)\x81N}\x86b.",
        "a new object of a type": b"cbuiltins\nlist\n)\x81.",
        "a new object with arguments": b"comegaconf.base\nMetadata\n(K\x01t\x81.",
        "an extension": b"\x82\x01.",
        "an old instance": b"(ios\nsystem\n.",
        "an old object": b"(cos\nsystem\no.",
        "a text persistent id": b"Pstorage\n.",
        "a buffer": b"\x97.",
        "a list as a key": b"}]K\x01s.",
        "a tuple as a key": b"}K\x01K\x02\x86K\x01s.",
        "items of a list": b"]K\x01K\x02s.",
        "appended to a dict": b"}K\x01a.",
        "a persistent id of numbers": b"K\x01Q.",
        "a set of lists": b"\x8f(]\x90.",
    }.items(),
    ids=lambda item: item[0].replace(" ", "-"),
)
def test_a_program_of_any_other_kind_is_refused(program: tuple[str, bytes]) -> None:
    with pytest.raises(PolicyError, match="refused to read"):
        read(program[1])


@pytest.mark.parametrize(
    "program",
    [
        *(b"", b".", b"K", b"K\x01", b"K\x010", b"(", b"t.", b"(K\x010.", b"h\x05.", b"q\x05."),
        *(b"X\xff\xff\xff\xffabc.", b"\x8d" + b"\xff" * 8 + b"abc.", b"(K\x01u.", b"}(K\x01u."),
        *(b"\xff.", b"Inot a number\n.", b"c\n", b"cos\n", b"\x8a\xff\x01.", b"(K\x01]a."),
    ],
)
def test_a_broken_pickle_is_a_sentence(program: bytes) -> None:
    with pytest.raises(PolicyError, match=r"x\.ckpt"):
        read(program)


def test_no_cut_of_a_real_pickle_gives_a_traceback() -> None:
    data = dill.dumps(PLAIN)
    for length in range(0, len(data), 7):
        with pytest.raises(PolicyError):
            read(data[:length])


def test_a_memo_index_costs_no_memory() -> None:
    # Python's own reader makes a table as long as the index.
    data = b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b"."
    assert read(data) == 1


def test_doubling_tuples_and_lists_take_no_time() -> None:
    assert isinstance(read(b"K\x01" + b"2\x86" * 200 + b"."), tuple)
    with pytest.raises(PolicyError):
        read(b"}K\x01" + b"2\x86" * 200 + b"K\x01s.")


def test_deep_nesting_is_no_trouble() -> None:
    value = read(b"]" * 20_000 + b"a" * 19_999 + b".")
    assert value and isinstance(value[0], list)


def test_names_are_only_ever_values(tmp_path: Path) -> None:
    assert read(b"ctyping\nAny\n.") == Name("typing", "Any")
    made = read(b"comegaconf.nodes\nAnyNode\n)\x81}\x8c\x04_valK\x07sb.")
    assert made == Record(Name("omegaconf.nodes", "AnyNode"), {"_val": 7})


def test_the_machine_knows_exactly_these_instructions() -> None:
    from dp_hub.policies.foreign.pickles import _ACTIONS

    refused = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEWOBJ_EX", "BYTEARRAY8"}
    refused |= {"NEXT_BUFFER", "READONLY_BUFFER"}
    assert {opcode.name for opcode in pickletools.opcodes} - set(_ACTIONS) == refused | {"STOP"}


TEXT = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20
SETTING = b"comegaconf.nodes\nAnyNode\n"
ITEMS = b"(" + b"".join(b"M" + struct.pack("<H", n) + b"N\x86" for n in range(4096)) + b"l"
STATE = b"(" + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(4096)) + b"d"


@pytest.mark.parametrize(
    "program",
    {
        "a set per byte": b"(" + b"\x8f" * (2**20 + 1) + b"t.",
        "encoded again": b"c_codecs\nencode\nq\x00"
        + TEXT
        + b"\x8c\x06latin1\x86q\x01("
        + b"h\x00h\x01R" * 50
        + b"t.",
        "copied dicts": b"ccollections\nOrderedDict\nq\x00"
        + ITEMS
        + b"\x85q\x01("
        + b"h\x00h\x01R" * 5000
        + b"t.",
        "copied states": STATE + b"q\x00(" + (SETTING + b")\x81h\x00b") * 5000 + b"t.",
    }.items(),
    ids=lambda item: item[0].replace(" ", "-"),
)
def test_a_small_file_cannot_fill_the_memory(program: tuple[str, bytes]) -> None:
    with pytest.raises(PolicyError, match="more than 1,048,576 values"):
        read(program[1])
