"""Reading pickles without running them: an own machine for the opcodes, over plain values.

A pickle is a program. Python's `pickle` runs it, and calls whatever it names. This machine knows
only opcodes that build values; a name is looked up in the closed table of
`dp_hub.policies.foreign.names`, and one that is not there ends the reading with a message that says
which it was. Nothing is imported, and nothing in the file is ever called.

Opcodes and their arguments are taken apart by the standard library's `pickletools`.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping, Sized
from typing import Any, Protocol

from dp_hub.errors import PolicyError
from dp_hub.policies.foreign.names import (
    KNOWN,
    Name,
    NotPlain,
    Record,
    StorageRef,
    as_dict,
    as_set,
    storage,
    text,
)

_MOST_WORK = 2**20
"""Instructions, and values copied by them: far more than a checkpoint's, yet memory for all."""

_HINT = "only tensors, numbers, strings, plain containers and OmegaConf's settings are read"


class Readable(Protocol):
    """A binary file whose ``read`` gives at most what is there, such as BytesIO or mmap."""

    def read(self, n: int = ..., /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


def read_pickle(
    source: Readable, *, where: str, storages: dict[str, StorageRef] | None = None
) -> Any:
    """The value of one pickle.

    Args:
        source: positioned at the pickle; afterwards just behind it.
        where: what it is, for the messages.
        storages: where to note every storage that is spoken of, by its key.
    Returns:
        Numbers, str, bytes, None, lists, tuples, dicts and sets of these; `TensorRef` for tensors,
        `Record` for OmegaConf's objects, `Name` for types.
    Raises:
        PolicyError: it names something outside the table, or is not a whole pickle.
    """
    machine = _Machine(where, {} if storages is None else storages)
    try:
        return machine.run(source)
    except NotPlain as error:
        raise machine.refusal(str(error)) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise PolicyError(
            f"{where} is not a whole pickle: {error}", hint="copy or download it again"
        ) from None


class _Machine:
    """The stack, the marks on it, and the memo of one pickle."""

    def __init__(self, where: str, storages: dict[str, StorageRef]) -> None:
        self.where = where
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.work = 0

    def run(self, source: Readable) -> Any:
        for opcode, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return self.pop()
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise self.refusal(f"it uses the pickle instruction {opcode.name}")
            self.spend(1)
            action(self, argument)
        raise ValueError("it has no end")

    def refusal(self, what: str) -> PolicyError:
        return PolicyError(f"refused to read {self.where}: {what}", hint=_HINT)

    def spend(self, work: int) -> None:
        # A byte of a pickle can make a whole container, and a few of them copy a large one.
        self.work += work
        if self.work > _MOST_WORK:
            raise self.refusal(f"it builds more than {_MOST_WORK:,} values")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        # Not below a mark: what is under it belongs to a container still open.
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("its stack runs empty")
        return self.stack.pop()

    def top(self) -> Any:
        self.push(value := self.pop())
        return value

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def name(self, module: Any, qualname: Any) -> None:
        found = Name(text(module), text(qualname))
        if found not in KNOWN:
            raise self.refusal(f"it names {found}")
        self.push(found)

    def call(self, name: Any, arguments: Any) -> None:
        make = KNOWN.get(name) if isinstance(name, Name) else None
        if make is None or not isinstance(arguments, tuple):
            raise self.refusal(f"it calls {_kind(name)}")
        self.spend(sum(len(one) for one in arguments if isinstance(one, Sized)))
        try:
            self.push(make(*arguments))
        except TypeError:
            raise self.refusal(f"it calls {name} with {len(arguments)} arguments") from None

    def new(self) -> None:
        arguments, name = self.pop(), self.pop()
        if not (isinstance(name, Name) and name.is_setting and arguments == ()):
            raise self.refusal(f"it makes an object of {_kind(name)}")
        self.push(Record(name, {}))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Record) and isinstance(state, dict):
            self.spend(len(state))
            target.fields.update(state)
        elif not (isinstance(target, dict) and isinstance(state, dict) and _is_torch_note(state)):
            raise self.refusal(f"it sets the state of {_kind(target)}")

    def put_into(self, pairs: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise self.refusal(f"it sets items of {_kind(target)}")
        target.update(_dict_of(pairs))

    def append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise self.refusal(f"it appends to {_kind(target)}")
        target.extend(items)

    def add(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise self.refusal(f"it adds to {_kind(target)}")
        target |= as_set(items)

    def tuple_of(self, n: int) -> None:
        self.push(tuple(reversed([self.pop() for _ in range(n)])))

    def persistent(self) -> None:
        # How torch's files speak of numbers that lie elsewhere in them.
        ref = storage(self.pop())
        if self.storages.setdefault(ref.key, ref) != ref:
            raise self.refusal("it speaks of one storage in two ways")
        self.push(ref)


def _is_torch_note(state: Mapping[Any, Any]) -> bool:
    # A state dict's versions of its modules, which torch hangs on the OrderedDict.
    return set(state) <= {"_metadata"}


def _dict_of(pairs: list[Any]) -> dict[Any, Any]:
    return as_dict(zip(pairs[::2], pairs[1::2], strict=True))


def _kind(value: Any) -> str:
    if isinstance(value, Name | Record):
        return str(value if isinstance(value, Name) else value.name)
    return f"a value of type {type(value).__name__}"


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    **{
        name: _push_argument
        for name in (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
            *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        )
    },
    "MARK": lambda m, a: m.marks.append(len(m.stack)),
    "POP": lambda m, a: m.pop(),
    "POP_MARK": lambda m, a: m.since_mark(),
    "DUP": lambda m, a: m.push(m.top()),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "LIST": lambda m, a: m.push(m.since_mark()),
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.since_mark()),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "TUPLE": lambda m, a: m.push(tuple(m.since_mark())),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "DICT": lambda m, a: m.push(_dict_of(m.since_mark())),
    "SETITEM": lambda m, a: m.put_into([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.put_into(m.since_mark()),
    "EMPTY_SET": lambda m, a: m.push(set()),
    "ADDITEMS": lambda m, a: m.add(m.since_mark()),
    "FROZENSET": lambda m, a: m.push(frozenset(as_set(m.since_mark()))),
    **{
        name: lambda m, a: m.memo.__setitem__(int(a), m.top())
        for name in ("PUT", "BINPUT", "LONG_BINPUT")
    },
    "MEMOIZE": lambda m, a: m.memo.__setitem__(len(m.memo), m.top()),
    **{name: lambda m, a: m.push(m.memo[int(a)]) for name in ("GET", "BINGET", "LONG_BINGET")},
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.name(*[m.pop(), m.pop()][::-1]),
    "REDUCE": lambda m, a: m.call(*[m.pop(), m.pop()][::-1]),
    "NEWOBJ": lambda m, a: m.new(),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.persistent(),
}
