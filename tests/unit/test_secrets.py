"""Secrets by name: what may be written, where local runs find them, and what is shown in their place.

What no run shows, on any engine: ``SecretConformance``.
"""

from __future__ import annotations

import base64
import json
import os
import pprint
import re
import shlex
import textwrap
import tracemalloc
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowyml import Pipeline, pipeline, step
from flowyml.cli import main
from flowyml.core.errors import (
    ConfigurationError,
    DefinitionError,
    MissingSecretError,
    StepError,
)
from flowyml.core.hooks import PipelineHook
from flowyml.orchestrators.local import LocalOrchestrator
from flowyml.orchestrators.local.secrets import KEYRING_SERVICE, LocalSecrets
from flowyml.orchestrators.targets import resolve
from flowyml.plan.codec import decode
from flowyml.plan.model import Step
from flowyml.runtime import fork_client
from flowyml.runtime.execution import run_step
from flowyml.runtime.folding import Folding
from flowyml.runtime.secrets import Mask

NAME, VARIABLE = "warehouse/password", "FLOWYML_SECRET_WAREHOUSE_PASSWORD"
VALUE = "s3cr&t pass/wörd+long"


@step(secrets={"password": NAME})
def load(rows: int, password: str = "") -> tuple[int, int]:
    print(f"connecting with {password}")
    return rows, len(password)


@step(secrets={"WAREHOUSE_LENGTH": NAME})
def from_environment() -> int:
    return len(os.environ["WAREHOUSE_LENGTH"])


@step(secrets={"password": NAME})
def fails(password: str = "") -> None:
    raise ValueError(f"cannot sign in as app:{password}")


@step(secrets={"password": NAME})
def of_item(item: int, password: str = "") -> int:
    return item * len(password)


@step(secrets={"password": "other"})
def says(password: str = "") -> None:
    print(f"connecting with {password}")


@pipeline
def etl(rows: int = 3) -> Any:
    return load(rows), from_environment(), of_item.map(item=[1, 2])


def one(of: Any, **options: Any) -> Pipeline:
    return Pipeline("one", **options).add_step(of)


@pytest.fixture
def value(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(VARIABLE, VALUE)
    return VALUE


class TestWhatMayBeWritten:
    def test_the_plan_holds_the_name(self) -> None:
        plan = etl.compile()
        assert plan.by_name["load"].secrets == {"password": NAME}
        assert [item.name for item in plan.by_name["load"].inputs] == ["rows"]
        assert decode(plan.canonical) == plan
        assert plan.schema_version == 2  # FlowyML before secrets would run the step without its password
        assert one(step(name="plain")(lambda: 1)).compile().schema_version == 1

    def test_a_step_can_be_read_and_changed(self) -> None:
        assert load.secrets == {"password": NAME}
        assert load.options(secrets={"password": "test/password"}).secrets == {"password": "test/password"}
        assert load(2, password="by hand") == (2, 7)

    @pytest.mark.parametrize("reference", ["", "a b", "/x", "ä", "x" * 300, "a\n", 3, None, "${x}", "a'b"])
    def test_names_are_plain(self, reference: Any) -> None:
        with pytest.raises(DefinitionError, match="does not name a secret"):
            step(secrets={"password": reference})(lambda password: None)

    def test_what_it_fills_is_there(self) -> None:
        with pytest.raises(DefinitionError, match=r"names 'pasword'.*Did you mean 'password'"):
            step(secrets={"pasword": NAME})(load.function)
        with pytest.raises(DefinitionError, match="must be a dict"):
            step(secrets=[NAME])(load.function)  # type: ignore[call-overload]  # wrong on purpose

    def test_it_cannot_be_given_as_well(self) -> None:
        @pipeline
        def twice() -> Any:
            return load(1, password="x")

        with pytest.raises(DefinitionError, match="'password' is filled by a secret"):
            twice.compile()

    def test_by_names_no_output_fills_it(self) -> None:
        @step
        def password() -> str:
            return "not this one"

        plan = Pipeline("p").add_step(password).add_step(fails).compile()
        assert plan.by_name["fails"].inputs == ()


@pytest.mark.processes
class TestLocalRuns:
    @pytest.mark.parametrize("fork", ["1", "0"])
    def test_arguments_and_variables_are_filled(self, fork: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOWYML_FORK", fork)
        result = etl.run(on=LocalOrchestrator(workers="processes"))
        assert result.outputs == {
            "load": (3, len(value)), "from_environment": len(value), "of_item": [len(value), 2 * len(value)],
        }  # fmt: skip
        assert "WAREHOUSE_LENGTH" not in os.environ

    def test_one_that_is_too_long_for_a_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fork_client, "_SMALL", 500)  # masking takes a second for 4,000 characters
        monkeypatch.setenv(VARIABLE, "long" * 250)
        assert one(from_environment).run().outputs == {"from_environment": 1_000}

    def test_a_step_with_secrets_has_a_process_of_its_own_and_hooks_get_the_text_of_its_error(self, value: str) -> None:
        """Where other steps run in threads of the caller's process."""

        class Sees(PipelineHook):
            def on_error(self, step_name: str, error: BaseException) -> None:
                print(f"type: {type(error).__name__}, cause: {error.__cause__}")

        @step
        def plain() -> int:
            return os.getpid()

        @step(secrets={"password": NAME})
        def own(password: str = "") -> int:
            return os.getpid()

        outputs = Pipeline("own").add_step(plain).add_step(own).run(on=LocalOrchestrator(workers="threads")).outputs
        assert outputs["plain"] == os.getpid() != outputs["own"]
        run = Pipeline("hooked", hooks=[Sees()]).add_step(fails).submit()
        run.wait_for_completion(2400)
        assert "type: StepFailedError, cause: None" in [line.message for line in run.logs()]

    def test_names_of_a_target_count_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also in a submitted run, whose bundle has them already."""
        monkeypatch.setenv("FLOWYML_SECRET_B", "22")
        monkeypatch.setenv("FLOWYML_SECRET_C", "333")
        monkeypatch.setenv("FLOWYML_SECRET_OTHER", "s3cret-value")
        swapping = LocalOrchestrator(secrets={NAME: "b", "b": "c"})
        assert one(from_environment).run(on=swapping).outputs == {"from_environment": 2}
        job = Pipeline("submitted").add_step(from_environment).add_step(says).submit(on=swapping)
        assert job.wait_for_completion(2400).result().outputs["from_environment"] == 2
        assert "connecting with ***" in [line.message for line in job.logs()]

    def test_two_names_of_one_secret_are_refused(self) -> None:
        @step(secrets={"a": "db-prod/key", "b": "db/prod-key"})
        def both(a: str = "", b: str = "") -> None: ...

        with pytest.raises(
            DefinitionError, match=r"'db-prod/key' and 'db/prod-key' would both be stored as FLOWYML_SECRET"
        ):
            one(both).run()

    def test_a_variable_that_cannot_be_set(self, tmp_path: Path) -> None:
        with pytest.raises(StepError, match="the secret for TOKEN has a character"):
            run_step(Step(name="s", function="m:f"), lambda: None, {}, secrets={"TOKEN": "a\0b"})

    def test_a_large_output_that_holds_it_is_refused(self, value: str) -> None:
        @step(secrets={"password": NAME})
        def many(password: str = "") -> list[str]:
            return [*("text" for _ in range(30_000)), f"postgresql://app:{password}@host"]

        assert "output 'many' contains the value of a secret" in str(one(many).run().error)


class TestWhereLocalRunsLook:
    def test_a_file_that_settings_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "flowyml.toml").write_text(
            '[orchestrators.local]\ndotenv = "secrets.env"\n[orchestrators.local.secrets]\n"warehouse/password" = "w"\n'
        )
        (tmp_path / "secrets.env").write_text("FLOWYML_SECRET_W='from ${HOME} file'\n")
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert one(from_environment).run(on=resolve("local")).outputs == {"from_environment": len("from ${HOME} file")}

    def test_the_environment_comes_first(self, tmp_path: Path, value: str) -> None:
        file = tmp_path / ".env"
        file.write_text(f"{VARIABLE}=other\n")
        assert LocalSecrets(file)(NAME) == value

    def test_a_file_that_is_not_there_or_no_text(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="there is no such file"):
            LocalSecrets(tmp_path / ".env")(NAME)
        (tmp_path / ".env").write_bytes(b"A=\xff\xfe")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            LocalSecrets(tmp_path / ".env")(NAME)

    def test_the_keyring_of_the_system(self, memory_keyring: dict[tuple[str, str], str]) -> None:
        memory_keyring[KEYRING_SERVICE, NAME] = "from the keyring"
        assert LocalSecrets()(NAME) == "from the keyring"

    def test_a_machine_without_a_keyring(self) -> None:
        keyring = pytest.importorskip("keyring")
        fail = pytest.importorskip("keyring.backends.fail")
        before = keyring.get_keyring()
        keyring.set_keyring(fail.Keyring())
        try:
            with pytest.raises(MissingSecretError, match=r"keyring set flowyml warehouse/password"):
                LocalSecrets()(NAME)
        finally:
            keyring.set_keyring(before)

    @pytest.mark.parametrize("names", [["a"], {"a b": "c"}, {"a": ""}])
    def test_wrong_names_of_a_target(self, names: Any) -> None:
        with pytest.raises(ConfigurationError, match="secret"):
            LocalOrchestrator(secrets=names)

    def test_check_says_which_are_missing_and_under_which_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("flowyml.toml").write_text(
            "[orchestrators.here]\nengine = 'local'\n[orchestrators.here.secrets]\n'api/token' = 'their/key'\n"
        )
        Path("mapped.py").write_text(
            "from flowyml import Pipeline, step\n"
            "@step(secrets={'TOKEN': 'api/token', 'OTHER': 'plain/name'})\ndef fetch() -> int:\n    return 1\n"
            "mapped = Pipeline('mapped').add_step(fetch)\n"
        )
        monkeypatch.setenv("FLOWYML_SECRET_PLAIN_NAME", VALUE)
        check = ["secrets", "check", "mapped.py", "--on", "here"]
        assert main([*check, "--json"]) == 4
        shown = json.loads(capsys.readouterr().out)
        assert [(each["secret"], each["steps"], each["stored_as"], each["found"]) for each in shown] == [
            ("api/token", ["fetch"], "their/key", False), ("plain/name", ["fetch"], "plain/name", True),
        ]  # fmt: skip
        assert main(check) == 4
        table = capsys.readouterr().out.splitlines()
        assert table[0].split() == ["SECRET", "STORED", "AS", "STEPS"]
        assert table[1].split() == ["api/token", "their/key", "missing", "fetch"]
        assert main(check[:3]) == 4
        assert capsys.readouterr().out.splitlines()[0].split() == ["SECRET", "STEPS"], "none has another name"
        monkeypatch.setenv("FLOWYML_SECRET_THEIR_KEY", "t0ken")
        assert main(check) == 0
        assert VALUE not in "".join(capsys.readouterr())


@pytest.fixture
def memory_keyring() -> Any:
    keyring = pytest.importorskip("keyring")
    backend = pytest.importorskip("keyring.backend")
    kept: dict[tuple[str, str], str] = {}

    class Memory(backend.KeyringBackend):  # type: ignore[misc, name-defined]  # keyring may be missing
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            kept[service, username] = password

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    yield kept
    keyring.set_keyring(before)


def wrapped(width: int) -> Callable[[str], str]:
    return lambda text: "\n".join(textwrap.wrap(text, width, break_on_hyphens=False) or [""])


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "repr": repr,
    "quoted": lambda text: quote(text, safe=""),
    "plus": quote_plus,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "after a user": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "url-safe": lambda text: base64.urlsafe_b64encode(f"u:{text}".encode()).decode(),
    "in lines": wrapped(7),
    "base64 in lines": lambda text: wrapped(11)(base64.b64encode(text.encode()).decode()),
}


QUOTED: dict[str, Callable[[str], str]] = {
    "JSON as Go writes it": lambda text: (
        json.dumps(text, ensure_ascii=False).replace("&", "\\u0026").replace("<", "\\u003C")
    ),
    "ascii()": ascii,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "XML": lambda text: escape(text, quote=False).replace("'", "&apos;"),
    "decimal entities": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "hexadecimal entities": lambda text: "".join(f"&#x{ord(character):02X};" for character in text),
    "each byte in percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "a shell": shlex.quote,
    "a shell within quotes": lambda text: text.replace("'", "'\\''"),
    "SQL": lambda text: text.replace("'", "''"),
    "each character with a backslash": lambda text: "".join(f"\\{character}" for character in text),
    "bytes": lambda text: repr(text.encode()),
    "octal": lambda text: "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\{byte:03o}" for byte in text.encode()
    ),
}


def nested(text: str) -> str:
    for _ in range(6):
        text = json.dumps(text)
    return text


BROKEN: dict[str, Callable[[str], str]] = {
    "not": str,
    "pprint": lambda text: pprint.pformat({"key": text}, width=60),
    "JSON": lambda text: json.dumps(text.split(" "), indent=2),
    "YAML": lambda text: "\\\n  \\ ".join(text.split(" ")),
    "an e-mail": lambda text: textwrap.indent(text.replace(" ", "\n"), "> "),
    "a comment": lambda text: text.replace(" ", " \r\n# "),
}


NOTATIONS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": json.dumps,
    "JSON of Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "HTML": escape,
    "URL": lambda text: quote(text, safe="*"),
    "XML": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "octal": lambda text: "".join("*" if byte == ord("*") else f"\\{byte:03o}" for byte in text.encode()),
    "bytes": lambda text: "".join("*" if byte == ord("*") else f"\\x{byte:02x}" for byte in text.encode()),
}
VALUES = st.text(
    st.one_of(st.characters(min_codepoint=33, max_codepoint=126), st.sampled_from("äßжю日😀")), min_size=8, max_size=24
).filter(lambda value: len(re.sub(r"[\\'\"+]", "", value)) >= 4 and not {value[0], value[-1]} & set("\\'\"+"))


class Counted(dict[str, Any]):
    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        self.lookups += 1 + len(found)
        return found


class TestMasks:
    @pytest.mark.parametrize("way", QUOTED)
    def test_every_way_to_quote(self, way: str) -> None:
        value = "p4ss&w'rd<größe>"
        shown = Mask([value]).text(f"before: {QUOTED[way](value)} :after")
        assert re.fullmatch(r"""before: [b'"\\]*\*\*\*['"\\]* :after""", shown)

    @pytest.mark.parametrize("text", ["\\", "%25", "&amp;", "'", "p"])
    def test_a_long_line_of_quotes_is_searched_soon(self, text: str) -> None:
        line = text * 200_000
        assert Mask(["p4ss&w'rd<größe>" * 4]).text(line) == line

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form(self, form: str) -> None:
        value = "correct-horse%battery/staple"
        shown = Mask([value]).text(f"before {FORMS[form](value)} after")
        assert "***" in shown
        assert shown.startswith("before")
        assert shown.endswith("after")
        for piece in (value[index : index + 6] for index in range(len(value) - 5)):
            assert FORMS[form](piece).strip("'\"") not in shown

    @settings(max_examples=30)
    @given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.integers(5, 20))
    def test_whatever_it_is_and_however_it_is_broken(self, value: str, width: int) -> None:
        lines = [value[index : index + width] for index in range(0, len(value), width)]
        got: list[str] = []
        take = Mask([value]).lines(lambda source, line: got.append(line))
        for line in ("before", f"x{lines[0]}", *lines[1:], "after"):
            take("stdout", line)
        assert got[0] == "before"
        shown = "".join(got[1:-1])
        assert value not in shown
        is_long = sum(map(str.isalnum, value)) >= 10
        for part in lines:  # of what ends a line, up to three characters that count may be left
            if sum(character.isalnum() if is_long else character not in "\\'\"+" for character in part) >= 4:
                assert part not in shown

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_broken_by_any_end_of_a_line(self, end: str) -> None:
        value = "correct-horse-battery-staple"
        mask = Mask([value])
        assert mask.text(f"it was{end}{value[:12]}{end}{value[12:]}") == f"it was{end}***{end}***"
        assert mask.finds([f"{value[:12]}{end}{value[12:]}"])

    def test_a_key_of_several_lines(self) -> None:
        key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQ\n-----END KEY-----\n"
        got: list[str] = []
        take = Mask([key]).lines(lambda source, line: got.append(line))
        for line in f"the key:\n{key}done".split("\n"):
            take("stdout", line)
        assert got == ["the key:", "***", "***", "***", "***", "done"]

    def test_streams_are_followed_by_themselves(self) -> None:
        got: list[tuple[str, str]] = []
        take = Mask(["abcdefghij"]).lines(lambda source, line: got.append((source, line)))
        for source, line in (("stdout", "x abcdef"), ("stderr", "warning"), ("stdout", "ghij y")):
            take(source, line)
        assert got == [("stdout", "x ***"), ("stderr", "warning"), ("stdout", "*** y")]

    def test_ordinary_text_stays(self) -> None:
        text = "epoch 3\nloss 0.1\n\n  indented\nabc"
        assert Mask(["zzzzzzzzzz", "abc"]).text(text) == text  # three characters would mask half a log

    def test_of_an_error_only_its_words_are_left(self) -> None:
        error = ValueError("no")
        error.__cause__ = KeyError("abcdef")
        shown = Mask(["abcdef"]).error(error)
        assert str(shown) == "ValueError: no"
        assert shown.__cause__ is None

    def test_an_error_that_cannot_say_what_it_is(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        assert str(Mask(["abcdef"]).error(Mute())) == "Mute"

    @pytest.mark.parametrize(
        ("value", "line"),
        [
            ("it's-a-secret", repr(["psql", "password='it's-a-secret' host=\"h\""])),
            ("plänted\udcff-secret", "plänted\ufffd-secret"),
            ("a/b%c-secret", "a%2fb%25c-secret"),
            ("a@b c/d-secret", "https://app.example.org/?token=a@b%20c/d-secret"),  # as httpx and requests leave a URL
            (
                "a@b c/d:é-secret",
                "https://app.example.org/login?next=%2F%3Fto%3Da%2540b%2Bc%252Fd%253a%25C3%25A9-secret",
            ),
            ("a@b c:d-secret", "https://a%40b+c:d-secret@app.example.org"),
            ("a/b/c-secret", r'{"a":"a\/b\/c-secret"}'),
        ],
    )
    def test_other_ways_to_write_it(self, value: str, line: str) -> None:
        shown = Mask([value]).text(line)
        assert "***" in shown
        assert "secret" not in shown

    def test_a_break_at_a_space(self) -> None:
        assert Mask(["Bearer eyJhbGciOiJIUzI1NiJ9"]).text("Bearer\neyJhbGciOiJIUzI1NiJ9 x") == "***\n*** x"

    def test_a_short_value_in_a_word_or_over_lines_stays(self) -> None:
        """Seven characters are a word; eight are found anywhere."""
        got: list[str] = []
        for value, lines in (
            ("abcdefg", ["xabcdefg abcd", "efg abcdefgy"]),
            ("abcdefgh", ["xabcdefgh abcd", "efgh y"]),
        ):
            take = Mask([value]).lines(lambda source, line: got.append(line))
            for line in lines:
                take("stdout", line)
        assert got == ["xabcdefg abcd", "efg abcdefgy", "x*** ***", "*** y"]

    @pytest.mark.parametrize("value", ["ab c", "Z. l", "g'fK", "'' ''"])
    def test_a_value_of_four_characters_is_masked_as_it_is(self, value: str) -> None:
        mask = Mask([value])
        assert mask.text(f"x {value} y") == "x *** y"
        assert mask.finds({"a": value})

    def test_a_value_of_quotes_is_masked_as_it_is_alone(self) -> None:
        value = "'\"\\+'ab\"+"
        assert Mask([value]).text(f"<{value}> ab <'ab'>") == "<***> ab <'ab'>"
        assert value in json.loads(Mask([value]).text(json.dumps(value)))

    def test_a_short_value_is_a_word(self) -> None:
        mask = Mask(["public", "https://app:key@host"])
        assert mask.text("the republican schema public") == "the republican schema ***"
        assert mask.text("it speaks https\n-----") == "it speaks https\n-----"
        assert not mask.finds("the republican schema")

    def test_the_beginning_of_a_value_is_none(self) -> None:
        """In an output; the end of a line of the log may go on in the next one."""
        url = "postgresql+psycopg2://ada:pw12345secret@db/sales"
        mask = Mask([url, "DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=9sd8f7s9d8f7"])
        assert not mask.finds(["postgresql", "Default", {"client": "mysql"}])
        assert mask.finds([f"see {url}!"])
        assert mask.finds("DefaultEndpointsProtocol=https;\n AccountName=abc;AccountKey=9sd8f7s9d8f7")

    def test_what_is_found_in_an_output(self) -> None:
        mask = Mask(["12345678", "correct-horse-battery"])
        found = [
            12345678,
            12345678.0,
            ["x", {"correct-horse-battery": 1}],
            b"a correct-horse-battery",
            "correct-horse\n-battery",
        ]
        assert all(map(mask.finds, found))
        assert not any(map(mask.finds, [True, 1234567, ["x"], {"y": None}, object()]))

    @pytest.mark.parametrize("broken", BROKEN)
    @pytest.mark.parametrize("way", [*QUOTED, "plain", "JSON nested", "base64"])
    @pytest.mark.parametrize("as_lines", [False, True])
    def test_quoted_and_broken(self, way: str, broken: str, as_lines: bool) -> None:
        value = "p4ss&w'rd<größe> of/the:Warehouse-Q7Z3kX9mLc2HdY5E"
        quoted = {**QUOTED, **FORMS, "JSON nested": nested}[way](value)
        text = f"before:\n{BROKEN[broken](quoted)}\n:after"
        mask, got = Mask([value]), []
        take = mask.lines(lambda source, line: got.append(line))
        for line in text.split("\n"):
            take("stdout", line)
        shown = "\n".join(got) if as_lines else mask.text(text)
        assert "***" in shown
        assert "before:" in shown
        assert ":after" in shown
        plain = "".join(filter(str.isalnum, shown))
        assert [piece for piece in ("Warehouse", "Q7Z3kX9", "9mLc2Hd", "cHQ0c3M", "UTdaM2tY") if piece in plain] == []

    @pytest.mark.parametrize("value", ["p4ss&w'r", "p4ss&w'rd<of>the:Warehouse"])
    def test_json_that_is_nested(self, value: str) -> None:
        assert value not in Mask([value]).text(nested(value))
        assert "***" in Mask([value]).text(nested(value))

    @pytest.mark.parametrize("password", ["S3cr%2Ft-pass-word", "s3c%2Fr", "Sec/ret-w0rd"])
    def test_the_login_of_a_url(self, password: str) -> None:
        """A server may echo the header, and name the password."""
        mask = Mask([f"https://hugo:{password}@host.example/x"])
        header = base64.b64encode(f"hugo:{unquote(password)}".encode()).decode()
        assert mask.text(f"Authorization: Basic {header}!") == "Authorization: Basic ***!"
        assert mask.text(f"no: {unquote(password)}, {password} at host.example") == "no: ***, *** at host.example"

    def test_ordinary_text_beside_long_values_stays(self) -> None:
        text = 'GET https://host.example/orders?since=2026 \\n {"a": 1}\n  the correct horse is\n100%25 &amp; more'
        values = [
            "https://ada:S3cret-w0rd@host.example/orders",
            "correct-horse-battery-staple",
            "\n".join(["x" * 50] * 9),
        ]
        assert Mask(values).text(text) == text

    @pytest.mark.parametrize("text", ["\\", "%25", "&amp;", "x", "\\u0078", "%2578"])
    def test_long_values_in_long_lines(self, text: str) -> None:
        line = text * 50_000
        Mask(["x" * 100 + "y" * 100]).text(line)

    def test_a_long_line_is_not_cut_within_a_quoted_value(self) -> None:
        value = "K3y" + "f" * 5 + "QzX91" * 800
        for quoted in ("".join(f"&#{ord(each)};" for each in value), "".join(f"%{ord(each):02X}" for each in value)):
            for before in range(0, 10_000, 1_700):
                assert len(Mask([value]).text("x" * before + quoted)) < before + 50

    @pytest.mark.parametrize("value", ["bat-fan-tab-!!-ab-\\\\x-9", "<<!!>>((~~))__++a\\9f"])
    def test_a_backslash_within_a_short_value(self, value: str) -> None:
        octal = "".join(f"\\{ord(each):03o}" for each in value)
        for written in (json.dumps(value), json.dumps(json.dumps(value)), repr(value), octal):
            assert value[-4:] not in Mask([value]).text(written).replace("\\\\", "\\")
            assert "***" in Mask([value]).text(written)

    def test_base64_of_base64_for_urls(self) -> None:
        value = "Kd0>>>?Zp~~?XX12mQ?xyQ>>9"
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            written = base64.b64encode(encode(value.encode())).decode()
            assert Mask([value]).text(written) == "***"

    def test_a_list_of_the_parts_of_a_value(self) -> None:
        value = "correct-horse-battery-staple"
        assert Mask([value]).text(f"parts: {value.split('-')}!") == "parts: ['***']!"

    def test_colours_within_a_value(self) -> None:
        text = "\x1b[35mcorrect-\x1b[0mhorse-\x1b[1;36mbattery\x1b[0m"
        for written in (text, json.dumps(text)):
            assert "horse" not in Mask(["correct-horse-battery"]).text(written)

    @pytest.mark.parametrize("before", ["", "a", "ab"])
    def test_base64_of_base64(self, before: str) -> None:
        """As a Kubernetes secret holds the login of a registry of images."""
        key = "Q7Z3kX9mLc2HdY5E"
        login = json.dumps({"auth": base64.b64encode(f"{before}:{key}".encode()).decode()})
        shown = Mask([key]).text(base64.b64encode(login.encode()).decode())
        assert "***" in shown
        assert "UTdaM2tY" not in base64.b64decode(shown.split("***")[0] + "==").decode("latin-1")

    def test_entities_of_letters_outside_ascii(self) -> None:
        assert Mask(["größe-Schlüssel-Übung"]).text("gr&ouml;&szlig;e-Schl&uuml;ssel-&Uuml;bung") == "***"

    @pytest.mark.parametrize("value", ["key", "word", "x" * 5000, f"{'x' * 5000}y", "ab" * 2500])
    def test_a_text_is_searched_in_few_steps_whatever_the_values_are(self, value: str) -> None:
        """Counted, not timed: a value of equal letters took ten million comparisons for 1 MB of them."""
        values = base64.b64encode(os.urandom(48 * 1050)).decode() if value == "key" else value
        lines = ["".join(part) for part in zip(*[iter(values)] * 64, strict=False)] if value == "key" else [value]
        ((form, patterns),) = Folding([], lines).forms
        counted = patterns.keys = Counted(patterns.keys)
        for text in ("ordinary" * 1250, "x" * 10_000, "ab" * 5000):
            counted.lookups = 0
            whole, begun = patterns.search(text.translate(form))
            assert counted.lookups < 12_000
            assert len(whole) + sum(map(len, begun.values())) < 50

    def test_hundreds_of_short_values_are_no_more_to_look_for(self) -> None:
        for number in (1, 500):
            _, patterns = Folding([], [f"word-{each}" for each in range(number)]).forms[-1]
            counted = patterns.keys = Counted(patterns.keys)
            assert patterns.search("anordinary'lineof100%orless")[0] == []
            assert counted.lookups < 28

    def test_the_values_of_one_step_are_prepared_once(self) -> None:
        assert Mask(["correct-horse", "battery"])._folding is Mask(["battery", "correct-horse"])._folding

    @settings(max_examples=100)
    @given(VALUES, st.sampled_from(["base64", *NOTATIONS]), st.sampled_from([*NOTATIONS]), st.booleans())
    def test_two_notations_at_once(self, value: str, inner: str, outer: str, as_lines: bool) -> None:
        """Only what the notations write around a value is left."""
        inside = {**NOTATIONS, "base64": lambda text: text if text == "***" else FORMS["base64"](text)}
        written, shown = (NOTATIONS[outer](inside[inner](text)) for text in (value, "***"))
        mask, got = Mask([value]), []
        mask.lines(lambda source, line: got.append(line))("stdout", f"<{written}>")
        assert (got[0] if as_lines else mask.text(f"<{written}>")) == f"<{shown}>"
        assert mask.finds({"output": [written]})

    @pytest.mark.parametrize("value", ["test data", "testdata", "testdatabase"])
    def test_words_that_a_space_separates_are_another_value(self, value: str) -> None:
        text = "the latest data, the latest database, on 100% of a\\b"
        assert Mask([value.replace(" ", "")]).text(text) == text
        assert not Mask([value.replace(" ", "")]).finds(text)

    def test_a_large_text_takes_little_memory(self) -> None:
        """An error may quote a whole statement: 9 MB took 1.4 GB."""
        value, text = "Zq7PxW2sT8vB4nC6-abc", "it's (1,'abc def'), " * 100_000
        mask = Mask([value])
        tracemalloc.start()
        try:
            shown = mask.text(f"{value} {text}{value}{text}%20{value[:9]}")
            assert tracemalloc.get_traced_memory()[1] < 20 * len(text)
        finally:
            tracemalloc.stop()
        assert shown == f"*** {text}***{text}%20***"
