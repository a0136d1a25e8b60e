"""Secrets by name: what may be written, and where local runs find them.

What no run shows, on any engine: ``SecretConformance``; what is shown in their place: ``test_masks.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flowyml import Pipeline, pipeline, step
from flowyml.cli import main
from flowyml.core.errors import (
    ConfigurationError,
    DefinitionError,
    MissingSecretError,
    StepError,
)
from flowyml.core.execution_status import ExecutionStatus
from flowyml.core.hooks import PipelineHook
from flowyml.core.retry_policy import OrchestratorRetryPolicy
from flowyml.orchestrators.local import LocalOrchestrator
from flowyml.orchestrators.local.secrets import KEYRING_SERVICE, LocalSecrets
from flowyml.orchestrators.targets import resolve
from flowyml.plan.codec import decode
from flowyml.plan.model import Step
from flowyml.runtime import fork_client
from flowyml.runtime.execution import run_step

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
    def test_arguments_and_variables_are_filled(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOWYML_FORK", "0")  # the conformance suite shows it with forks
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

    def test_a_step_with_a_missing_one_is_not_retried(self) -> None:
        lacks = says.options(retry=OrchestratorRetryPolicy(max_attempts=3, initial_delay_seconds=0))
        run = one(lacks).submit().wait_for_completion(2400)
        assert [(item.status, item.attempt) for item in run.step_runs()] == [(ExecutionStatus.FAILED, 1)]
        assert "Secret 'other' is missing" in str(run.error)

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
        with pytest.raises(ConfigurationError, match="does not exist"):
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
