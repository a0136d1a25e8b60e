"""Texts that are replaced on their way into a container: by Argo, by Kubernetes, by KFP's launcher.

A value that Argo would put in stands as "the value of …" here, since a test asks only whether a text arrives unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["check_unicode", "expanded", "of_argo", "of_kfp", "refused_by_argo"]

# The roots of Argo's variables for pods and tasks. Sources: Argo, controller/operator.go, ``executeTemplate`` and
# ``buildRetryStrategyLocalScope``; controller/workflowpod.go, ``processPodSpecPatch``; common/util.go, ``ProcessArgs``.
_ROOTS = r"workflow|inputs|outputs|tasks|steps|pod|node|lastRetry"
_VARIABLE = re.compile(rf"\{{\{{\s*((?:{_ROOTS})\.[^{{}}]*|retries\s*)\}}\}}|\{{\{{=(.*?)\}}\}}", re.DOTALL)
_REFUSED = re.compile(r"\{\{((?:item|steps|inputs|pod|tasks)\.[^{}]*)\}\}")


def of_argo(value: str) -> str:
    """The input of a template, as the template gets it: variables and expressions in it are replaced.

    Sources: Argo, common/util.go, ``substituteParams``, which replaces in the template with its inputs; util/template,
    simple_template.go and expression_template.go.
    """
    return _VARIABLE.sub(lambda found: f"the value of {(found[1] or found[2]).strip()}", value)


def refused_by_argo(text: str) -> str:
    """A variable that nothing gives, for which Argo refuses a workflow with this text; empty if there is none. Source:
    Argo, validate/validate.go, ``resolveAllVariables``."""
    return found[1] if (found := _REFUSED.search(text)) else ""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """An argument as Kubernetes changes it, but for a variable that is not there. Source: Kubernetes,
    third_party/forked/golang/expansion/expand.go."""

    def replaced(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        try:
            return variables[found["name"]]
        except KeyError:
            return found[0]

    return re.sub(r"\$\$|\$\((?P<name>[A-Za-z_.-][A-Za-z0-9_.-]*)\)", replaced, text)


def of_kfp(word: str, given: Mapping[str, Any]) -> str:
    """An argument of a container: KFP's launcher replaces its placeholders one after another, in any order, so those in
    the text of another one too. Source: KFP, v2/component/launcher_v2.go, ``executeV2``, ``getPlaceholders``."""
    places = {"{{$}}": json.dumps(given)}
    for side in ("inputs", "outputs"):
        for port, listed in given[side].get("artifacts", {}).items():
            uri = listed["artifacts"][0]["uri"]
            places[f"{{{{$.{side}.artifacts['{port}'].uri}}}}"] = uri
            places[f"{{{{$.{side}.artifacts['{port}'].path}}}}"] = uri.removeprefix("file://")
    for port, value in given["inputs"].get("parameterValues", {}).items():
        places[f"{{{{$.inputs.parameters['{port}']}}}}"] = value if isinstance(value, str) else json.dumps(value)
    for place, value in places.items():
        word = word.replace(place, value)
    return word


def check_unicode(value: Any) -> None:
    """Raise ``ValueError`` for half a surrogate, which is not in protobuf's texts. Source: protobuf's protojson,
    internal/encoding/json/decode_string.go."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"proto: syntax error (line 1:1): invalid escape code in string: {error.reason}") from None
