"""The parts that addresses are made of."""

from starlette.convertors import StringConvertor, register_url_convertor


class _Kinds(StringConvertor):
    regex = "datasets|models"


class _Datasets(StringConvertor):
    regex = "datasets"


class _Git(StringConvertor):
    regex = r"[^/]+\.git"

    def convert(self, value: str) -> str:
        return value.removesuffix(".git")


register_url_convertor("hub_kinds", _Kinds())
register_url_convertor("hub_datasets", _Datasets())
register_url_convertor("hub_git", _Git())

KINDS = "/api/{kinds:hub_kinds}"
REPO = f"{KINDS}/{{user}}/{{name}}"
# Outside /api, datasets have a prefix and models have none.
PREFIXES = ("/{kinds:hub_datasets}", "")
