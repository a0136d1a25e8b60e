"""Classes and functions of scripts and notebooks, on their way between processes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from flowyml.artifacts import open_store, unpack


def test_classes_of_a_script_are_found_here_and_on_its_workers(tmp_path: Path) -> None:
    """Packed in the script, read where the script is a module, packed there, and read in the script again."""
    script = tmp_path / "training.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, subprocess, sys
            from dataclasses import dataclass
            from flowyml.artifacts import open_store, pack, unpack
            from flowyml.artifacts.pickling import set_worker_main

            @dataclass
            class Config:
                rate: float

            def other_side(folder, packed):
                sys.path.insert(0, sys.argv[2])
                import training
                set_worker_main("training")
                store = open_store(folder)
                values = [unpack(item, store) for item in packed]
                assert all(type(value[0]) is training.Config for value in values), values
                print(json.dumps([pack(value, store, key=f"back-{n}") for n, value in enumerate(values)]))

            if __name__ == "__main__":
                store = open_store(sys.argv[1])
                # The second holds a lambda, so it goes by value, and Config still by name.
                values = [(Config(0.5), 1), (Config(0.5), lambda: Config(2.0))]
                packed = [pack(value, store, key=f"there-{n}") for n, value in enumerate(values)]
                code = "import sys, json, training; training.other_side(sys.argv[1], json.loads(sys.argv[3]))"
                other = [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[2]); {code}"]
                command = [*other, sys.argv[1], sys.argv[2], json.dumps(packed)]
                out = subprocess.run(command, capture_output=True, check=True).stdout
                back = [unpack(item, store) for item in json.loads(out)]
                assert back[0] == (Config(0.5), 1), back
                assert type(back[1][0]) is Config
                assert type(back[1][1]()) is Config
                assert "training" not in sys.modules
                print("same")
            """
        )
    )
    command = [sys.executable, str(script), str(tmp_path / "store"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


def test_without_a_file_for_main_classes_travel_by_value(tmp_path: Path) -> None:
    code = (
        "import sys; from flowyml.artifacts import open_store, pack\n"
        "class Config: rate = 0.5\n"
        "import json; print(json.dumps(pack(Config(), open_store(sys.argv[1]), key='a')))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    packed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    back = unpack(packed, open_store(tmp_path))
    assert (back.rate, type(back).__name__) == (0.5, "Config")
